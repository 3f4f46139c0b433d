"""The model card of an export: what it is, how to use it, what it scored. Plain values in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ccrl_cli.findings import points, span
from ccrl_cli.findings.runs import run_finding

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#])")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What a card tells.

    Attributes:
        title: name of the model.
        base: reference of the base model.
        merged: whether the folder holds a whole model, or an adapter alone.
        types: (identifier, name in prompts) of the types it was adapted to.
        system: system message of the prompt.
        user: user message with the placeholders ``{types}`` and ``{text}``.
        profile: resolved profile of the run (JSON).
        versions: packages by version.
        data: data sets by digest.
        evaluation: content of ``evaluation.json``, or None.
        notes: further sentences, each a line of the limits.
    """

    title: str
    base: str
    merged: bool
    types: Sequence[tuple[str, str]]
    system: str
    user: str
    profile: Mapping[str, Any]
    versions: Mapping[str, str]
    data: Mapping[str, str]
    evaluation: Mapping[str, Any] | None = None
    notes: Sequence[str] = field(default_factory=tuple)


def model_card(facts: CardFacts) -> str:
    """Return the text of ``README.md``: front matter of the hub, then Markdown."""
    return "\n".join([*_front_matter(facts), *_body(facts)]) + "\n"


def _front_matter(facts: CardFacts) -> Iterator[str]:
    """Yield YAML; strings are written as JSON, which YAML reads."""
    yield "---"
    if not facts.base.startswith("pypi:") and "\\" not in facts.base and facts.base.count("/") == 1:
        yield f"base_model: {json.dumps(facts.base.partition('@')[0])}"
        yield f"base_model_relation: {'finetune' if facts.merged else 'adapter'}"
    yield f"library_name: {'transformers' if facts.merged else 'peft'}"
    yield "pipeline_tag: text-generation"
    yield "tags: [named-entity-recognition, grpo, test-time-reinforcement-learning, lora, ccrl]"
    yield from _model_index(facts)
    yield "---"


def _model_index(facts: CardFacts) -> Iterator[str]:
    domains = (facts.evaluation or {}).get("domains") or {}
    scored = [d for d in domains.values() if d and d.get("after")]
    if not scored or not (facts.evaluation or {}).get("reportable"):
        return
    yield "model-index:"
    yield f"- name: {json.dumps(facts.title)}"
    yield "  results:"
    for domain in scored:
        yield "  - task: {type: token-classification, name: Named-entity recognition}"
        yield f"    dataset: {{type: custom, name: {json.dumps(str(domain['data']))}}}"
        yield "    metrics:"
        for name in ("f1", "precision", "recall"):
            yield f"    - {{type: {name}, value: {float(domain['after'][name]):.4f}}}"


def _body(facts: CardFacts) -> Iterator[str]:
    yield ""
    yield f"# {_plain(facts.title)}"
    yield ""
    yield (
        f"{'A model' if facts.merged else 'A LoRA adapter'} for named-entity recognition by "
        f"prompt, made from `{facts.base}` with ccrl: reinforcement learning (GRPO) on the "
        "model's own pseudo-labels of a domain without labels."
    )
    yield ""
    yield from _evaluation(facts)
    yield from _usage(facts)
    yield from _training(facts)
    yield "## Limits"
    yield ""
    for note in (
        *facts.notes,
        "Its labels came from the model itself: systematic mistakes of the base model can have "
        "been reinforced.",
        "It answers in JSON and can name mentions that the text does not hold; check them against "
        "the text.",
    ):
        yield f"- {note}"


def _evaluation(facts: CardFacts) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    if facts.evaluation is None:
        yield "This run was not evaluated."
        yield ""
        return
    finding = run_finding(facts.evaluation)
    yield _plain(finding.text)
    yield ""
    for caveat in finding.caveats:
        yield f"- {_plain(caveat.text)}"
    yield ""
    yield "| answers | data | scored | F1 before | F1 after | change (95 % interval) | sentences |"
    yield "|---|---|---|---|---|---|---|"
    for role, domain in (facts.evaluation.get("domains") or {}).items():
        if domain:
            yield _score_row(f"{role}, greedy", domain, domain)
            for way, scores in (domain.get("decoded") or {}).items():
                yield _score_row(f"{role}, {way}", domain, scores)
    yield ""
    yield (
        "Micro F1 of exact spans and types in percent; mentions that are not in the text count as "
        f"wrong. Split: {facts.evaluation.get('split')}."
    )
    yield ""


def _score_row(name: str, domain: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """Return the row of one way of decoding in a domain."""
    before, after, delta = (scores.get(key) for key in ("before", "after", "delta_f1"))
    cells = [
        name,
        _plain(str(domain["data"])),
        str(domain.get("mode", "")),
        _score(before),
        _score(after),
        f"{points(delta['value'])} ({span(delta['low'], delta['high'])})" if delta else "",
        str((after or before or {}).get("num_sentences", "")),
    ]
    return "| " + " | ".join(cells) + " |"


def _score(scores: Mapping[str, Any] | None) -> str:
    if not scores:
        return ""
    low, high = scores.get("f1_low"), scores.get("f1_high")
    interval = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * scores['f1']:.1f}{interval}"


def _usage(facts: CardFacts) -> Iterator[str]:
    names = ", ".join(name for _, name in facts.types)
    yield "## Use"
    yield ""
    yield "```python"
    if facts.merged:
        yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
        yield ""
        yield 'folder = "."  # this folder, or the name of this repository'
        yield "model = AutoModelForCausalLM.from_pretrained(folder)"
    else:
        yield "from peft import PeftModel"
        yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
        yield ""
        yield 'folder = "."  # this folder, or the name of this repository'
        yield f"base = AutoModelForCausalLM.from_pretrained({json.dumps(_base_folder(facts.base))})"
        yield "model = PeftModel.from_pretrained(base, folder)"
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    yield f"types = {json.dumps(names, ensure_ascii=False)}"
    yield 'text = "..."'
    user = facts.user.replace("{", "{{").replace("}", "}}")
    user = user.replace("{{types}}", "{types}").replace("{{text}}", "{text}")
    yield "messages = ["
    yield f'    {{"role": "system", "content": {json.dumps(facts.system, ensure_ascii=False)}}},'
    yield f'    {{"role": "user", "content": f{json.dumps(user, ensure_ascii=False)}}},'
    yield "]"
    yield (
        "inputs = tokenizer.apply_chat_template("
        'messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)'
    )
    yield "answer = model.generate(**inputs, do_sample=False, max_new_tokens=256)[0]"
    yield 'print(tokenizer.decode(answer[inputs["input_ids"].shape[1]:], skip_special_tokens=True))'
    yield "```"
    yield ""
    yield (
        "Or with character offsets: `ccrl predict --types "
        f'"{",".join(identifier for identifier, _ in facts.types)}" "..."`.'
    )
    yield ""
    if any(identifier != name for identifier, name in facts.types):
        pairs = ", ".join(f"{name} = `{identifier}`" for identifier, name in facts.types)
        yield f"Types: {pairs}."
        yield ""


def _base_folder(base: str) -> str:
    """Return what a user loads as the base: package references are on disk under a folder."""
    return "folder of the base model (ccrl download)" if base.startswith("pypi:") else base


def _training(facts: CardFacts) -> Iterator[str]:
    yield "## Training"
    yield ""
    training = facts.profile.get("training", {})
    curriculum = facts.profile.get("curriculum", {})
    rows = {
        "base model": facts.base,
        "seed": facts.profile.get("run", {}).get("seed"),
        "pacing": curriculum.get("pacing"),
        "order": curriculum.get("order"),
        "learning rate": training.get("learning_rate"),
        "prompts a step × answers": f"{training.get('prompts_per_step')} × "
        f"{training.get('num_generations')}",
        "KL weight (beta)": training.get("beta"),
        **{f"data {name}": f"digest {digest[:16]}" for name, digest in facts.data.items()},
        "packages": ", ".join(f"{name} {number}" for name, number in facts.versions.items()),
    }
    yield "| | |"
    yield "|---|---|"
    for name, value in rows.items():
        yield f"| {_plain(str(name))} | {_plain(str(value))} |"
    yield ""


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))

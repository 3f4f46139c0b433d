"""The profile schema: bounds, cross-field checks, descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ccrl_cli.config.comparison import ARMS, Arm
from ccrl_cli.config.load import schema_fields
from ccrl_cli.config.schema import Profile


def tree(**sections: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "model": {"name": "org/name"},
        "data": {"source": {"name": "sample:newswire"}, "target": {"path": "texts.txt"}},
    }
    for name, values in sections.items():
        base[name] = {**base.get(name, {}), **values}
    return base


def profile(**sections: Any) -> Profile:
    return Profile.model_validate(tree(**sections))


def refused(**sections: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        profile(**sections)
    detail, *_ = caught.value.errors()
    return str(detail.get("ctx", {}).get("error") or detail["msg"])


def test_defaults_of_the_documented_keys():
    made = profile()
    assert (made.run.dir, made.run.seed) == ("runs", 0)
    assert (made.generation.num_completions, made.generation.temperature) == (8, 0.8)
    assert made.confidence.model_dump() == {
        "metric": "self_consistency",
        "weights": {},
        "label": "majority",
        "positive": 0.5,
        "negative": 0.125,
        "similarity": 1.0,
        "models": (),
        "type_rule": "votes",
        "type_question": "answer",
        "type_questions": 1,
        "type_paraphrases": {},
        "type_prior": "matching",
        "prior_matching": 0.75,
        "unseen_type_bonus": 1.25,
        "type_prototypes": True,
        "calibrator": "none",
    }
    assert made.curriculum.shares == (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert made.reward.model_dump() == {
        "overlap": "token_f1",
        "overlap_weight": 1.0,
        "format_weight": 0.2,
        "length_weight": 0.0,
    }
    assert made.baselines.arms == ARMS


def test_arm_names_are_listed_once():
    assert Arm.__args__ == ARMS


def test_every_key_is_described():
    described = {key: field.description for key, field in schema_fields()}
    assert len(described) > 90
    assert not [key for key, text in described.items() if not text or not text.endswith((".", "]"))]


def test_profile_is_frozen():
    made = profile()
    with pytest.raises(ValidationError, match="frozen"):
        made.run.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("section", "values", "reason"),
    [
        ("confidence", {"negative": 0.6}, "negative (0.6) must not be above positive (0.5)"),
        ("confidence", {"metric": "combined", "weights": {"logprob": 0}}, "no weight above 0"),
        ("confidence", {"weights": {"logprob": 1}}, "read by metric 'combined', not by 'self_"),
        ("prompt", {"rename_types": 0.5}, "rename_types needs names to choose from"),
        ("curriculum", {"shares": [0.5, 0.5, 1.0]}, "shares must increase"),
        ("curriculum", {"shares": [0.1, 0.9]}, "shares must end at 1.0, not 0.9"),
        # 6 prompts x 4 rollouts = 24, and 24 = 2 x 9 + 6
        (
            "training",
            {"prompts_per_step": 6, "num_generations": 4, "micro_batch_size": 9},
            "prompts_per_step x num_generations (24) must be a multiple of micro_batch_size (9)",
        ),
        ("training", {"epsilon": 0.3}, "epsilon_high (0.2) must not be below epsilon (0.3)"),
        ("warmup", {"batch_size": 10}, "batch_size (10) must be a multiple"),
        ("reward", {"overlap_weight": 0, "format_weight": 0}, "at least one of the reward weights"),
        ("baselines", {"arms": ["curriculum", "curriculum"]}, "arms lists 'curriculum' twice"),
        ("generation", {"models": ["a", "b", "a"]}, "models lists 'a' twice"),
        *(
            ("run", {"name": name}, "Windows keeps this name for a device")
            for name in ("con", "NUL", "aux.x", "com1", "Lpt9.tar.gz", "prn")
        ),
        ("run", {"name": "run."}, "Windows leaves out a dot at the end"),
        # "D:\bert\first" in double quotes
        ("run", {"dir": "D:\bert\first"}, "no control character such as '\\x08'; write a path"),
        ("model", {"name": "C:\new"}, "no control character such as '\\n'"),
        ("model", {"name": "m", "adapter": "C:\temp"}, "no control character such as '\\t'"),
        ("generation", {"store": "a\x00b"}, "no control character such as '\\x00'"),
        ("warmup", {"folder": "a\x7fb"}, "no control character such as '\\x7f'"),
    ],
)
def test_cross_field_checks(section, values, reason):
    assert reason in refused(**{section: values})


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("run", {"name": "a/b"}),
        ("run", {"name": ".."}),
        ("run", {"seed": -1}),
        ("training", {"num_generations": 1}),
        ("training", {"learning_rate": float("nan")}),
        ("training", {"beta": float("inf")}),
        ("curriculum", {"start": 0.0}),
        ("curriculum", {"shares": []}),
        ("generation", {"temperature": 0}),
        ("generation", {"top_p": 1.1}),
        ("confidence", {"metric": "combined", "weights": {"combined": 1.0}}),
        ("confidence", {"similarity": 0.0}),
        ("prompt", {"paraphrases": {"person": []}}),
        ("baselines", {"arms": ["magic"]}),
        ("report", {"colour": "red"}),
    ],
)
def test_bounds(section, values):
    refused(**{section: values})


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ({}, "neither is set"),
        ({"name": "sample:x", "path": "y"}, "both are set"),
        ({"name": "conll2003"}, "neither sample:NAME nor hub:ID"),
        ({"name": "hub:"}, "neither sample:NAME nor hub:ID"),
        ({"path": "x", "labels": ["A", "A"]}, "labels lists 'A' twice"),
    ],
)
def test_data_set_is_a_name_or_a_path(target, reason):
    assert reason in refused(data={"target": target})


def test_type_names_are_reversible():
    assert "same name" in refused(data={"type_names": {"a": "Big  Thing", "b": "big thing"}})
    labels = {"path": "x", "labels": ["person", "PER"]}
    assert "'person' and 'PER'" in refused(data={"target": labels, "type_names": {"PER": "Person"}})
    # The same clash between two data sets does no harm: one prompt lists the types of one set.
    profile(
        data={
            "source": {"path": "x", "labels": ["PER"]},
            "target": {"path": "y", "labels": ["person"]},
            "type_names": {"PER": "person"},
        }
    )


def test_full_warmup_of_4bit_weights_is_refused():
    warmup = {"enabled": True, "method": "full"}
    model = {"name": "x", "load_in_4bit": True}
    assert "cannot train 4-bit weights" in refused(model=model, warmup=warmup)
    profile(model=model, warmup={"method": "full"})


def test_empty_string_unsets():
    made = profile(model={"adapter": ""}, training={"max_steps": ""})
    assert made.model.adapter is None
    assert made.training.max_steps is None
    assert "at least 1 character" in refused(model={"name": ""})


def test_derived_values():
    made = profile(run={"name": "one", "dir": "work"})
    assert made.run_path == Path("work/one")
    assert made.store_path == Path("work/one/completions.jsonl")
    assert profile(generation={"store": "s.jsonl"}).store_path == Path("s.jsonl")
    assert made.generation_models == ("org/name",)
    assert profile(generation={"models": ["a", "b"]}).generation_models == ("a", "b")
    assert (made.data.source.reference, made.data.target.reference) == (
        "sample:newswire",
        "texts.txt",
    )


@pytest.mark.parametrize("name", ["console", "nul-1", "aux1", "com10", "a.con", "run.1"])
def test_names_that_only_look_like_devices_are_names(name):
    assert profile(run={"name": name}).run.name == name


def test_a_data_path_with_control_characters_is_refused():
    reason = refused(data={"source": {"name": "sample:newswire"}, "target": {"path": "D:\bert"}})
    assert "write a path with backslashes in single quotes, or write it with /" in reason

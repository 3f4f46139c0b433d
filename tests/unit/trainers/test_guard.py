"""The collapse guard: each rule fires on a tiny model that is really driven there."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from ccrl_cli.core.collapse import GuardLimits
from ccrl_cli.core.rewards import RewardWeights
from ccrl_cli.trainers.base import TrainTask
from lazily import lazy, needs
from tiny_grpo import (
    SENTENCES,
    SETTINGS,
    adapter_state,
    answering_folder,
    make_input,
    make_sampler,
    run_grpo,
    with_adapter,
)

torch = lazy("torch")
load_model = lazy("ccrl_cli.models.loading", "load_model")
LoadOptions = lazy("ccrl_cli.models.weights", "LoadOptions")
Weights = lazy("ccrl_cli.models.weights", "Weights")

pytestmark = needs("torch", "transformers", "trl", "peft")

FAIR = RewardWeights("token_f1", 1.0, 0.2, 0.0, 24, 48)
#: Short answers pay: the empty list earns more than a right answer.
BRIEF = RewardWeights("token_f1", 1.0, 0.2, 4.0, 3, 48)
#: No rule but the one that a test lowers can fire.
OPEN = GuardLimits(
    window=3,
    max_invalid_share=1.0,
    max_zero_spread_share=1.0,
    min_entity_ratio=0.0,
    max_entity_ratio=1e9,
    max_empty_rise=1.0,
    max_kl=1e9,
    max_source_drop=1.0,
)
RUN = replace(
    SETTINGS,
    num_steps=30,
    prompts_per_step=3,
    num_generations=8,
    micro_batch_size=24,
    learning_rate=2e-2,
    max_completion_tokens=48,
    save_every_steps=100,
    probe_size=6,
    probe_every_steps=2,
    epsilon_high=0.2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model that mostly answers and sometimes with an empty list."""
    return answering_folder(tmp_path_factory)


def drive(folder: Path, work: Path, limits: GuardLimits, settings=RUN, reward=FAIR, **more):
    """Train with a guard; return result, records, weights after each step, weights at the end."""
    loaded = with_adapter(load_model(Weights(folder), LoadOptions("float32")))
    inputs = {
        f"i{place}": make_input(loaded, f"i{place}", text, text.split()[0])
        for place, text in enumerate(SENTENCES)
    }
    source = tuple(
        make_input(loaded, f"source:{place}", text, text.split()[0])
        for place, text in enumerate(SENTENCES)
    )
    task = TrainTask(inputs, reward, tuple(inputs.values()), source_probe=source)
    settings = replace(settings, guard=limits)
    states = {0: adapter_state(loaded)}

    def on_step(record: dict) -> None:
        states[record["step"]] = adapter_state(loaded)

    if "prepare" in more:
        more["prepare"](loaded)
    draws = make_sampler(settings, tuple(inputs))
    records, result = run_grpo(loaded, task, draws, settings, work, on_step=on_step)
    assert result is not None
    return result, records, states, adapter_state(loaded)


def assert_stopped_at_the_best(rule: str, result, records, states, end) -> None:
    assert result.alarm is not None
    assert result.alarm.rule == rule
    assert result.steps == result.alarm.step == records[-1]["step"] < RUN.num_steps
    assert records[-1]["stopped_by"] == rule
    assert 0 <= result.kept_step < result.steps
    kept = states[result.kept_step]
    assert all(torch.equal(end[name], kept[name]) for name in kept)
    assert all(bool(torch.isfinite(value).all()) for value in end.values())


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        ("entities-collapse", replace(OPEN, min_entity_ratio=0.3)),
        ("empty", replace(OPEN, max_empty_rise=0.4)),
    ],
)
def test_a_reward_that_pays_for_empty_answers_is_stopped(folder, tmp_path, rule, limits):
    result, records, states, end = drive(folder, tmp_path, limits, reward=BRIEF)
    assert_stopped_at_the_best(rule, result, records, states, end)
    assert records[-1]["entities"] < records[0]["entities"]


@pytest.mark.parametrize(
    ("rule", "limits"),
    [
        ("kl", replace(OPEN, max_kl=0.5)),
        ("invalid", replace(OPEN, max_invalid_share=0.5)),
        ("source-drop", replace(OPEN, max_source_drop=0.15)),
        ("zero-spread", replace(OPEN, max_zero_spread_share=0.6)),
    ],
)
def test_a_learning_rate_that_is_far_too_high_is_stopped(folder, tmp_path, rule, limits):
    wild = replace(RUN, learning_rate=1.0)
    result, records, states, end = drive(folder, tmp_path, limits, wild)
    assert_stopped_at_the_best(rule, result, records, states, end)


def test_answers_that_grow_are_stopped(folder, tmp_path):
    """The reward for naming somebody raises the entities an answer; the limit lies in between."""
    limits = replace(OPEN, max_entity_ratio=0.8)
    sound = replace(RUN, learning_rate=5e-3)
    result, records, states, end = drive(folder, tmp_path, limits, sound)
    assert_stopped_at_the_best("entities-explode", result, records, states, end)
    assert records[0]["entities"] < 0.8 < records[-1]["entities"]


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(folder, tmp_path):
    calls = []

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return gradient * math.nan if len(calls) == 4 else gradient

    def prepare(loaded) -> None:
        name, weight = next((n, p) for n, p in loaded.model.named_parameters() if "lora_B" in n)
        assert weight.requires_grad, name
        weight.register_hook(poison)

    result, records, states, end = drive(folder, tmp_path, OPEN, prepare=prepare)
    assert_stopped_at_the_best("not-finite", result, records, states, end)
    assert result.alarm.step == 4
    assert all(torch.equal(states[4][name], states[3][name]) for name in end)


def test_a_sound_training_is_left_alone_and_keeps_its_last_policy(folder, tmp_path):
    sound = replace(RUN, learning_rate=5e-3, num_steps=12)
    result, records, states, end = drive(folder, tmp_path, GuardLimits(), sound)
    assert result.alarm is None
    assert result.kept_step == result.steps == 12
    assert records[-1]["probe_f1"] > records[0]["start_probe_f1"]
    assert all(torch.equal(end[name], states[12][name]) for name in end)


def test_the_best_policy_is_kept_where_it_is_asked_for(folder, tmp_path):
    best = replace(RUN, learning_rate=5e-3, num_steps=8, keep="best")
    result, records, states, end = drive(folder, tmp_path, OPEN, best)
    probed = {0: records[0]["start_probe_f1"]}
    probed |= {r["step"]: r["probe_f1"] for r in records if "probe_f1" in r}
    smoothed, value = {}, probed[0]
    for step, reward in probed.items():
        value = reward if not smoothed else 0.5 * reward + 0.5 * value
        smoothed[step] = value
    assert smoothed[result.kept_step] >= max(smoothed.values()) - 0.005
    assert all(torch.equal(end[name], states[result.kept_step][name]) for name in end)


def test_no_rule_fires_when_the_guard_is_off(folder, tmp_path):
    wild = replace(RUN, learning_rate=1.0, num_steps=6)
    result, _, _, _ = drive(folder, tmp_path, None, wild)
    assert (result.alarm, result.steps) == (None, 6)

"""GRPO's options on a tiny model: replay, iterations, numbers against TRL and by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ccrl_cli.core.collapse import GuardLimits
from ccrl_cli.errors import PreconditionError, UsageError
from lazily import lazy, needs
from tiny_grpo import (
    SETTINGS,
    adapted,
    adapter_state,
    make_input,
    make_sampler,
    make_task,
    run_grpo,
    without_times,
)

torch = lazy("torch")
Dataset = lazy("datasets", "Dataset")
GRPOTrainer = lazy("trl", "GRPOTrainer")
arguments = lazy("ccrl_cli.trainers.arguments")
grpo = lazy("ccrl_cli.trainers.grpo")

pytestmark = needs("torch", "transformers", "trl", "peft")

NEVER = GuardLimits(1, 1.0, 1.0, 0.0, 1e9, 1.0, 1e9, 1.0)


# --- replay ---------------------------------------------------------------------------------------


def replaying(loaded, count=3):
    return {
        f"source:{n}": make_input(loaded, f"source:{n}", f"Cy {n} left .", "Cy")
        for n in range(count)
    }


def test_each_step_replays_labelled_source_inputs(folder, tmp_path):
    settings = replace(SETTINGS, prompts_per_step=3, replayed=1, num_steps=3, micro_batch_size=12)
    loaded = adapted(folder)
    task = make_task(loaded, replay=replaying(loaded))
    draws = make_sampler(settings)
    records, _ = run_grpo(loaded, task, draws, settings, tmp_path)
    assert [len(r["inputs"]) for r in records] == [2, 2, 2]
    assert sorted(key for r in records for key in r["replayed"]) == sorted(task.replay)
    assert [key for r in records for key in r["inputs"]] == [draws.draw(i) for i in range(6)]
    assert all({"replay_reward", "replay_f1"} <= set(record) for record in records)


def test_replays_move_weights_and_not_the_statistics_of_the_target(folder, tmp_path):
    """With advantages of the target weighted 0, what moves the weights is replay alone."""
    settings = replace(SETTINGS, replayed=1, num_steps=1, use_weights=True)
    ends = {}
    for name, replayed in (("with", 1), ("without", 0)):
        loaded = adapted(folder)
        task = make_task(loaded, (0.0, 0.0, 0.0), replay=replaying(loaded))
        own = replace(settings, replayed=replayed)
        run_grpo(loaded, task, make_sampler(own), own, tmp_path / name)
        ends[name] = adapter_state(loaded)
    fresh = adapter_state(adapted(folder))
    assert all(torch.equal(ends["without"][name], fresh[name]) for name in fresh)
    assert any(not torch.equal(ends["with"][name], fresh[name]) for name in fresh)


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "iterations", "steps"), [(1, 1, 1), (3, 2, 4), (4, 2, 4), (1, 3, 3), (50, 4, 52)]
)
def test_checkpoints_fall_between_sets_of_rollouts(every, iterations, steps):
    made = replace(SETTINGS, save_every_steps=every, num_iterations=iterations)
    assert made.saving_steps == steps


def test_several_updates_a_rollout_resume_exactly(folder, tmp_path):
    """The cut falls inside a set of rollouts; the resume goes back to where it began."""
    settings = replace(SETTINGS, num_iterations=2, num_steps=8, save_every_steps=1, guard=NEVER)

    def go(work: Path, stop_after=None):
        loaded = adapted(folder)
        task = make_task(loaded, replay=replaying(loaded))
        own = replace(settings, prompts_per_step=3, replayed=1, micro_batch_size=6)
        draws = make_sampler(own, gate=True)
        records, _ = run_grpo(loaded, task, draws, own, work, stop_after=stop_after)
        return adapter_state(loaded), records, draws.state_dict()

    straight, records, state = go(tmp_path / "straight")
    go(tmp_path / "cut", stop_after=4)
    end, rest, again = go(tmp_path / "cut")
    assert [r["step"] for r in rest] == [5, 6, 7, 8]
    assert without_times(rest) == without_times(records[4:])
    assert all(torch.equal(end[name], straight[name]) for name in straight)
    assert again == state
    assert ["reward" in record for record in records] == [True, False] * 4


# --- numbers against TRL --------------------------------------------------------------------------


def by_hand(rewards, scaling: str):
    """Advantages of groups (rows), written out from their definition."""
    rewards = np.asarray(rewards, dtype=np.float64)
    advantages = rewards - rewards.mean(axis=1, keepdims=True)
    if scaling == "group":
        return advantages / (rewards.std(axis=1, ddof=1, keepdims=True) + 1e-4)
    if scaling == "batch":
        return advantages / (rewards.std(ddof=1) + 1e-4)
    return advantages


@pytest.mark.parametrize("scaling", ["group", "batch", "none"])
@pytest.mark.parametrize("loss_type", ["dapo", "dr_grpo", "grpo", "bnpo"])
def test_our_step_is_that_of_plain_trl(folder, tmp_path, scaling, loss_type):
    """Plain GRPOTrainer, fed the same answers and rewards, ends with the same weights."""
    settings = replace(
        SETTINGS,
        num_steps=1,
        loss_type=loss_type,
        scale_rewards=scaling,
        micro_batch_size=8,
        guard=None,
    )
    seen: dict[str, list] = {}
    loaded = adapted(folder)
    task = make_task(loaded)
    original = grpo.WeightedGrpoTrainer._generate_and_score_completions

    def spied(self, inputs):
        output = original(self, inputs)
        seen["advantages"] = output["advantages"].tolist()
        seen["prompts"] = [row["prompt"] for row in inputs]
        return output

    rows: list = []
    before = grpo.Rewards._score

    def scored(self, completions, completion_ids, input_ids, *rest):
        before(self, completions, completion_ids, input_ids, *rest)
        rows.extend((row, ids) for row, ids in zip(self._last, completion_ids, strict=True))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo.WeightedGrpoTrainer, "_generate_and_score_completions", spied)
        patch.setattr(grpo.Rewards, "_score", scored)
        ours_records, _ = run_grpo(loaded, task, make_sampler(settings), settings, tmp_path / "a")
    ours = adapter_state(loaded)
    totals = [row.total for row, _ in rows]
    expected = by_hand(np.reshape(totals, (2, 4)), scaling)
    assert np.allclose(np.reshape(seen["advantages"], (2, 4)), expected, atol=2e-5)

    other = adapted(folder)
    trainer = plain_trl(other, settings, tmp_path / "b", seen["prompts"], rows)
    trainer.train()
    theirs = adapter_state(other)
    step = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert math.isclose(step["loss"], ours_records[0]["loss"], abs_tol=1e-6)
    assert math.isclose(step["grad_norm"], ours_records[0]["gradient_norm"], rel_tol=1e-4)
    assert all(torch.allclose(theirs[name], ours[name], atol=2e-5) for name in ours)
    assert any(value.abs().sum() > 0 for name, value in ours.items() if "lora_B" in name)


def plain_trl(loaded, settings, work, prompts, rows):
    """A GRPOTrainer with one reward function that looks totals up, and recorded answers."""

    def totals(completions, **_):
        return [row.total for row, _ in rows[: len(completions)]]

    def recorded(given, trainer):
        return {
            "prompt_ids": [loaded.encode(prompt) for prompt in given],
            "completion_ids": [list(ids) for _, ids in rows[: len(given)]],
            "logprobs": [[0.0] * len(ids) for _, ids in rows[: len(given)]],
        }

    made = arguments.grpo_arguments(settings, work, [1.0], device="cpu")
    distinct = prompts[:: settings.num_generations]
    return GRPOTrainer(
        model=loaded.model,
        reward_funcs=totals,
        args=made,
        train_dataset=Dataset.from_dict({"prompt": distinct}),
        processing_class=loaded.tokenizer,
        rollout_func=recorded,
    )


# --- checks before the first update ---------------------------------------------------------------


def test_the_first_batch_is_sound(folder, tmp_path):
    """Decoder and trainer agree, and the policy is its own reference."""
    settings = replace(SETTINGS, beta=0.1, num_steps=1)
    loaded = adapted(folder)
    records, _ = run_grpo(loaded, make_task(loaded), make_sampler(settings), settings, tmp_path)
    assert records[0]["start_ratio"] == pytest.approx(1.0, abs=1e-4)
    assert records[0]["start_kl_decoder"] == pytest.approx(0.0, abs=1e-6)
    assert records[0]["start_kl_reference"] == pytest.approx(0.0, abs=1e-6)
    assert records[0]["start_kl"] == pytest.approx(0.0, abs=1e-6)


def test_a_decoder_that_samples_from_something_else_is_refused(folder, tmp_path):
    """As if weights had not been folded right: the answers come from a sharper policy."""
    loaded = adapted(folder)
    usual = grpo.merged_decoder(loaded)

    def crooked(model, requests, sampling):
        head = model.get_base_model().lm_head.weight
        kept = head.detach().clone()
        with torch.no_grad():
            head.mul_(30.0)
        try:
            return usual(model, requests, sampling)
        finally:
            with torch.no_grad():
                head.copy_(kept)

    settings = replace(SETTINGS, num_steps=1, probe_size=0)
    with pytest.raises(PreconditionError, match="disagree"):
        grpo.train_grpo(
            loaded,
            make_task(loaded),
            make_sampler(settings),
            settings,
            tmp_path,
            grpo.TrainHooks(on_step=lambda _record: None),
            crooked,
        )


def test_a_first_gradient_that_is_not_finite_is_refused(folder, tmp_path):
    loaded = adapted(folder)
    weight = next(p for name, p in loaded.model.named_parameters() if "lora_B" in name)
    weight.register_hook(lambda gradient: gradient * math.nan)
    before = adapter_state(loaded)
    with pytest.raises(PreconditionError, match="first gradient"):
        run_grpo(loaded, make_task(loaded), make_sampler(SETTINGS), SETTINGS, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in adapter_state(loaded).items())


# --- sharing a step out ---------------------------------------------------------------------------


def test_a_step_is_shared_out_evenly_or_not_at_all(tmp_path):
    assert arguments.accumulation_steps(SETTINGS, 1) == 2
    assert arguments.accumulation_steps(SETTINGS, 2) == 1
    with pytest.raises(UsageError, match="3 processes cannot share"):
        arguments.accumulation_steps(SETTINGS, 3)
    with pytest.raises(UsageError, match="no multiple"):
        arguments.accumulation_steps(replace(SETTINGS, micro_batch_size=8), 2)


def test_records_are_plain_json(folder, tmp_path):
    loaded = adapted(folder)
    records, _ = run_grpo(loaded, make_task(loaded), make_sampler(SETTINGS), SETTINGS, tmp_path)
    names = {
        "reward",
        "reward_overlap",
        "reward_format",
        "reward_length",
        "label_f1",
        "zero_spread_share",
        "answer_tokens",
        "entities",
        "label_entities",
        "empty_share",
        "invalid_share",
        "truncated_share",
        "entropy",
        "kl",
        "open_share",
        "learning_rate",
        "tokens_per_second",
        "seconds_generate",
        "seconds_score",
        "seconds_train",
        "gradient_norm",
        "loss",
    }
    for record in records:
        assert names <= set(record)
        assert json.loads(json.dumps(record)) == record
    assert "start_kl" in records[0]

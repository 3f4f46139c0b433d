"""GRPO over the curriculum, on a tiny model: arguments, weights, telemetry, resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ccrl_cli.errors import PreconditionError
from ccrl_cli.trainers.base import TrainHooks
from lazily import lazy, needs
from tiny_grpo import (
    SETTINGS,
    adapted,
    adapter_state,
    make_sampler,
    make_task,
    run_grpo,
    without_times,
)

torch = lazy("torch")
arguments = lazy("ccrl_cli.trainers.arguments")
grpo = lazy("ccrl_cli.trainers.grpo")
Probe = lazy("ccrl_cli.trainers.probe", "Probe")

pytestmark = needs("torch", "transformers", "trl", "peft")


def trained(folder: Path, work: Path, settings=SETTINGS, *, stop_after=None, weights=(1.0,) * 3):
    """Train; return adapter weights, records and the sampler."""
    loaded = adapted(folder)
    draws = make_sampler(settings, gate=True)
    task = make_task(loaded, weights)
    records, _ = run_grpo(loaded, task, draws, settings, work, stop_after=stop_after)
    return adapter_state(loaded), records, draws


def test_every_argument_that_moves_numbers_is_given(tmp_path):
    """The arguments that reach TRL, whole: an upgrade that moves a default changes this."""
    made = arguments.grpo_arguments(SETTINGS, tmp_path, [1.0, 0.2, 0.0], device="cpu")
    shown = {name: getattr(made, name) for name in json.loads(SNAPSHOT.read_text(encoding="utf-8"))}
    assert shown == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


SNAPSHOT = Path(__file__).with_name("grpo_arguments.json")


def test_records_and_probe(folder, tmp_path):
    state, records, draws = trained(folder, tmp_path)
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert [record["num_open"] for record in records] == [2, 2, 3, 3]
    assert all(len(record["inputs"]) == 2 for record in records)
    drawn = [name for record in records for name in record["inputs"]]
    assert drawn == [draws.draw(i) for i in range(8)]
    assert all(record["kl"] >= 0 for record in records)
    assert records[-1]["kl"] > 0
    assert any(value.abs().sum() > 0 for name, value in state.items() if "lora_B" in name)
    names = {"reward", "reward_overlap", "invalid_share", "zero_spread_share", "entropy"}
    assert names <= set(records[0])


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_training_that_was_cut_off_ends_as_a_straight_one(folder, tmp_path, beta):
    # With a KL term the library keeps a reference adapter beside the policy's.
    given = replace(SETTINGS, beta=beta)
    straight, all_records, _ = trained(folder, tmp_path / "straight", given)
    _, first, _ = trained(folder, tmp_path / "cut", given, stop_after=2)
    resumed, rest, _ = trained(folder, tmp_path / "cut", given)
    assert [record["step"] for record in first] == [1, 2, 3]
    assert [record["step"] for record in rest] == [3, 4]
    assert without_times(rest) == without_times(all_records[2:])
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_a_weight_scales_the_gradient_and_zero_removes_the_input(folder, tmp_path):
    one = replace(SETTINGS, num_steps=1, use_weights=True)
    whole, _, _ = trained(folder, tmp_path / "a", one)
    parts, _, _ = trained(folder, tmp_path / "b", one, weights=(1.0, 0.25, 1.0))
    none, records, _ = trained(folder, tmp_path / "c", one, weights=(0.0, 0.0, 0.0))
    assert records[0]["gradient_norm"] == 0
    assert any(not torch.equal(whole[name], parts[name]) for name in whole)
    fresh = adapter_state(adapted(folder))
    assert all(torch.equal(none[name], fresh[name]) for name in none)


@pytest.mark.parametrize("where", ["measure", "_batch_logprobs"])
def test_memory_that_runs_out_before_the_first_step_names_the_setting(
    folder, tmp_path, monkeypatch, where
):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")

    monkeypatch.setattr(Probe, where, full)
    loaded = adapted(folder)
    with pytest.raises(PreconditionError, match="ran out of memory: CUDA") as caught:
        run_grpo(loaded, make_task(loaded), make_sampler(SETTINGS), SETTINGS, tmp_path)
    assert "micro_batch_size" in caught.value.hint


def test_a_training_without_a_whole_checkpoint_begins_its_records_anew(folder, tmp_path):
    begun = []
    for _ in range(2):
        loaded = adapted(folder)
        hooks = TrainHooks(on_step=lambda _record: None, on_resume=begun.append)
        grpo.train_grpo(
            loaded, make_task(loaded), make_sampler(SETTINGS), SETTINGS, tmp_path, hooks
        )
        for whole in tmp_path.glob("checkpoint-*/ccrl.json"):
            whole.unlink()  # as if it was killed while saving
    assert begun == [0, 0]


def test_a_training_may_go_on_in_smaller_micro_batches(folder, tmp_path):
    straight, all_records, _ = trained(folder, tmp_path / "straight")
    trained(folder, tmp_path / "cut", stop_after=2)
    smaller = replace(SETTINGS, micro_batch_size=SETTINGS.micro_batch_size // 2)
    resumed, rest, _ = trained(folder, tmp_path / "cut", smaller)
    assert [record["step"] for record in rest] == [3, 4]
    assert [r["inputs"] for r in rest] == [r["inputs"] for r in all_records[2:]]
    for ours, whole in zip(rest, all_records[2:], strict=True):
        assert ours["reward"] == pytest.approx(whole["reward"], abs=1e-6)
    assert all(torch.allclose(resumed[name], straight[name], atol=1e-4) for name in straight)


def test_a_half_written_checkpoint_never_takes_the_place_of_the_only_one(tmp_path):
    one = replace(SETTINGS, keep_checkpoints=1)
    made = arguments.grpo_arguments(one, tmp_path, [1.0, 0.2, 0.0], device="cpu")
    assert made.save_total_limit == 2

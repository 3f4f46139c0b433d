"""GRPO over the curriculum, on a tiny model: arguments, weights, telemetry, resume."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl", "peft")):
    pytest.skip("needs torch, transformers, trl and peft", allow_module_level=True)

import torch

sys.path.insert(0, str(Path(__file__).parent))
import contextlib

from tiny_chat import write_tiny_chat

from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.curriculum import CurriculumSampler, Schedule
from ccrl_cli.core.rewards import RewardWeights, make_target
from ccrl_cli.models.loading import load_model
from ccrl_cli.records import Entity, Example
from ccrl_cli.trainers import arguments, grpo
from ccrl_cli.trainers.base import GrpoSettings, TrainHooks, TrainInput, TrainTask
from ccrl_cli.trainers.seeding import seed_libraries
from ccrl_cli.trainers.sft import add_adapter

SETTINGS = GrpoSettings(
    num_steps=4,
    seed=11,
    prompts_per_step=2,
    num_generations=4,
    micro_batch_size=4,
    learning_rate=1e-3,
    lr_scheduler="constant",
    lr_warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    optimizer="adamw_torch",
    beta=0.0,
    epsilon=0.2,
    epsilon_high=0.2,
    loss_type="dr_grpo",
    scale_rewards="none",
    num_iterations=1,
    temperature=1.0,
    top_p=1.0,
    top_k=0,
    max_completion_tokens=6,
    mask_truncated_completions=False,
    multi_objective_aggregation="sum_then_normalize",
    gradient_checkpointing=False,
    save_every_steps=1,
    keep_checkpoints=2,
    probe_size=2,
    probe_every_steps=1,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_chat(tmp_path_factory.mktemp("model"))


def adapted(folder: Path):
    loaded = load_model(folder, dtype="float32")
    seed_libraries(5)
    model = add_adapter(loaded.model, rank=4, alpha=8, modules=["q_proj", "up_proj"])
    # Many end tokens: answers of a random model then differ in length, and groups in reward.
    return replace(loaded, model=model, end_ids=tuple(range(2, 80)))


def task(loaded, weights=(1.0, 1.0, 1.0)) -> TrainTask:
    inputs = {}
    for place, weight in enumerate(weights):
        text = f"Ada {place} met Bo ."
        example = Example(text, *tokenize(text))
        target = make_target(Aligner(example), (Entity("Ada", "person"),), (), None)
        prompt = loaded.render([{"role": "user", "content": text}])
        types = {"person": "person"}
        inputs[f"i{place}"] = TrainInput(f"i{place}", prompt, target, weight, types)
    # A random model never writes JSON; its length alone is then rewarded, so that groups differ.
    reward = RewardWeights(
        overlap="token_f1",
        overlap_weight=1.0,
        format_weight=0.2,
        length_weight=1.0,
        length_soft_tokens=1,
        length_limit_tokens=6,
    )
    return TrainTask(inputs, reward, tuple(inputs.values())[:2])


def sampler(settings: GrpoSettings, names=("i0", "i1", "i2")) -> CurriculumSampler:
    schedule = Schedule(len(names), settings.num_steps, settings.prompts_per_step, "linear", 0.4)
    return CurriculumSampler(names, schedule, np.random.Generator(np.random.Philox(3)))


def trained(folder: Path, work: Path, settings=SETTINGS, *, stop_after=None, weights=(1.0,) * 3):
    """Train; return adapter weights, records and the sampler."""
    loaded = adapted(folder)
    records: list[dict] = []

    def on_step(record: dict) -> None:
        records.append(record)
        if stop_after is not None and record["step"] > stop_after:
            raise KeyboardInterrupt

    draws = sampler(settings)
    hooks = TrainHooks(on_step=on_step)
    with contextlib.suppress(KeyboardInterrupt):
        grpo.train_grpo(loaded, task(loaded, weights), draws, settings, work, hooks)
    state = {
        name: parameter.detach().clone()
        for name, parameter in loaded.model.named_parameters()
        if ".lora_" in name
    }
    return state, records, draws


def without_times(records: list[dict]) -> list[dict]:
    timed = ("seconds_", "tokens_per_second", "completions_per_second")
    return [{k: v for k, v in r.items() if not k.startswith(timed)} for r in records]


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


def test_a_training_that_was_cut_off_ends_as_a_straight_one(folder, tmp_path):
    straight, all_records, _ = trained(folder, tmp_path / "straight")
    _, first, _ = trained(folder, tmp_path / "cut", stop_after=2)
    resumed, rest, _ = trained(folder, tmp_path / "cut")
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
    fresh = {
        name: parameter
        for name, parameter in adapted(folder).model.named_parameters()
        if ".lora_" in name
    }
    assert all(torch.equal(none[name], fresh[name]) for name in none)

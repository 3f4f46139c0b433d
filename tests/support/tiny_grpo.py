"""A tiny model, its adapter, a task and a trainer for tests of GRPO."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.curriculum import CurriculumSampler, Schedule
from ccrl_cli.core.pacing import Pacing
from ccrl_cli.core.rewards import RewardWeights, make_target
from ccrl_cli.records import Entity, Example
from ccrl_cli.trainers.base import GrpoSettings, TrainHooks, TrainInput, TrainResult, TrainTask
from ccrl_cli.trainers.seeding import seed_libraries
from lazily import lazy
from tiny_chat import write_tiny_chat

torch = lazy("torch")
LoadedModel = lazy("ccrl_cli.models.loading", "LoadedModel")
load_model = lazy("ccrl_cli.models.loading", "load_model")
LoadOptions = lazy("ccrl_cli.models.weights", "LoadOptions")
Weights = lazy("ccrl_cli.models.weights", "Weights")
grpo = lazy("ccrl_cli.trainers.grpo")
SupervisedSettings = lazy("ccrl_cli.trainers.sft", "SupervisedSettings")
add_adapter = lazy("ccrl_cli.trainers.sft", "add_adapter")
train_supervised = lazy("ccrl_cli.trainers.sft", "train_supervised")

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

TYPES = {"person": "person"}

# A random model never writes JSON; its length alone is then rewarded, so that groups differ.
LENGTH = RewardWeights(
    overlap="token_f1",
    overlap_weight=1.0,
    format_weight=0.2,
    length_weight=1.0,
    length_soft_tokens=1,
    length_limit_tokens=6,
)


def adapted(folder: Path) -> LoadedModel:
    """Load the random model with a new adapter."""
    loaded = load_model(Weights(folder), LoadOptions("float32"))
    seed_libraries(5)
    model = add_adapter(loaded.model, rank=4, alpha=8, modules=["q_proj", "up_proj"])
    # Many end tokens: answers of a random model then differ in length, and groups in reward.
    return replace(loaded, model=model, end_ids=tuple(range(2, 80)))


def make_input(
    loaded: LoadedModel, key: str, text: str, *names: str, weight: float = 1.0
) -> TrainInput:
    """Return an input whose label holds persons."""
    example = Example(text, *tokenize(text))
    target = make_target(Aligner(example), [Entity(name, "person") for name in names], (), None)
    prompt = loaded.render([{"role": "user", "content": text}])
    return TrainInput(key, prompt, target, weight, TYPES)


def make_task(
    loaded: LoadedModel, weights=(1.0, 1.0, 1.0), reward=LENGTH, **more: Any
) -> TrainTask:
    """Return a task of a few sentences with one person each."""
    inputs = {
        f"i{place}": make_input(loaded, f"i{place}", f"Ada {place} met Bo .", "Ada", weight=weight)
        for place, weight in enumerate(weights)
    }
    return TrainTask(inputs, reward, tuple(inputs.values())[:2], **more)


def make_sampler(
    settings: GrpoSettings, names=("i0", "i1", "i2"), **more: Any
) -> CurriculumSampler:
    """Return draws of a linear curriculum."""
    steps = -(-settings.num_steps // settings.num_iterations)
    own = settings.prompts_per_step - settings.replayed
    schedule = Schedule(len(names), steps, own, Pacing("linear", 0.4))
    return CurriculumSampler(names, schedule, np.random.Generator(np.random.Philox(3)), **more)


def run_grpo(
    loaded: LoadedModel,
    task: TrainTask,
    draws: CurriculumSampler,
    settings: GrpoSettings,
    work: Path,
    *,
    on_step: Callable[[dict], None] = lambda _record: None,
    stop_after: int | None = None,
) -> tuple[list[dict], TrainResult | None]:
    """Train; return records and result (None when it was cut off)."""
    records: list[dict] = []

    def keep(record: dict) -> None:
        records.append(record)
        on_step(record)
        if stop_after is not None and record["step"] > stop_after:
            raise KeyboardInterrupt

    result = None
    with contextlib.suppress(KeyboardInterrupt):
        result = grpo.train_grpo(loaded, task, draws, settings, work, TrainHooks(on_step=keep))
    return records, result


def adapter_state(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """Return a copy of the adapter's weights."""
    return {
        name: parameter.detach().clone()
        for name, parameter in loaded.model.named_parameters()
        if ".lora_" in name
    }


def without_times(records: list[dict]) -> list[dict]:
    """Return records without what a clock says."""
    timed = ("seconds_", "tokens_per_second", "completions_per_second")
    return [{k: v for k, v in r.items() if not k.startswith(timed)} for r in records]


SENTENCES = [f"{name} met {other} ." for name in ("Ada", "Bo", "Cy") for other in ("Di", "Ed")]


def answering(folder: Path, work: Path, *, steps: int = 250) -> LoadedModel:
    """Return a tiny model that mostly answers, and sometimes with an empty list, plus an adapter.

    It is trained on the spot: of every four answers to a sentence three name its first word as a
    person and one is empty, so samples differ and rewards have something to choose from.
    """
    loaded = load_model(Weights(folder), LoadOptions("float32"))
    pairs = []
    for number in range(steps * 8):
        text = SENTENCES[number % len(SENTENCES)]
        name = text.split()[0]
        answer = (
            "[]"
            if number // len(SENTENCES) % 4 == 3
            else f'[{{"text": "{name}", "type": "person"}}]'
        )
        prompt = loaded.render([{"role": "user", "content": text}])
        pairs.append((loaded.encode(prompt), [*loaded.encode(answer), loaded.end_ids[0]]))
    settings = SupervisedSettings(
        method="full",
        max_steps=steps,
        learning_rate=1e-2,
        batch_size=8,
        micro_batch_size=8,
        save_every_steps=10_000,
        seed=3,
    )
    for parameter in loaded.model.parameters():
        parameter.requires_grad_(True)
    train_supervised(loaded, pairs, settings, work, on_step=lambda _step, _record: None)
    return loaded


def answering_folder(tmp_path_factory: Any) -> Path:
    """Write the model of `answering` into a folder, for tests that load it several times."""
    plain = write_tiny_chat(tmp_path_factory.mktemp("random"))
    loaded = answering(plain, tmp_path_factory.mktemp("work"))
    place: Path = tmp_path_factory.mktemp("answering")
    loaded.model.save_pretrained(str(place))
    loaded.tokenizer.save_pretrained(str(place))
    return place


def with_adapter(loaded: LoadedModel, seed: int = 5) -> LoadedModel:
    """Put a new adapter on a model."""
    seed_libraries(seed)
    modules = ["q_proj", "v_proj", "up_proj", "down_proj"]
    return replace(loaded, model=add_adapter(loaded.model, rank=8, alpha=16, modules=modules))


__all__ = ["SENTENCES", "SETTINGS", "adapted", "answering", "write_tiny_chat"]

"""Memory plans of a profile: its settings as loads of `core.memory`, and what makes them fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccrl_cli.core.fitting import FOUR_BIT, fit_generation, fit_training
from ccrl_cli.core.memory import (
    FORMATS,
    GIB,
    Architecture,
    GenerationLoad,
    TrainingLoad,
    generation_plan,
    training_peak,
    training_plan,
    weight_bytes,
)
from ccrl_cli.generators.registry import SERVERS
from ccrl_cli.models.shapes import find_shape

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile

_OPTIMIZER_BYTES = {
    "adamw_torch": 8,
    "adamw_torch_fused": 8,
    "adamw_8bit": 2,
    "paged_adamw_8bit": 2,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One peak of memory.

    Attributes:
        purpose: ``generation`` or ``training``.
        parts_gib: GiB by part.
        total_gib: the peak: their sum, but that rollouts and updates of training take turns.
        fits: whether it is within the budget.
        changes: assignments that make it fit; empty if it does, or if none would.
    """

    purpose: str
    parts_gib: Mapping[str, float]
    total_gib: float
    fits: bool
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """Memory of one model.

    Attributes:
        model: its reference.
        source: where its shape comes from, or why it is not known.
        weights: format of the weights in the plans.
        parameters: number of weights; None for an unknown model.
        weights_gib: GiB of the weights by format.
        widest_that_fits: the widest format that generates within the budget, with one input in
            flight; None if none does.
        plans: generation, and training for the model that is trained.
    """

    model: str
    source: str
    weights: str
    parameters: int | None
    weights_gib: Mapping[str, float]
    widest_that_fits: str | None
    plans: tuple[Plan, ...]


def plan_memory(
    profile: Profile, backend: str, budget: int, *, on_gpu: bool
) -> tuple[ModelPlan, ...]:
    """Return the memory plan of each model of a profile.

    Args:
        profile: the profile.
        backend: the backend that generates.
        budget: bytes of the device's memory.
        on_gpu: whether the device is a GPU.
    """
    fmt = _format(profile, on_gpu)
    models = list(dict.fromkeys((*profile.generation_models, profile.model.name)))
    found = []
    for model in models:
        shape, source = find_shape(model)
        if shape is None:
            if backend in SERVERS and model != profile.model.name:
                source = "a server holds it"
            found.append(ModelPlan(model, source, fmt, None, {}, None, ()))
            continue
        plans = []
        if model in profile.generation_models and backend not in SERVERS:
            plans.append(_generation(profile, shape, fmt, budget))
        if model == profile.model.name:
            plans.append(_training(profile, shape, fmt, budget))
        found.append(
            ModelPlan(
                model=model,
                source=source,
                weights=fmt,
                parameters=shape.parameters,
                weights_gib={name: _gib(weight_bytes(shape, name)) for name in FORMATS},
                widest_that_fits=_widest(profile, shape, budget),
                plans=tuple(plans),
            )
        )
    return tuple(found)


def generation_load(profile: Profile, fmt: str) -> GenerationLoad:
    """Return what a profile generates at once."""
    generation = profile.generation
    return GenerationLoad(
        inputs=generation.batch_size,
        completions=generation.num_completions,
        prompts=generation.num_completions if profile.prompt.shuffle_types else 1,
        prompt_tokens=profile.training.max_prompt_tokens,
        max_tokens=generation.max_tokens,
        fmt=fmt,
    )


def training_load(profile: Profile, fmt: str) -> TrainingLoad:
    """Return what an optimiser step of a profile works on."""
    training = profile.training
    return TrainingLoad(
        prompts=training.prompts_per_step,
        group=training.num_generations,
        micro_batch=training.micro_batch_size,
        prompt_tokens=training.max_prompt_tokens,
        completion_tokens=training.max_completion_tokens,
        fmt=fmt,
        rank=training.lora_rank,
        targets=frozenset(training.lora_target_modules),
        optimizer_bytes=_OPTIMIZER_BYTES[training.optimizer],
        checkpointing=training.gradient_checkpointing,
    )


def _generation(profile: Profile, shape: Architecture, fmt: str, budget: int) -> Plan:
    load = generation_load(profile, fmt)
    fitting = fit_generation(shape, load, budget)
    changes = []
    if fitting is not None:
        if fitting.fmt != load.fmt and fitting.fmt == FOUR_BIT:
            changes.append("model.load_in_4bit=true")
        if fitting.inputs != load.inputs:
            changes.append(f"generation.batch_size={fitting.inputs}")
    parts = generation_plan(shape, load)
    return _plan("generation", parts, sum(parts.values()), budget, changes)


def _training(profile: Profile, shape: Architecture, fmt: str, budget: int) -> Plan:
    load = training_load(profile, fmt)
    fitting = fit_training(shape, load, budget)
    changes = []
    if fitting is not None:
        if fitting.fmt != load.fmt and fitting.fmt == FOUR_BIT:
            changes.append("model.load_in_4bit=true")
        if fitting.prompts != load.prompts:
            changes.append(f"training.prompts_per_step={fitting.prompts}")
        if fitting.checkpointing != load.checkpointing:
            changes.append("training.gradient_checkpointing=true")
        if fitting.micro_batch != load.micro_batch:
            changes.append(f"training.micro_batch_size={fitting.micro_batch}")
    parts = training_plan(shape, load)
    return _plan("training", parts, training_peak(parts), budget, changes)


def _plan(purpose: str, parts: dict[str, int], total: int, budget: int, changes: list[str]) -> Plan:
    return Plan(
        purpose=purpose,
        parts_gib={name: _gib(size) for name, size in parts.items()},
        total_gib=_gib(total),
        fits=total <= budget,
        changes=tuple(changes),
    )


def _widest(profile: Profile, shape: Architecture, budget: int) -> str | None:
    """Return the widest format whose weights fit with one input in flight."""
    for fmt in sorted(FORMATS, key=lambda name: FORMATS[name], reverse=True):
        if fmt in ("float32", "float16"):
            continue
        load = generation_load(profile, fmt)
        parts = generation_plan(shape, load)
        alone = parts["weights"] + parts["reserve"]
        alone += (sum(parts.values()) - alone) // load.inputs
        if alone <= budget:
            return fmt
    return None


def _format(profile: Profile, on_gpu: bool) -> str:
    if profile.model.load_in_4bit:
        return FOUR_BIT
    if profile.model.dtype != "auto":
        return profile.model.dtype
    if on_gpu:
        return "bfloat16"
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return "float32"
    from ccrl_cli.models.loading import choose_dtype

    return str(choose_dtype("auto", "cpu")).removeprefix("torch.")


def _gib(size: int) -> float:
    return round(size / GIB, 2)

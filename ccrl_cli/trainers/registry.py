"""Trainer backends by name, and which of them runs here; one is imported when asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ccrl_cli.core.curriculum import CurriculumSampler
from ccrl_cli.errors import UsageError
from ccrl_cli.models.weights import LoadOptions, Weights
from ccrl_cli.trainers.base import GrpoSettings, TrainHooks, TrainResult, TrainTask

TRAINERS: dict[str, str] = {
    "trl": "ccrl_cli.trainers.plain:PlainBackend",
    "unsloth": "ccrl_cli.trainers.unsloth:UnslothBackend",
}


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """The policy that is trained.

    Attributes:
        weights: model folder, and the adapter to go on from; without one a new one is made.
        options: number format and attention.
        rank: rank of a new adapter.
        alpha: its scale.
        dropout: dropout on its input.
        modules: layers that get it.
        adapter_seed: seed of its weights.
        max_tokens: longest prompt plus answer.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    weights: Weights
    options: LoadOptions
    rank: int
    alpha: float
    dropout: float
    modules: tuple[str, ...]
    adapter_seed: int
    max_tokens: int
    gradient_checkpointing: bool


def settled_options(spec: PolicySpec) -> list[str]:
    """Return a sentence for each option that the adapter to go on from has settled otherwise."""
    adapter = spec.weights.adapter
    if adapter is None:
        return []
    known = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    modules = known.get("target_modules") or []
    settled = {
        "lora_rank": (spec.rank, known.get("r")),
        "lora_alpha": (spec.alpha, known.get("lora_alpha")),
        "lora_dropout": (spec.dropout, known.get("lora_dropout", 0.0)),
        "lora_target_modules": (
            sorted(spec.modules),
            sorted(modules) if isinstance(modules, list) else modules,
        ),
    }
    if tuple(spec.modules) == ("all-linear",):
        settled.pop("lora_target_modules")
    return [
        f"training.{name} = {wanted}: the adapter that it goes on from has {found}"
        for name, (wanted, found) in settled.items()
        if wanted != found
    ]


class TrainerBackend(Protocol):
    """Loads a policy and trains it; options and records are the same in every backend."""

    def ignored(self, spec: PolicySpec, settings: GrpoSettings) -> list[str]:
        """Return a sentence for each option that this backend does not follow."""

    def load(self, spec: PolicySpec) -> Any:
        """Return the `LoadedModel` with an adapter that can be trained."""

    def train(
        self,
        loaded: Any,
        task: TrainTask,
        sampler: CurriculumSampler,
        settings: GrpoSettings,
        work: Path,
        hooks: TrainHooks,
    ) -> TrainResult:
        """Train, as `grpo.train_grpo` does."""


def choose_trainer(wanted: str, *, processes: int = 1) -> tuple[str, str]:
    """Return the backend for a wish, and why.

    ``auto`` takes TRL: with recorded decoding a step on 4-bit weights of 8B took 6.5 s against 12.3
    with Unsloth, and less memory (docs/training.md).

    Args:
        wanted: ``auto``, ``trl`` or ``unsloth``.
        processes: processes that train together.

    Raises:
        UsageError: there is no such backend, or it cannot train in several processes.
    """
    if wanted == "unsloth" and processes > 1:
        raise UsageError(
            "the unsloth trainer uses one GPU, and several processes were started",
            hint="start one process, or --set training.backend=trl",
        )
    if wanted == "auto":
        return "trl", "faster than unsloth, in less memory"
    if wanted not in TRAINERS:
        raise UsageError(
            f"there is no trainer {wanted!r}", hint=f"choose from auto, {', '.join(TRAINERS)}"
        )
    return wanted, "asked for"


def trainer_backend(name: str) -> TrainerBackend:
    """Return a backend by name, importing its module."""
    module, _, attribute = TRAINERS[name].partition(":")
    backend: TrainerBackend = getattr(import_module(module), attribute)()
    return backend

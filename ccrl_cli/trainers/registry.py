"""Trainer backends by name, and which of them runs here; one is imported when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ccrl_cli.core.curriculum import CurriculumSampler
from ccrl_cli.errors import UsageError
from ccrl_cli.trainers.base import GrpoSettings, TrainHooks, TrainResult, TrainTask

TRAINERS: dict[str, str] = {
    "trl": "ccrl_cli.trainers.plain:PlainBackend",
    "unsloth": "ccrl_cli.trainers.unsloth:UnslothBackend",
}


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """The policy that is trained.

    Attributes:
        folder: model folder.
        adapter: adapter to go on from; None: a new one.
        dtype: number format of the weights.
        load_in_4bit: NF4 weights.
        attention: attention implementation of transformers.
        rank: rank of a new adapter.
        alpha: its scale.
        dropout: dropout on its input.
        modules: layers that get it.
        adapter_seed: seed of its weights.
        max_tokens: longest prompt plus answer.
        gradient_checkpointing: recompute activations in the backward pass.
    """

    folder: Path
    adapter: Path | None
    dtype: str
    load_in_4bit: bool
    attention: str
    rank: int
    alpha: float
    dropout: float
    modules: tuple[str, ...]
    adapter_seed: int
    max_tokens: int
    gradient_checkpointing: bool


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


def choose_trainer(
    wanted: str, *, load_in_4bit: bool, processes: int = 1, gpu: bool | None = None
) -> tuple[str, str]:
    """Return the backend for a wish, and why.

    ``auto`` takes Unsloth for 4-bit weights on one GPU, where it is installed: there it is more
    than twice as fast. Small models in full precision are faster with TRL and recorded decoding.

    Args:
        wanted: ``auto``, ``trl`` or ``unsloth``.
        load_in_4bit: the weights are 4-bit.
        processes: processes that train together.
        gpu: whether there is one; None looks.

    Raises:
        UsageError: there is no such backend, or it cannot train in several processes.
    """
    if wanted == "unsloth" and processes > 1:
        raise UsageError(
            "the unsloth trainer uses one GPU, and several processes were started",
            hint="start one process, or --set training.backend=trl",
        )
    if wanted != "auto":
        if wanted not in TRAINERS:
            raise UsageError(
                f"there is no trainer {wanted!r}", hint=f"choose from auto, {', '.join(TRAINERS)}"
            )
        return wanted, "asked for"
    if not load_in_4bit:
        return "trl", "the weights are not 4-bit"
    if processes > 1:
        return "trl", "several processes train together"
    if find_spec("unsloth") is None:
        return "trl", "unsloth is not installed"
    if gpu is None:
        import torch

        gpu = torch.cuda.is_available()
    return ("unsloth", "installed, and the weights are 4-bit") if gpu else ("trl", "no GPU")


def trainer_backend(name: str) -> TrainerBackend:
    """Return a backend by name, importing its module."""
    module, _, attribute = TRAINERS[name].partition(":")
    backend: TrainerBackend = getattr(import_module(module), attribute)()
    return backend

"""The trainer on transformers, PEFT and TRL as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ccrl_cli.core.curriculum import CurriculumSampler
from ccrl_cli.models.loading import LoadedModel, load_model
from ccrl_cli.trainers.base import GrpoSettings, TrainHooks, TrainResult, TrainTask
from ccrl_cli.trainers.grpo import train_grpo
from ccrl_cli.trainers.registry import PolicySpec, settled_options
from ccrl_cli.trainers.seeding import seed_libraries
from ccrl_cli.trainers.sft import add_adapter


class PlainBackend:
    """Trains anywhere PyTorch runs; decodes with recorded steps on NVIDIA GPUs."""

    def ignored(self, spec: PolicySpec, _settings: GrpoSettings) -> list[str]:
        """Return a sentence for each option that is not followed."""
        return settled_options(spec)

    def load(self, spec: PolicySpec) -> LoadedModel:
        """Load the policy with an adapter that can be trained."""
        loaded = load_model(spec.weights, spec.options, trainable=True)
        if spec.weights.adapter is not None:
            return loaded
        seed_libraries(spec.adapter_seed)
        model = add_adapter(
            loaded.model,
            rank=spec.rank,
            alpha=spec.alpha,
            modules=spec.modules,
            dropout=spec.dropout,
        )
        return replace(loaded, model=model)

    def train(
        self,
        loaded: LoadedModel,
        task: TrainTask,
        sampler: CurriculumSampler,
        settings: GrpoSettings,
        work: Path,
        hooks: TrainHooks,
    ) -> TrainResult:
        """Train; see `train_grpo`."""
        return train_grpo(loaded, task, sampler, settings, work, hooks)

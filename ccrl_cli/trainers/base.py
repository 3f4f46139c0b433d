"""What every trainer is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ccrl_cli.core.rewards import RewardWeights, Target


@dataclass(frozen=True, slots=True)
class TrainInput:
    """One training input.

    Attributes:
        input_id: identifier of the input.
        prompt: rendered chat prompt.
        target: pseudo-label to be rewarded against.
        weight: factor on the advantages of this input's rollouts.
    """

    input_id: str
    prompt: str
    target: Target
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    """Every option of GRPO that moves numbers; none is left to a library's default.

    The fields are those of the profile's ``[training]`` section, which documents them, plus
    ``num_steps`` (optimiser steps of the run) and ``seed``.
    """

    num_steps: int
    seed: int
    prompts_per_step: int
    num_generations: int
    micro_batch_size: int
    learning_rate: float
    lr_scheduler: str
    lr_warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    optimizer: str
    beta: float
    epsilon: float
    epsilon_high: float
    loss_type: str
    scale_rewards: str
    num_iterations: int
    temperature: float
    top_p: float
    top_k: int
    max_completion_tokens: int
    mask_truncated_completions: bool
    multi_objective_aggregation: str
    gradient_checkpointing: bool
    save_every_steps: int
    keep_checkpoints: int
    probe_size: int
    probe_every_steps: int
    use_weights: bool = False


@dataclass(frozen=True, slots=True)
class TrainTask:
    """What is trained on.

    Attributes:
        inputs: training inputs by id.
        types: prompt name -> type identifier, to parse answers with.
        reward: weights of the reward parts.
        probe_prompts: prompts of the fixed batch on which the KL to the start is measured.
        noise_seed: a control: the overlap is replaced by uniform noise in [0, 1) from this seed.
    """

    inputs: Mapping[str, TrainInput]
    types: Mapping[str, str]
    reward: RewardWeights
    probe_prompts: tuple[str, ...] = ()
    noise_seed: int | None = None


@dataclass(frozen=True, slots=True)
class TrainHooks:
    """Where a trainer's records go.

    Attributes:
        on_step: called with the record of each optimiser step.
        on_resume: called with the step that training goes on from, before the first new step.
    """

    on_step: Callable[[dict[str, Any]], None]
    on_resume: Callable[[int], None] = field(default=lambda _step: None)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training did: steps in all, the step it resumed from, seconds by part."""

    steps: int
    resumed_from: int
    seconds: Mapping[str, float]

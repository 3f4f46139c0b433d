"""Profile sections of the two updates of weights: supervised warm-up and GRPO."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ccrl_cli.config.base import (
    Count,
    CountOrZero,
    Names,
    NonNegative,
    Positive,
    PositiveShare,
    Section,
    Share,
    Text,
)
from ccrl_cli.config.paths import without_controls

Scheduler = Literal["constant", "constant_with_warmup", "linear", "cosine"]
Optimizer = Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit", "paged_adamw_8bit"]


class Warmup(Section):
    """Supervised fine-tuning on labelled source data: the starting model of small-model runs."""

    enabled: bool = Field(
        default=False, description="Run the warm-up as the first step of `ccrl run`."
    )
    folder: Annotated[str | None, AfterValidator(without_controls)] = Field(
        default=None,
        description="Folder of a finished warm-up to start from, such as runs/NAME/warmup; "
        "unset: the run's own.",
    )
    method: Literal["lora", "full"] = Field(
        default="lora", description="Train an adapter (lora) or every weight (full)."
    )
    epochs: Positive = Field(default=2.0, description="Passes over the labelled source data.")
    max_steps: Count | None = Field(
        default=None, description="Optimiser steps at most; when set, epochs no longer decides."
    )
    learning_rate: Positive = Field(default=2e-4, description="Peak learning rate.")
    batch_size: Count = Field(default=32, description="Examples in one optimiser step.")
    micro_batch_size: Count = Field(
        default=8, description="Examples in one forward pass; divides batch_size."
    )
    max_tokens: Count = Field(
        default=512,
        description="Longest prompt plus answer in tokens; longer examples are left out.",
    )
    drop_types: Share = Field(
        default=0.5,
        description="Share of the types absent from a sentence that its prompt leaves out, "
        "so that the model learns to read the type list.",
    )
    rename_types: Share = Field(
        default=0.0, description="Probability that a type appears under another name in a prompt."
    )
    lora_rank: Count = Field(
        default=16, description="Rank of the adapter; read when method is lora."
    )
    lora_alpha: Positive = Field(default=32.0, description="Scale of the adapter: alpha / rank.")
    sets: Names = Field(
        default=(),
        description="Labelled data sets beside data.source (sample:NAME, hub:ID or a path).",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of "
                f"micro_batch_size ({self.micro_batch_size})"
            )
        return self


class Guard(Section):
    """When a training counts as collapsed; it then ends, and the best policy is what remains."""

    enabled: bool = Field(default=True, description="Watch for collapse at every step.")
    window_steps: Count = Field(
        default=3, description="w, steps in a row beyond a limit before a rule fires."
    )
    max_invalid_share: Share = Field(
        default=0.5,
        description="Share of answers that cannot be read, if it has not fallen since step 1.",
    )
    max_zero_spread_share: Share = Field(
        default=0.6,
        description="Share of groups whose answers all earn the same and less than half the "
        "overlap.",
    )
    min_entity_ratio: NonNegative = Field(
        default=0.3,
        description="Entities an answer, as a share of those of the labels drawn, or of those "
        "that the start named there if these are fewer.",
    )
    max_entity_ratio: Positive = Field(
        default=4.0,
        description="The same upwards, of the larger number; less than one entity counts as one.",
    )
    max_empty_rise: Share = Field(
        default=0.4,
        description="Rise since step 1 of the share of empty answers to labels that are not empty.",
    )
    max_kl: Positive = Field(
        default=0.5,
        description="KL to the start on the probe, in nats a token, median over its answers; "
        "fires at once.",
    )
    max_source_drop: Share = Field(
        default=0.15,
        description="Fall of the F1 on labelled source sentences since the start, at two probes "
        "in a row.",
    )


class Training(Section):
    """GRPO (Shao et al., arXiv 2402.03300) over the curriculum; every option that moves numbers."""

    backend: Literal["auto", "trl", "unsloth"] = Field(
        default="auto",
        description="Trainer; auto takes trl, the faster one in our measurements.",
    )
    epochs: Positive = Field(
        default=1.0,
        description="Update budget, in passes over all target inputs: steps = epochs x N / "
        "prompts_per_step, whatever share is open.",
    )
    max_steps: Count | None = Field(
        default=None, description="Optimiser steps at most; when set, epochs no longer decides."
    )
    prompts_per_step: Count = Field(
        default=8, description="Distinct prompts in one optimiser step."
    )
    num_generations: Annotated[int, Field(ge=2)] = Field(
        default=8, description="G, rollouts of one prompt in a step (a group)."
    )
    label_answers: CountOrZero = Field(
        default=0,
        description="Answers of each group that are the pseudo-label itself, not a sample: an "
        "off-policy guide to what the policy never says by itself (LUFFY, 2504.14945); 0: none.",
    )
    micro_batch_size: Count = Field(
        default=8,
        description="Rollouts in one forward pass; divides prompts_per_step x num_generations.",
    )
    learning_rate: Positive = Field(default=1e-5, description="Peak learning rate.")
    lr_scheduler: Scheduler = Field(
        default="constant_with_warmup", description="Shape of the learning rate over the run."
    )
    lr_warmup_ratio: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.05, description="Share of the steps in which the learning rate rises from zero."
    )
    weight_decay: NonNegative = Field(default=0.0, description="Decoupled weight decay.")
    max_grad_norm: Positive = Field(default=1.0, description="Gradients are clipped to this norm.")
    optimizer: Optimizer = Field(
        default="adamw_torch", description="Optimiser; the 8-bit ones need bitsandbytes."
    )
    beta: NonNegative = Field(
        default=0.01, description="Weight of the KL term to the starting policy; 0 leaves it out."
    )
    epsilon: Positive = Field(default=0.2, description="Lower clip of the probability ratio.")
    epsilon_high: Positive = Field(
        default=0.2, description="Upper clip of the probability ratio (DAPO: 0.28)."
    )
    loss_type: Literal["dapo", "dr_grpo", "grpo", "bnpo"] = Field(
        default="dr_grpo", description="How token losses are averaged."
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        default="none",
        description="Divide advantages by the reward spread of the group, the batch or not.",
    )
    num_iterations: Count = Field(
        default=1, description="Optimiser passes over one set of rollouts."
    )
    temperature: Positive = Field(default=1.0, description="Sampling temperature of rollouts.")
    top_p: PositiveShare = Field(
        default=1.0, description="Nucleus of rollouts; 1 keeps every token."
    )
    top_k: CountOrZero = Field(
        default=0, description="Most likely tokens kept in rollouts; 0 keeps all."
    )
    max_prompt_tokens: Count = Field(
        default=1024,
        description="Longest prompt; inputs with longer ones are left out and counted.",
    )
    max_completion_tokens: Count = Field(default=256, description="Longest rollout in tokens.")
    mask_truncated_completions: bool = Field(
        default=False, description="Leave rollouts cut at the limit out of the loss."
    )
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = Field(
        default="sum_then_normalize", description="How the reward parts become one advantage."
    )
    confidence_weight: Literal["none", "advantage", "sampling"] = Field(
        default="none",
        description="Let confidence scale each input's advantages, or how often it is drawn.",
    )
    replay_share: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        default=0.0,
        description="Share of each step's prompts that are labelled source sentences with their "
        "gold labels, in whole prompts; at least one if above 0.",
    )
    replay_share_later: Annotated[float, Field(ge=0.0, le=0.5)] | None = Field(
        default=None,
        description="Replay share of the rounds after the first; unset: replay_share.",
    )
    replay_split: Literal["train", "dev"] = Field(
        default="train",
        description="Part of the source that is replayed and probed. A warm-up knows its training "
        "sentences by heart: dev holds some that it can still get wrong.",
    )
    lora_rank: Count = Field(default=16, description="Rank of the adapter.")
    lora_alpha: Positive = Field(default=32.0, description="Scale of the adapter: alpha / rank.")
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0, description="Dropout on the adapter's input."
    )
    lora_target_modules: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        default=("all-linear",),
        description="Linear layers that get an adapter; all-linear: all but the output layer.",
    )
    gradient_checkpointing: bool = Field(
        default=True, description="Recompute activations in the backward pass: slower, less memory."
    )
    save_every_steps: Count = Field(
        default=50, description="Optimiser steps between two checkpoints."
    )
    keep_checkpoints: Count = Field(default=2, description="Newest checkpoints kept on disk.")
    probe_size: CountOrZero = Field(
        default=32,
        description="Inputs of the fixed batch on which the KL to the start is measured; 0: none.",
    )
    probe_every_steps: Count = Field(default=10, description="Optimiser steps between two probes.")
    probe_source_size: CountOrZero = Field(
        default=64,
        description="Labelled source sentences in the probe, to see what is unlearnt; 0: none.",
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="Policy that becomes the adapter: the last, or that with the highest smoothed "
        "F1 to the pseudo-labels of the probe (no gold labels of the target are read).",
    )
    average_last: Share = Field(
        default=0.0,
        description="Last share of the steps whose weights are averaged into the adapter (LAWA, "
        "2209.14981); 0: the last weights alone.",
    )
    start_share: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0,
        description="Share of the starting weights in the adapter, the rest is trained (WiSE-FT, "
        "2109.01903).",
    )
    sanity_check: bool = Field(
        default=True,
        description="Compare trainer and decoder, policy and reference, before the first update.",
    )
    trackers: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = Field(
        default=(), description="Services that get a copy of each step's record."
    )
    guard: Guard = Field(default_factory=Guard, description="Limits of the collapse guard.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        rollouts = self.prompts_per_step * self.num_generations
        if rollouts % self.micro_batch_size:
            raise ValueError(
                f"prompts_per_step x num_generations ({rollouts}) must be a multiple of "
                f"micro_batch_size ({self.micro_batch_size})"
            )
        if self.label_answers >= self.num_generations:
            raise ValueError(
                f"label_answers ({self.label_answers}) must be below num_generations "
                f"({self.num_generations}): the policy has to answer too"
            )
        if (self.replay_share or self.replay_share_later) and self.prompts_per_step < 2:
            raise ValueError("replay_share needs at least two prompts_per_step")
        if self.average_last and self.keep == "best":
            raise ValueError("average_last averages the last weights, keep = 'best' takes others")
        if self.epsilon_high < self.epsilon:
            raise ValueError(
                f"epsilon_high ({self.epsilon_high:g}) must not be below epsilon ({self.epsilon:g})"
            )
        return self

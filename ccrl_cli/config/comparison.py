"""Profile sections of what is measured: evaluation, arms, page."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from ccrl_cli.config.base import Count, Positive, Section, Share, repeated

Arm = Literal[
    "zero-shot",
    "labeller",
    "majority-vote",
    "naive-sft",
    "sft-replay",
    "naive-rl",
    "naive-rl-rounds",
    "naive-rl-weighted",
    "threshold-only",
    "curriculum",
    "curriculum-unweighted",
    "curriculum-sentences",
    "random-order",
    "anti-curriculum",
    "random-reward",
    "format-only",
    "oracle",
]

ARMS: tuple[Arm, ...] = get_args(Arm)


class Evaluation(Section):
    """Answers to gold data, before and after training, and to new texts."""

    decode: Literal["greedy", "typed", "vote"] = Field(
        default="greedy",
        description="How answers are decoded besides greedily: typed gives the spans of the greedy "
        "answer the type of highest evidence; vote decodes as labels are made, from K answers.",
    )
    backend: Literal["transformers", "unsloth", "vllm", "openai", "ollama"] = Field(
        default="transformers", description="What answers; types are asked of the weights."
    )

    batch_size: Count = Field(default=32, description="Inputs decoded together.")
    max_tokens: Count = Field(default=256, description="Longest answer in tokens.")
    split: Literal["train", "dev", "test"] = Field(
        default="test", description="Split that is scored; train is the transductive score."
    )
    each_round: bool = Field(
        default=True,
        description="`ccrl run` also scores the adapters of earlier rounds, greedily.",
    )


class Baselines(Section):
    """Arms compared at equal update budgets."""

    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = Field(
        default=ARMS, description="Training recipes that run-all runs."
    )
    seeds: Count = Field(
        default=5,
        description="Runs of each arm: seeds run.seed, run.seed + 1, ...; below five no difference "
        "between two arms can be told.",
    )
    threshold: Share = Field(
        default=0.5,
        description="Least confidence of threshold-only; read when curriculum.threshold is 0.",
    )
    sft_learning_rate: Positive | None = Field(
        default=None,
        description="Peak learning rate of naive-sft; unset: training.learning_rate.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if twice := repeated(self.arms):
            raise ValueError(f"arms lists {twice!r} twice")
        return self


class Report(Section):
    """The HTML page."""

    title: str | None = Field(default=None, description="Title of the page; unset: the run's name.")

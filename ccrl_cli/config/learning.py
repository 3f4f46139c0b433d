"""Profile sections of the learning core: confidence, curriculum, reward."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ccrl_cli.config.base import (
    Count,
    Names,
    NonNegative,
    Positive,
    PositiveShare,
    Section,
    Share,
    Text,
    repeated,
)

BaseMetric = Literal[
    "self_consistency", "semantic_entropy", "entity_vote", "logprob", "type_posterior"
]
Metric = Literal[
    "self_consistency", "semantic_entropy", "entity_vote", "logprob", "type_posterior", "combined"
]
Pacing = Literal["linear", "root", "log", "exponential", "step", "constant"]


class Confidence(Section):
    """From K completions to a pseudo-label and how sure it is."""

    metric: Metric = Field(
        default="self_consistency",
        description="Confidence that orders the inputs (those of like types, see "
        "curriculum.balance) and weighs them.",
    )
    weights: dict[BaseMetric, NonNegative] = Field(
        default_factory=dict,
        description="combined: metric -> weight of its geometric mean; empty: the logistic fit "
        "of `ccrl curriculum calibrate`.",
    )
    label: Literal["majority", "entity_vote"] = Field(
        default="majority",
        description="Pseudo-label rule: winning whole answer, or votes by entity.",
    )
    positive: PositiveShare = Field(
        default=0.5, description="Entities with at least this vote share are kept (entity_vote)."
    )
    negative: Share = Field(
        default=0.125, description="Entities below this vote share are negatives; between: abstain."
    )
    similarity: PositiveShare = Field(
        default=1.0,
        description="Entity F1 at which two answers share a cluster; 1 asks for equal answers.",
    )
    models: Names = Field(
        default=(),
        description="Models of the store whose votes are pooled; empty: all that generated.",
    )
    type_rule: Literal["votes", "posterior"] = Field(
        default="votes",
        description="Who says of what type a span is: the completions, or the type scores of "
        "`ccrl curriculum score`, over all listed types; then votes are for spans alone.",
    )
    type_question: Literal["answer", "question"] = Field(
        default="answer",
        description="How type_posterior asks for a type: by the next words of an answer to the "
        "prompt (for warmed-up models), or by a short question (for chat models).",
    )
    type_questions: Count = Field(
        default=1,
        description="Times the type of each span is asked for; the answers are averaged. The first "
        "lists the types as the prompt does, each further one in another order and under the next "
        "names of type_paraphrases.",
    )
    type_paraphrases: dict[Text, Annotated[tuple[Text, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Type identifier -> its names in the second, third, ... question; where there "
        "is none left, its prompt name.",
    )
    type_prior: Literal["matching", "content_free"] = Field(
        default="matching",
        description="The type prior that is taken off type scores: by prior matching, in part "
        "(prior_matching), or the content-free prior, the scores of a text that says nothing.",
    )
    prior_matching: Share = Field(
        default=0.75,
        description="Share of the prior that prior matching takes off: 1 makes all types equally "
        "frequent, 0 takes nothing off.",
    )
    unseen_type_bonus: NonNegative = Field(
        default=1.25,
        description="Nats by which types that the source domain does not have are favoured: a "
        "model taught `person` says it of a politician too. 0 favours none.",
    )
    type_prototypes: bool = Field(
        default=True,
        description="Read type scores by where the spans of each type lie among all of them, not "
        "by a constant a type alone.",
    )
    calibrator: Literal["none", "temperature", "platt", "isotonic"] = Field(
        default="none",
        description="Calibrator of `ccrl curriculum calibrate` that confidences go through "
        "before thresholds and weights; the order stays.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.negative > self.positive:
            raise ValueError(
                f"negative ({self.negative:g}) must not be above positive ({self.positive:g})"
            )
        if twice := repeated(self.models):
            raise ValueError(f"models lists {twice!r} twice")
        if self.weights and not sum(self.weights.values()):
            raise ValueError("weights has no weight above 0")
        if self.type_rule == "posterior" and len(self.models) > 1:
            raise ValueError("type_rule 'posterior' asks one model: name one in models")
        if self.weights and self.metric != "combined":
            raise ValueError(f"weights are read by metric 'combined', not by {self.metric!r}")
        return self

    @property
    def reads_type_scores(self) -> bool:
        """Whether labels or confidences are taken from type scores (a stored fit apart)."""
        weighs = self.metric == "type_posterior" or bool(self.weights.get("type_posterior"))
        return weighs or self.type_rule == "posterior"


class Curriculum(Section):
    """Which inputs are open at which moment of training."""

    unit: Literal["entity", "sentence"] = Field(
        default="sentence",
        description="What opens: entity: all sentences are drawn from the first step, and the "
        "surest mentions of each type count first; sentence: whole sentences, the surest first.",
    )
    pacing: Pacing = Field(default="step", description="Shape of the open share over training.")
    start: PositiveShare = Field(
        default=0.1, description="Open share at the beginning (linear, root, log, exponential)."
    )
    power: Positive = Field(
        default=2.0, description="p of root pacing (Platanios et al. 1903.09848)."
    )
    alpha: Positive = Field(default=10.0, description="Bend of log pacing.")
    shares: Annotated[tuple[PositiveShare, ...], Field(min_length=1)] = Field(
        default=(0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
        description="Open shares of step pacing, of equal length.",
    )
    order: Literal["confidence", "random", "anti"] = Field(
        default="confidence",
        description="Surest first (of each type, see balance); random and anti (least sure first) "
        "are controls.",
    )
    balance: Literal["none", "types"] = Field(
        default="types",
        description="types: order by how sure each entity is among those of its own type, so that "
        "easy types do not fill the first stages (class-balanced self-training, 1810.07911); none: "
        "by confidence alone.",
    )
    threshold: Share = Field(
        default=0.0, description="Inputs with less confidence are never opened."
    )
    gate: bool = Field(
        default=False, description="Draw inputs less often whose groups had no reward spread."
    )
    rounds: Count = Field(
        default=1,
        description="R, rounds of labelling and training; from the second on the adapted policy "
        "labels alone. The update budget is shared out evenly among them.",
    )
    round: Count | None = Field(
        default=None,
        description="Which of the rounds a training is: set in the profiles that rounds write into "
        "their folders.",
    )
    pacing_over: Literal["training", "round"] = Field(
        default="training",
        description="training: one pacing over all rounds, each opens more than the one before; "
        "round: each round begins it anew.",
    )
    continue_from: Literal["adapted", "start"] = Field(
        default="adapted",
        description="What a later round trains: the adapted weights, or the start again on the "
        "better labels.",
    )
    keep_rounds: Literal["last", "mean"] = Field(
        default="last",
        description="What becomes the adapter: the last round's, or the mean of all rounds' "
        "weights (model soups, 2203.05482).",
    )
    held_out_share: Annotated[float, Field(ge=0.0, le=0.5)] = Field(
        default=0.0,
        description="Share of the inputs that are labelled and never trained on: the probe, and "
        "whether rounds go on, are judged on them.",
    )
    stop_when_agreement: PositiveShare = Field(
        default=1.0,
        description="Rounds end when this share of the mentions of two rounds' labels is the same "
        "(micro F1).",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(late <= early for early, late in zip(self.shares, self.shares[1:], strict=False)):
            raise ValueError(f"shares must increase: {list(self.shares)}")
        if self.shares[-1] != 1.0:
            raise ValueError(f"shares must end at 1.0, not {self.shares[-1]:g}")
        if self.round is not None and self.round > self.rounds:
            raise ValueError(f"round {self.round} is none of {self.rounds} rounds")
        return self


class Reward(Section):
    """What a rollout earns; the sum is weighted, and each part is logged."""

    overlap: Literal["token_f1", "entity_f1", "exact", "expected_f1"] = Field(
        default="token_f1", description="Agreement with the pseudo-label, in [0, 1]."
    )
    overlap_weight: NonNegative = Field(default=1.0, description="Weight of overlap.")
    format_weight: NonNegative = Field(default=0.2, description="Weight of well-formedness.")
    length_weight: NonNegative = Field(default=0.0, description="Weight of the length penalty.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.overlap_weight or self.format_weight or self.length_weight):
            raise ValueError("at least one of the reward weights must be above 0")
        return self

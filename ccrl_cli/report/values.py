"""What a page is made of: plain values, gathered by the pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ccrl_cli.findings.runs import decoded_scores
from ccrl_cli.store.predictions import PredictionRow

ROLES = ("target", "source")

WAYS_OF_DECODING = frozenset({"labeller", "majority-vote"})
"""Arms that are a way of decoding the start: what they end with is not greedy."""


@dataclass(frozen=True, slots=True)
class LabelBin:
    """Pseudo-labels of similar confidence; what reads gold is None without it."""

    low: float
    high: float
    count: int
    f1: float | None
    exact: float | None


@dataclass(frozen=True, slots=True)
class LabelFacts:
    """The pseudo-labels that a run trained on.

    Attributes:
        metric: name of the confidence.
        rule: rule of the labels.
        confidences: one a label.
        judged: (confidence, equals gold, entity F1) of the labels that gold exists for.
        bins: labels by confidence, least sure first.
        f1: micro F1 of all labels against gold; None without gold, as all that follows.
        exact: share of labels that equal gold.
        finding: what the AUROC of confidence means, in a sentence.
        num_missing: inputs without completions.
        num_invalid: completions that did not parse.
        num_completions: completions read.
    """

    metric: str
    rule: str
    confidences: Sequence[float]
    judged: Sequence[tuple[float, bool, float]]
    bins: Sequence[LabelBin]
    f1: float | None
    exact: float | None
    finding: str | None
    num_missing: int
    num_invalid: int
    num_completions: int


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """One round of a run: label, train, label again. What reads gold is None without it.

    Attributes:
        number: from 1.
        steps: updates.
        label_f1: micro F1 of the labels that it was trained on, against gold.
        agreement: of these labels with those of the round before; None in the first.
        changed_share: labels that changed since then.
        target_f1: greedy F1 of the policy that it ends with, where that was scored.
        source_f1: the same of the source.
    """

    number: int
    steps: int
    label_f1: float | None
    agreement: float | None
    changed_share: float | None
    target_f1: float | None
    source_f1: float | None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run.

    Attributes:
        name: name of its directory.
        manifest: content of ``manifest.json``.
        evaluation: content of ``evaluation.json``, or None.
        metrics: step records.
        stages: stage records.
        predictions: (role, ``before`` or ``after``) to the predictions there are.
        labels: pseudo-labels, or None where they cannot be read any more.
        seconds: wall seconds by finished step of the run.
        rounds: what each round was; empty where there was a single one.
    """

    name: str
    manifest: Mapping[str, Any]
    evaluation: Mapping[str, Any] | None = None
    metrics: Sequence[Mapping[str, Any]] = ()
    stages: Sequence[Mapping[str, Any]] = ()
    predictions: Mapping[tuple[str, str], Sequence[PredictionRow]] = field(default_factory=dict)
    labels: LabelFacts | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    rounds: Sequence[RoundFacts] = ()

    @property
    def decode(self) -> str:
        """How the profile decodes answers."""
        return str((self.evaluation or {}).get("decode") or "greedy")

    @property
    def arm(self) -> str:
        """Training recipe."""
        return str(self.manifest.get("arm", "unknown"))

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.manifest.get("seed", 0))

    def domain(self, role: str) -> Mapping[str, Any]:
        """Return the evaluation of a domain; empty where there is none."""
        domains = (self.evaluation or {}).get("domains") or {}
        return domains.get(role) or {}

    def f1(self, role: str, when: str) -> float | None:
        """Return F1 of a domain before or after training, as a fraction."""
        scores = self.domain(role).get(when)
        return None if not scores else float(scores["f1"])

    def final_f1(self, role: str, decode: str = "greedy") -> float | None:
        """Return the F1 that a run ends with; an arm without training ends where it began.

        An arm that is a way of decoding has no greedy score, and has its own for any other way.
        """
        own = self.arm in WAYS_OF_DECODING
        if own and decode == "greedy":
            return None
        domain = self.domain(role)
        for when in ("after", "before"):
            scores = decoded_scores(domain, "greedy" if own else decode, when)
            if scores:
                return float(scores["f1"])
        return None

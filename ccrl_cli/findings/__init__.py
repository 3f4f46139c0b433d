"""Findings: the sentences that tell an outcome, and what must be said beside them.

One room for all of them, so that the terminal, the page and the model card say the same:
`runs` for one training, `comparisons` for recipes against each other, `labels` for pseudo-labels.
Plain values in, words out; nothing here reads a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Tone = Literal["good", "bad", "open"]

FEW_SENTENCES = 300
"""Below this many scored sentences it is said that a sample so small proves little."""


class CaveatKind(StrEnum):
    """What a caveat is about."""

    not_reportable = "not-reportable"
    few_sentences = "few-sentences"
    one_training = "one-training"
    few_pairs = "few-pairs"
    one_start = "one-start"
    transductive = "transductive"
    collapsed = "collapsed"
    no_labeller = "no-labeller"
    other_run = "other-run"


@dataclass(frozen=True, slots=True)
class Caveat:
    """A sentence that must stand beside a finding, and what it is about."""

    kind: CaveatKind
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """An outcome.

    Attributes:
        text: in a sentence or two.
        tone: ``good``, ``bad``, or ``open`` where it cannot be told.
        caveats: what must be said beside it.
    """

    text: str
    tone: Tone = "open"
    caveats: tuple[Caveat, ...] = ()


def finding_lines(finding: Finding) -> Iterator[str]:
    """Yield a finding as lines of text: the answer, then each caveat, indented."""
    yield finding.text
    for caveat in finding.caveats:
        yield f"  {caveat.text}"


def points(value: float) -> str:
    """Return a difference of fractions in points, with its sign: ``+3.2``."""
    shown = f"{100 * value:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


def percent(value: float) -> str:
    """Return a fraction in percent with one digit."""
    return f"{100 * value:.1f}"


def span(low: float, high: float) -> str:
    """Return an interval of differences of fractions in points: ``−1.0 to +5.0``."""
    return f"{points(low)} to {points(high)}"


def shared_caveats(*, reportable: bool, fewest: int | None, mode: str | None) -> tuple[Caveat, ...]:
    """Return the caveats that runs and comparisons have in common.

    Args:
        reportable: whether every number may be reported.
        fewest: sentences scored in the smaller domain; None where none was.
        mode: ``transductive`` or ``held-out``, of the target.
    """
    found = []
    if not reportable:
        found.append(
            Caveat(
                CaveatKind.not_reportable,
                "Not reportable: mock answers, or only a part of a split was scored.",
            )
        )
    if fewest is not None and fewest < FEW_SENTENCES:
        found.append(
            Caveat(
                CaveatKind.few_sentences,
                f"Only {fewest} sentences were scored in the smaller domain: a sample this small "
                "proves little.",
            )
        )
    if mode == "transductive":
        found.append(
            Caveat(
                CaveatKind.transductive,
                "Transductive: the target was scored on the very sentences that it trained on, "
                "with their labels unseen.",
            )
        )
    return tuple(found)

"""Findings about two recipes: one function decides for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ccrl_cli.core.statistics import (
    MIN_DOMAINS,
    MIN_PAIRS,
    Interval,
    PairedTrainings,
    SignFlip,
)
from ccrl_cli.findings import Caveat, CaveatKind, Finding, Tone, points, shared_caveats, span

ALPHA = 0.05

Outcome = Literal["higher", "lower", "open"]


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """What a pair of trainings shares.

    Attributes:
        seed: seed of both trainings.
        start: identity of the weights that both began with, after any warm-up.
    """

    seed: int
    start: str


@dataclass(frozen=True, slots=True)
class PairwiseComparison:
    """Two arms in one domain, over the pairs of trainings that both have.

    Attributes:
        domain: ``target`` or ``source``.
        decode: how the scored answers were decoded, ``greedy`` or the profile's way.
        first: an arm.
        second: the arm that it is compared with.
        pairs: the pairs; an arm without training stands for every seed.
        trainings: F1 of the first minus the second over pairs, tested.
        sentences: the same mean difference with its interval over sentences: what *these weights*
            would do on other sentences.
        p_holm: of `trainings`, corrected for all tests of the table; None below `MIN_PAIRS`.
    """

    domain: str
    decode: str
    first: str
    second: str
    pairs: tuple[TrainingPair, ...]
    trainings: PairedTrainings
    sentences: Interval
    p_holm: float | None

    @property
    def ahead(self) -> int:
        """In how many pairs the first is ahead."""
        return sum(difference > 0 for difference in self.trainings.differences)


@dataclass(frozen=True, slots=True)
class ComparedArms:
    """What a comparison of arms in one target domain came to.

    Attributes:
        finding: of curriculum against naive-rl.
        comparisons: of all arms; empty where they could not be compared.
    """

    finding: Finding
    comparisons: tuple[PairwiseComparison, ...] = ()


@dataclass(frozen=True, slots=True)
class DomainComparison:
    """Two arms over several target domains.

    Attributes:
        domain: ``target`` or ``source``.
        decode: how the scored answers were decoded.
        first: an arm.
        second: the arm that it is compared with.
        targets: data sets of the target domains, in the order of the differences.
        domains: mean difference of each, tested by the exact sign-flip test.
    """

    domain: str
    decode: str
    first: str
    second: str
    targets: tuple[str, ...]
    domains: SignFlip


def outcome(comparison: PairwiseComparison) -> Outcome:
    """Return ``higher`` or ``lower``, or ``open`` where it cannot be told.

    A domain is told by p below 0.05 after Holm, over pairs of trainings.
    """
    found = comparison.trainings
    if comparison.p_holm is None or comparison.p_holm >= ALPHA:
        return "open"
    return "higher" if found.mean > 0 else "lower"


_SENTENCES: Mapping[tuple[Outcome, Outcome], tuple[str, Tone]] = {
    ("higher", "higher"): ("The curriculum won over naive RL here, in both domains", "good"),
    ("higher", "open"): (
        "The curriculum won over naive RL in the target domain here; whether it forgets less "
        "cannot be told",
        "good",
    ),
    ("open", "higher"): (
        "The curriculum forgot less than naive RL here; whether it adapts better cannot be told",
        "open",
    ),
    ("higher", "lower"): (
        "The curriculum adapted more than naive RL here and forgot more: neither won",
        "open",
    ),
    ("lower", "higher"): (
        "The curriculum adapted less than naive RL here and forgot less: neither won",
        "open",
    ),
    ("lower", "open"): ("The curriculum lost against naive RL here, in the target domain", "bad"),
    ("open", "lower"): (
        "The curriculum lost against naive RL here in the source domain, and no gain in the target "
        "domain can be told",
        "bad",
    ),
    ("lower", "lower"): ("The curriculum lost against naive RL here, in both domains", "bad"),
    ("open", "open"): (
        "It cannot be told here whether the curriculum is better than naive RL or worse",
        "open",
    ),
}


def comparison_finding(
    comparisons: Sequence[PairwiseComparison],
    sizes: Mapping[str, int],
    *,
    over_labeller: PairwiseComparison | None = None,
    reportable: bool,
    mode: str,
) -> Finding:
    """Return the finding of curriculum against naive-rl, and of what it adds to the labeller.

    Args:
        comparisons: of the target and of the source domain; empty if one arm is missing.
        sizes: sentences scored, by domain.
        over_labeller: the curriculum against the untrained labeller in the target domain; None
            where it did not run.
        reportable: whether every number may be reported.
        mode: ``transductive`` or ``held-out``, of the target.
    """
    shared = shared_caveats(reportable=reportable, fewest=min(sizes.values()), mode=mode)
    by_domain = {comparison.domain: comparison for comparison in comparisons}
    target, source = by_domain.get("target"), by_domain.get("source")
    if target is None or source is None:
        text = "Whether the curriculum beats naive RL was not tested: one of the two did not run."
        return Finding(text + _labeller_part(over_labeller), "open", shared)
    number = len(target.pairs)
    if number < MIN_PAIRS:
        counted = "one pair" if number == 1 else f"{number} pairs"
        words = f"Whether the curriculum beats naive RL cannot be told with {counted} of trainings"
        tone: Tone = "open"
    else:
        words, tone = _SENTENCES[outcome(target), outcome(source)]
    text = f"{words}: {_numbers(target)}; {_numbers(source)}.{_labeller_part(over_labeller)}"
    return Finding(text, tone, (*shared, *_pair_caveats(target.pairs)))


def _labeller_part(comparison: PairwiseComparison | None) -> str:
    """Return what training adds to the untrained labeller, in a sentence after a space."""
    if comparison is None:
        return ""
    words = {
        "higher": "The curriculum adds to what the untrained labeller gives",
        "lower": "The untrained labeller alone is better",
        "open": "Whether the curriculum adds to what the untrained labeller gives cannot be told",
    }
    return f" {words[outcome(comparison)]}: {_numbers(comparison)}."


def untested_finding(reason: str) -> Finding:
    """Return the finding where curriculum and naive-rl are there and cannot be compared.

    Args:
        reason: why, as a clause.
    """
    return Finding(
        f"Whether the curriculum beats naive RL cannot be told from these runs: {reason}."
    )


def domains_finding(comparisons: Sequence[DomainComparison]) -> Finding:
    """Return the finding of curriculum against naive-rl over several domains.

    Args:
        comparisons: of the two, in target and source.
    """
    by_domain = {comparison.domain: comparison for comparison in comparisons}
    target, source = by_domain.get("target"), by_domain.get("source")
    if target is None or source is None:
        return Finding(
            "Whether the curriculum beats naive RL was not tested: no domain has both of them."
        )
    number = len(target.targets)
    if number < MIN_DOMAINS:
        counted = "one domain" if number == 1 else f"{number} domains"
        words = (
            f"Whether the curriculum beats naive RL on other domains cannot be told with {counted}"
        )
        tone: Tone = "open"
    else:
        words, tone = _SENTENCES[_over_domains(target), _over_domains(source)]
        words = words.replace(" here", f" over {number} domains")
    return Finding(f"{words}: {_domain_numbers(target)}; {_domain_numbers(source)}.", tone)


def _over_domains(comparison: DomainComparison) -> Outcome:
    found = comparison.domains
    if found.p_value is None or found.p_value >= ALPHA:
        return "open"
    return "higher" if found.mean > 0 else "lower"


def _numbers(comparison: PairwiseComparison) -> str:
    found = comparison.trainings
    start = f"{comparison.domain} F1 {points(found.mean)} points"
    if found.low is None or found.high is None or comparison.p_holm is None:
        each = ""
        if len(found.differences) > 1:
            each = f"pairs {', '.join(map(points, found.differences))}; "
        limits = span(comparison.sentences.low, comparison.sentences.high)
        return f"{start} ({each}these weights on other sentences: {limits})"
    limits = span(found.low, found.high)
    return (
        f"{start} ({100 * found.level:.0f} % interval over trainings {limits}, "
        f"p = {comparison.p_holm:.3f} after Holm, ahead in {comparison.ahead} of "
        f"{len(comparison.pairs)} pairs)"
    )


def _domain_numbers(comparison: DomainComparison) -> str:
    found = comparison.domains
    told = [f"domains {', '.join(map(points, found.differences))}"]
    if found.standard_error is not None:
        told.append(f"standard error {100 * found.standard_error:.1f}")
    if found.p_value is not None:
        told.append(f"p = {found.p_value:.3f} by sign-flip")
    return f"{comparison.domain} F1 {points(found.mean)} points in the mean ({'; '.join(told)})"


def _pair_caveats(pairs: Sequence[TrainingPair]) -> tuple[Caveat, ...]:
    found = []
    if len(pairs) < MIN_PAIRS:
        found.append(
            Caveat(
                CaveatKind.few_pairs,
                f"A training is the unit, and fewer than {MIN_PAIRS} pairs of them tell nothing of "
                "their spread: --seeds 5 makes five.",
            )
        )
    if len({pair.start for pair in pairs}) == 1:
        found.append(
            Caveat(
                CaveatKind.one_start,
                "All pairs share one start and one set of labels: nothing is said of another "
                "warm-up, or of labels drawn again.",
            )
        )
    return tuple(found)

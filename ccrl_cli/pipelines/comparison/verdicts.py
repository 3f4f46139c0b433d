"""The answer of a comparison in a plain sentence, and what must be said beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ccrl_cli.core.statistics import Interval

ALPHA = 0.05
FEW_SENTENCES = 300
FEW_SEEDS = 3


@dataclass(frozen=True, slots=True)
class PairwiseComparison:
    """Two arms on the same sentences, over their common seeds.

    Attributes:
        domain: ``target`` or ``source``.
        first: an arm.
        second: the arm that it is compared with.
        seeds: common seeds; counts of a sentence are added over them.
        difference: F1 of the first minus the second, with its interval over sentences.
        p_value: two-sided, before correction.
        p_holm: corrected for all comparisons of the table.
        ahead: in how many seeds the first is ahead.
    """

    domain: str
    first: str
    second: str
    seeds: tuple[int, ...]
    difference: Interval
    p_value: float
    p_holm: float
    ahead: int


def outcome(comparison: PairwiseComparison) -> str:
    """Return ``higher``, ``lower`` or ``open``: p below 0.05 after Holm, and an interval without 0.

    Where there are several seeds, the same sign in most of them is asked for as well.
    """
    difference, seeds = comparison.difference, len(comparison.seeds)
    if comparison.p_holm >= ALPHA:
        return "open"
    if difference.low > 0 and 2 * comparison.ahead > seeds:
        return "higher"
    if difference.high < 0 and 2 * comparison.ahead < seeds:
        return "lower"
    return "open"


_SENTENCES: Mapping[tuple[str, str], str] = {
    ("higher", "higher"): "The curriculum won over naive RL here, in both domains",
    ("higher", "open"): (
        "The curriculum won over naive RL in the target domain here; whether it forgets less "
        "cannot be told"
    ),
    ("open", "higher"): (
        "The curriculum forgot less than naive RL here; whether it adapts better cannot be told"
    ),
    ("higher", "lower"): (
        "The curriculum adapted more than naive RL here and forgot more: neither won"
    ),
    ("lower", "higher"): (
        "The curriculum adapted less than naive RL here and forgot less: neither won"
    ),
    ("lower", "open"): "The curriculum lost against naive RL here, in the target domain",
    ("open", "lower"): (
        "The curriculum lost against naive RL here in the source domain, and no gain in the target "
        "domain can be told"
    ),
    ("lower", "lower"): "The curriculum lost against naive RL here, in both domains",
    ("open", "open"): (
        "It cannot be told here whether the curriculum is better than naive RL or worse"
    ),
}


def verdict(
    comparisons: Sequence[PairwiseComparison],
    sizes: Mapping[str, int],
    *,
    reportable: bool,
    mode: str,
) -> tuple[str, tuple[str, ...]]:
    """Return the headline of curriculum against naive-rl, and its caveats.

    Args:
        comparisons: of the target and of the source domain; empty if one arm is missing.
        sizes: sentences scored, by domain.
        reportable: whether every number may be reported.
        mode: ``transductive`` or ``held-out``, of the target.
    """
    by_domain = {comparison.domain: comparison for comparison in comparisons}
    target, source = by_domain.get("target"), by_domain.get("source")
    if target is None or source is None:
        text = "Whether the curriculum beats naive RL was not tested: one of the two did not run."
        return text, _caveats(sizes, 0, reportable=reportable, mode=mode)
    words = _SENTENCES[outcome(target), outcome(source)]
    text = f"{words}: {_numbers(target)}; {_numbers(source)}."
    return text, _caveats(sizes, len(target.seeds), reportable=reportable, mode=mode)


def _numbers(comparison: PairwiseComparison) -> str:
    gap = comparison.difference
    seeds = (
        f", ahead in {comparison.ahead} of {len(comparison.seeds)} seeds"
        if len(comparison.seeds) > 1
        else ""
    )
    return (
        f"{comparison.domain} F1 {100 * gap.value:+.1f} points (95 % interval "
        f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}, p = {comparison.p_holm:.3f} after Holm"
        f"{seeds})"
    )


def _caveats(
    sizes: Mapping[str, int], num_seeds: int, *, reportable: bool, mode: str
) -> tuple[str, ...]:
    found = []
    if not reportable:
        found.append("Not reportable: mock labels, or only a part of a split was scored.")
    few = min(sizes.values())
    if few < FEW_SENTENCES:
        found.append(
            f"Only {few} sentences were scored in the smaller domain: a sample this small proves "
            "little."
        )
    if num_seeds == 1:
        found.append(
            "One seed: the intervals are over sentences, and say nothing of what another training "
            "would give."
        )
    elif 1 < num_seeds < FEW_SEEDS:
        found.append(f"{num_seeds} seeds say little about the spread between trainings.")
    if mode == "transductive":
        found.append(
            "Transductive: the target was scored on the very sentences that it trained on, with "
            "their labels unseen."
        )
    return tuple(found)

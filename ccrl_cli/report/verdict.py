"""The answer of a run in one honest sentence, from the content of ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Tone = Literal["good", "bad", "open"]

#: Below this many target sentences the page says that a sample so small proves little.
FEW_SENTENCES = 300

#: Answers with fewer mentions than this share of the gold ones are called a collapse.
COLLAPSED_BELOW = 0.1

#: A source whose change surely lies above minus this counts as kept.
KEPT_WITHIN = 0.02


@dataclass(frozen=True, slots=True)
class Headline:
    """The answer.

    Attributes:
        text: one sentence: did target F1 rise, was the source kept, how sure is that.
        tone: ``good`` (target surely up, source surely kept within `KEPT_WITHIN`), ``bad``
            (target surely down, or source surely down without a sure gain), else ``open``.
        caveats: sentences that must stand beside it.
    """

    text: str
    tone: Tone
    caveats: tuple[str, ...] = ()


def points(value: float) -> str:
    """Return a difference of fractions in points, with its sign: ``+3.2``."""
    shown = f"{100 * value:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "−")


def percent(value: float) -> str:
    """Return a fraction in percent with one digit."""
    return f"{100 * value:.1f}"


def headline(evaluation: Mapping[str, Any] | None) -> Headline:
    """Return the answer of one run.

    Args:
        evaluation: content of ``evaluation.json``; None if the run was not evaluated.
    """
    if evaluation is None:
        return Headline("This run has not been evaluated, so there is no answer yet.", "open")
    domains = evaluation.get("domains") or {}
    target, source = domains.get("target") or {}, domains.get("source") or {}
    change = target.get("delta_f1")
    if change is None:
        return Headline(_single(target), "open", _caveats(evaluation, target, source))
    kept = source.get("delta_f1")
    text = f"{_target_part(target, change)}{_source_part(change, kept)}."
    return Headline(text, _tone(change, kept), _caveats(evaluation, target, source))


def _single(target: Mapping[str, Any]) -> str:
    scores = target.get("after") or target.get("before")
    if not scores:
        return "The target was not scored, so there is no answer yet."
    when = "after" if target.get("after") else "before"
    return (
        f"Target F1 is {percent(scores['f1'])} {when} training; without the other side there is "
        "no change to judge."
    )


def _target_part(target: Mapping[str, Any], change: Mapping[str, float]) -> str:
    """Return what happened to the target, with the interval of the change."""
    before, after = target["before"]["f1"], target["after"]["f1"]
    numbers = f"from {percent(before)} to {percent(after)} ({_interval(change)})"
    if change["low"] > 0:
        return f"Target F1 rose {numbers}"
    if change["high"] < 0:
        return f"Target F1 fell {numbers}"
    if change["value"] == 0:
        return f"Target F1 did not move: it stayed at {percent(after)} ({_interval(change)})"
    return f"Target F1 went {numbers}, which is not distinguishable from no change"


def _source_part(target: Mapping[str, float], change: Mapping[str, float] | None) -> str:
    """Return what happened to the source, joined to the target's part."""
    if change is None:
        return "; the source domain was not scored on both sides, so forgetting is unknown"
    numbers = f"{points(change['value'])} points ({_range(change)})"
    if change["high"] < 0:
        word = "but" if target["low"] > 0 else "and"
        return f", {word} source F1 was lost: {numbers}"
    if change["low"] > 0:
        return f", and source F1 rose as well: {numbers}"
    if change["low"] < -KEPT_WITHIN:
        return (
            f"; source F1 changed by {numbers}, so no loss is shown, "
            f"but one of up to {points(change['low']).lstrip('−')} points is not excluded"
        )
    return f", and source F1 was kept: {numbers}"


def _interval(change: Mapping[str, float]) -> str:
    return f"{points(change['value'])} points, 95 % interval {_range(change)}"


def _range(change: Mapping[str, float]) -> str:
    return f"{points(change['low'])} to {points(change['high'])}"


def _tone(change: Mapping[str, float], kept: Mapping[str, float] | None) -> Tone:
    lost = kept is not None and kept["high"] < 0
    if change["high"] < 0:
        return "bad"
    if change["low"] > 0:
        return "good" if kept is not None and kept["low"] >= -KEPT_WITHIN else "open"
    return "bad" if lost else "open"


def _caveats(
    evaluation: Mapping[str, Any], target: Mapping[str, Any], source: Mapping[str, Any]
) -> tuple[str, ...]:
    found = []
    if not evaluation.get("reportable", False):
        found.append("Not reportable: mock answers, or only a part of a split was scored.")
    if target.get("mode") == "transductive":
        found.append(
            "Transductive: the target was scored on the very sentences that it trained on, with "
            "their labels unseen."
        )
    silent = [n for n, d in (("target", target), ("source", source)) if _collapsed(d)]
    if silent:
        found.append(
            f"Collapsed: after training the model names next to nothing in the "
            f"{' and the '.join(silent)} domain."
        )
    counts = [
        scores["num_sentences"]
        for domain in (target, source)
        for scores in [domain.get("after") or domain.get("before")]
        if scores
    ]
    if counts and min(counts) < FEW_SENTENCES:
        found.append(
            f"Only {min(counts)} sentences were scored in the smaller domain: a sample this small "
            "proves little."
        )
    found.append("One seed: the intervals are over sentences, not over repeated trainings.")
    return tuple(found)


def _collapsed(domain: Mapping[str, Any]) -> bool:
    """Return whether training ended in (nearly) empty answers where there were some before."""
    before, after = domain.get("before") or {}, domain.get("after") or {}
    due, made = after.get("num_gold", 0), after.get("num_predicted")
    return (
        made is not None
        and made < COLLAPSED_BELOW * due
        and before.get("num_predicted", 0) >= COLLAPSED_BELOW * due
    )


@dataclass(frozen=True, slots=True)
class ArmResult:
    """F1 of one run: its arm, its seed, and both domains after training."""

    arm: str
    seed: int
    target: float
    source: float | None


def comparison(
    results: Sequence[ArmResult], ours: str = "curriculum", other: str = "naive-rl"
) -> str | None:
    """Return in a sentence whether one arm beat another over their common seeds.

    Returns:
        None when the two arms have no seed in common.
    """
    first = {item.seed: item for item in results if item.arm == ours}
    second = {item.seed: item for item in results if item.arm == other}
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    target = [first[s].target - second[s].target for s in seeds]
    sources = [(first[s].source, second[s].source) for s in seeds]
    source = [a - b for a, b in sources if a is not None and b is not None]
    parts = [_ahead("target", target)]
    if len(source) == len(seeds):
        parts.append(_ahead("source", source))
    number = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return f"{_outcome(ours, other, target, source)} ({number}, not tested): {'; '.join(parts)}."


def _outcome(ours: str, other: str, target: Sequence[float], source: Sequence[float]) -> str:
    """Return in words who won; both arms begin from the same scores."""
    if not source:
        word = "adapted more than" if sum(target) > 0 else "did not adapt more than"
        return f"{ours} {word} {other} here"
    if min(*target, *source) > 0:
        always = " in every seed" if len(target) > 1 else ""
        return f"{ours} won over {other} here{always}, in both domains"
    if sum(target) > 0 and sum(source) > 0:
        return f"{ours} was ahead of {other} on average, in both domains, but not in every seed"
    if sum(target) > 0:
        return f"{ours} adapted more than {other} here, and forgot at least as much"
    if sum(source) > 0:
        word = "less" if sum(target) < 0 else "no more"
        return f"{ours} adapted {word} than {other} here, and forgot less"
    return f"{ours} did not win over {other} here, in either domain"


def _ahead(domain: str, gaps: Sequence[float]) -> str:
    """Return by how much an arm is ahead in a domain, and in how many seeds."""
    mean = sum(gaps) / len(gaps)
    wins = sum(gap > 0 for gap in gaps)
    if len(gaps) == 1:
        return f"{domain} F1 {points(mean)} points"
    return f"{domain} F1 {points(mean)} points on average, ahead in {wins} of {len(gaps)}"

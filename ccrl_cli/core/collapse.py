"""When a training with rewards of its own making has gone wrong, and which policy was the best.

Reinforcement on pseudo-labels has cheap ways out: empty answers, answers that cannot be read, one
answer for everything. Each rule reads the records of steps; none of them reads gold labels of the
target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

RULES = (
    "not-finite",
    "invalid",
    "zero-spread",
    "entities-collapse",
    "entities-explode",
    "empty",
    "kl",
    "source-drop",
)
"""Names of the rules, in the order in which they are tried."""

STUCK_BELOW = 0.5
"""Mean overlap below which a group without reward spread counts as stuck: all agree, and wrongly.

A group that agrees on its label has no spread either, and nothing is wrong with it.
"""


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """Limits of the rules; each holds for `window` steps in a row unless said otherwise.

    Attributes:
        window: w, steps in a row beyond a limit before a rule fires.
        max_invalid_share: share of answers that cannot be read, when it has not fallen since the
            first step.
        max_zero_spread_share: share of groups whose answers all earn the same, and less than half
            of the overlap.
        min_entity_ratio: entities an answer, as a share of those of the pseudo-labels drawn, or of
            those that the start named in the same inputs where these are fewer.
        max_entity_ratio: the same upwards, of the larger number; less than one entity counts as
            one.
        max_empty_rise: rise since the first step of the share of empty answers where the label is
            not empty.
        max_kl: KL to the start on the probe, nats a token, median over its answers; fires at once.
        max_source_drop: fall of the F1 on labelled source inputs since the start, at two probes
            in a row; a fall within two standard errors of the paired differences does not count.

    Raises:
        ValueError: the window is below 1.
    """

    window: int = 3
    max_invalid_share: float = 0.5
    max_zero_spread_share: float = 0.6
    min_entity_ratio: float = 0.3
    max_entity_ratio: float = 4.0
    max_empty_rise: float = 0.4
    max_kl: float = 0.5
    max_source_drop: float = 0.15

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window is {self.window}, not at least 1")


@dataclass(frozen=True, slots=True)
class Alarm:
    """A rule that fired.

    Attributes:
        rule: one of ``RULES``.
        step: the step whose record made it fire.
        message: what was seen, in one clause.
    """

    rule: str
    step: int
    message: str


class CollapseGuard:
    """Reads the records of steps and says when to stop.

    Args:
        limits: when each rule fires.
    """

    def __init__(self, limits: GuardLimits) -> None:
        self._limits = limits
        self._rows: dict[str, int] = {}
        self._first: dict[str, float] = {}

    def start(self, values: Mapping[str, float]) -> None:
        """Take what the probe says of the starting policy as that to compare with."""
        if "source_f1" in values:
            self._first["source_f1"] = values["source_f1"]

    def observe(self, record: Mapping[str, Any]) -> Alarm | None:
        """Return the first rule that a record makes fire, or None.

        Args:
            record: values by name; rules whose values it lacks stand still.
        """
        step = int(record["step"])
        fired: list[Alarm] = []
        for rule, judge in _JUDGES.items():
            found = judge(record, self._limits, self._first)
            if found is None:
                continue
            beyond, message = found
            self._rows[rule] = self._rows.get(rule, 0) + 1 if beyond else 0
            if self._rows[rule] >= self._needed(rule):
                fired.append(Alarm(rule, step, self._said(rule, message)))
        return fired[0] if fired else None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later judgements depend on, as plain JSON values."""
        return {"rows": dict(self._rows), "first": dict(self._first)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._rows = {rule: int(count) for rule, count in state["rows"].items()}
        self._first = {name: float(value) for name, value in state["first"].items()}

    def _needed(self, rule: str) -> int:
        if rule in ("not-finite", "kl"):
            return 1
        return 2 if rule == "source-drop" else self._limits.window

    def _said(self, rule: str, message: str) -> str:
        if self._needed(rule) == 1 or rule == "source-drop":
            return message
        return f"{message}, for {self._needed(rule)} steps"


Judgement = tuple[bool, str] | None
Judge = Callable[[Mapping[str, Any], GuardLimits, dict[str, float]], Judgement]


def _not_finite(record: Mapping[str, Any], _limits: GuardLimits, _first: Any) -> Judgement:
    names = ("loss", "gradient_norm", "kl", "reward")
    bad = [
        name
        for name in names
        if record.get(name) is not None and not math.isfinite(float(record[name]))
    ]
    return bool(bad), f"{' and '.join(bad)} not finite".replace("_", " ")


def _invalid(record: Mapping[str, Any], limits: GuardLimits, first: dict[str, float]) -> Judgement:
    share = record.get("invalid_share")
    if share is None:
        return None
    start = first.setdefault("invalid_share", share)
    beyond = share > limits.max_invalid_share and share >= start
    return beyond, (
        f"{share:.0%} of the answers cannot be read "
        f"({start:.0%} at the first step, limit {limits.max_invalid_share:.0%})"
    )


def _zero_spread(record: Mapping[str, Any], limits: GuardLimits, _first: Any) -> Judgement:
    share = record.get("stuck_share")
    if share is None:
        return None
    return share > limits.max_zero_spread_share, (
        f"in {share:.0%} of the groups all answers earn the same and little "
        f"(limit {limits.max_zero_spread_share:.0%})"
    )


def _entities_collapse(record: Mapping[str, Any], limits: GuardLimits, _first: Any) -> Judgement:
    found, wanted = record.get("entities"), record.get("label_entities")
    if found is None or not wanted:
        return None
    before = record.get("entities_before", wanted)
    return found < limits.min_entity_ratio * min(wanted, before), (
        f"answers hold {found:.2f} entities where their labels hold {wanted:.2f} and those of the "
        f"start held {before:.2f} (limit {limits.min_entity_ratio:g} of the lower)"
    )


def _entities_explode(record: Mapping[str, Any], limits: GuardLimits, _first: Any) -> Judgement:
    found, wanted = record.get("entities"), record.get("label_entities")
    if found is None or wanted is None:
        return None
    before = record.get("entities_before", wanted)
    return found > limits.max_entity_ratio * max(1.0, wanted, before), (
        f"answers hold {found:.2f} entities where their labels hold {wanted:.2f} and those of the "
        f"start held {before:.2f} (limit {limits.max_entity_ratio:g} times the higher)"
    )


def _empty(record: Mapping[str, Any], limits: GuardLimits, first: dict[str, float]) -> Judgement:
    share = record.get("wrong_empty_share")
    if share is None:
        return None
    start = first.setdefault("wrong_empty_share", share)
    return share - start > limits.max_empty_rise, (
        f"{share:.0%} of the answers are empty where the label is not, after {start:.0%} at the "
        f"first step (limit: a rise of {limits.max_empty_rise:.0%})"
    )


def _kl(record: Mapping[str, Any], limits: GuardLimits, _first: Any) -> Judgement:
    # One rare token can lift the mean over a few hundred.
    value = record.get("kl_median", record.get("kl"))
    if value is None:
        return None
    return value > limits.max_kl, (
        f"the KL to the starting policy is {value:.3g} nats a token (limit {limits.max_kl:g})"
    )


def _source_drop(
    record: Mapping[str, Any], limits: GuardLimits, first: dict[str, float]
) -> Judgement:
    value = record.get("source_f1")
    if value is None:
        return None
    start = first.setdefault("source_f1", value)
    noise = 2 * float(record.get("source_drop_error", 0.0))
    return start - value > max(limits.max_source_drop, noise), (
        f"F1 on labelled source sentences fell from {start:.2f} to {value:.2f} at two probes "
        f"(limit: a fall of {limits.max_source_drop:g})"
    )


_JUDGES: dict[str, Judge] = {
    "not-finite": _not_finite,
    "invalid": _invalid,
    "zero-spread": _zero_spread,
    "entities-collapse": _entities_collapse,
    "entities-explode": _entities_explode,
    "empty": _empty,
    "kl": _kl,
    "source-drop": _source_drop,
}


class BestPolicy:
    """Says which policy was the best so far: highest smoothed score, lower KL among equals.

    The score is the F1 of the policy's answers to pseudo-labels, so no gold label is read.

    Args:
        smoothing: share of the newest score in the running mean; 1 does not smooth.
        tolerance: scores this close to the highest are equal to it.
    """

    def __init__(self, smoothing: float = 0.5, tolerance: float = 0.005) -> None:
        self._smoothing = smoothing
        self._tolerance = tolerance
        self._smoothed: float | None = None
        self._top: float | None = None
        self.step = 0
        self.score: float | None = None
        self.kl = 0.0

    def offer(self, step: int, score: float, kl: float | None = None) -> bool:
        """Return whether the policy after `step` steps is the best so far.

        Args:
            step: optimiser steps that made the policy; 0 is the start.
            score: mean F1 of its answers; one that is not finite is never the best.
            kl: its KL to the start; None: not known, which loses against any known one.
        """
        if not math.isfinite(score) or (kl is not None and not math.isfinite(kl)):
            return False
        before = self._smoothed
        weight = self._smoothing
        self._smoothed = score if before is None else weight * score + (1 - weight) * before
        distance = math.inf if kl is None else kl
        if self._top is not None:
            gain = self._smoothed - self._top
            self._top = max(self._top, self._smoothed)
            if gain < -self._tolerance or (gain <= self._tolerance and distance >= self.kl):
                return False
        else:
            self._top = self._smoothed
        self.step, self.score, self.kl = step, self._smoothed, distance
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later offers depend on, as plain JSON values."""
        return {
            "smoothed": self._smoothed,
            "top": self._top,
            "step": self.step,
            "score": self.score,
            "kl": None if math.isinf(self.kl) else self.kl,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._smoothed, self._top = state["smoothed"], state["top"]
        self.step, self.score = int(state["step"]), state["score"]
        self.kl = math.inf if state["kl"] is None else float(state["kl"])

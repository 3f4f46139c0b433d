"""What a step's rollouts say, summed up from one row a rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ccrl_cli.core.advantages import reward_spread
from ccrl_cli.core.collapse import STUCK_BELOW


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One scored rollout.

    Attributes:
        input_id: its input.
        replayed: the input is a labelled source input.
        total: reward.
        overlap: overlap part of the reward.
        form: format part.
        length: length part.
        f1: F1 of mentions to the label.
        entities: mentions in the answer.
        label_entities: mentions in the label.
        outcome: ``valid``, ``repaired`` or ``invalid``.
        tokens: sampled tokens.
        truncated: cut at the limit.
        off_policy: the label itself, not a sample of the policy.
        entities_before: mentions in an answer of the start, in the mean; None where unknown.
    """

    input_id: str
    replayed: bool
    total: float
    overlap: float
    form: float
    length: float
    f1: float
    entities: int
    label_entities: int
    outcome: str
    tokens: int
    truncated: bool
    off_policy: bool = False
    entities_before: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The rollouts of one prompt in a step: input, standard deviation of reward, mean overlap."""

    input_id: str
    replayed: bool
    spread: float
    overlap: float


def make_groups(rows: Sequence[RolloutRow], size: int) -> tuple[Group, ...]:
    """Return the groups of `size` rows that follow one another.

    The spread is that of all rewards, labels' own included, since that is what is learnt from; the
    mean overlap is that of the samples.

    Raises:
        ValueError: the rows are no whole number of groups.
    """
    if len(rows) % size:
        raise ValueError(f"{len(rows)} rollouts are no whole number of groups of {size}")
    return tuple(_group(rows[first : first + size]) for first in range(0, len(rows), size))


def _group(rows: Sequence[RolloutRow]) -> Group:
    spread = reward_spread([row.total for row in rows])
    overlap = _mean([row.overlap for row in rows if not row.off_policy])
    return Group(rows[0].input_id, rows[0].replayed, spread, overlap)


def summarise(rows: Sequence[RolloutRow], groups: Sequence[Group]) -> dict[str, float]:
    """Return means and shares over a step's samples for target inputs; of replays, F1 and reward.

    ``stuck_share`` counts groups without spread that earn less than half of the overlap;
    ``wrong_empty_share`` the empty answers among those whose label is not empty.
    """
    samples = [row for row in rows if not row.off_policy]
    own = [row for row in samples if not row.replayed]
    replays = [row for row in samples if row.replayed]
    values: dict[str, float] = {}
    if own:
        mine = [group for group in groups if not group.replayed]
        flat = [group for group in mine if not group.spread]
        labelled = [row for row in own if row.label_entities]
        values = {
            "reward": _mean([row.total for row in own]),
            "reward_overlap": _mean([row.overlap for row in own]),
            "reward_format": _mean([row.form for row in own]),
            "reward_length": _mean([row.length for row in own]),
            "label_f1": _mean([row.f1 for row in own]),
            "entities": _mean([row.entities for row in own]),
            "label_entities": _mean([row.label_entities for row in own]),
            "empty_share": _mean([_is_empty(row) for row in own]),
            "invalid_share": _mean([row.outcome == "invalid" for row in own]),
            "valid_share": _mean([row.outcome == "valid" for row in own]),
            "truncated_share": _mean([row.truncated for row in own]),
            "answer_tokens": _mean([row.tokens for row in own]),
            "zero_spread_share": len(flat) / len(mine),
            "stuck_share": sum(g.overlap < STUCK_BELOW for g in flat) / len(mine),
        }
        before = [row.entities_before for row in own if row.entities_before is not None]
        if len(before) == len(own):
            values["entities_before"] = _mean(before)
        if labelled:
            values["wrong_empty_share"] = _mean([_is_empty(row) for row in labelled])
    if replays:
        values["replay_reward"] = _mean([row.total for row in replays])
        values["replay_f1"] = _mean([row.f1 for row in replays])
    return values


def _is_empty(row: RolloutRow) -> bool:
    return row.outcome != "invalid" and not row.entities


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

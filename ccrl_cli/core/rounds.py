"""Rounds of labelling and training: budget, held-out inputs, and when another round is worth it.

Nothing here reads gold labels. Agreement that is trained on rises by itself, and falls again when
a policy has begun to learn its own mistakes (rise, then fall: 2603.08660), so what ends the rounds
is looked at on inputs that were never trained on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ccrl_cli.core.agreement import canonical
from ccrl_cli.core.alignment import mention_key
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.records import Entity, PseudoLabel

STANDARD_ERRORS = 2.0
"""Standard errors by which held-out agreement must fall before the fall counts."""

FEWEST_HELD_OUT = 8
"""Held-out inputs below which nothing is judged on them."""

_SEEDS = 2**63


@dataclass(frozen=True, slots=True)
class LabelChange:
    """The labels of two rounds on the same inputs.

    Attributes:
        agreement: micro F1 of one's mentions (text and type) to the other's; 1 where both are
            empty.
        changed_share: share of the inputs whose label is another.
        num_inputs: inputs that both rounds labelled.
    """

    agreement: float
    changed_share: float
    num_inputs: int


def share_out(total: int, rounds: int, unit: int = 1) -> tuple[int, ...]:
    """Return the steps of each round: `total` shared out evenly, the first rounds get the rest.

    Args:
        total: steps of all rounds.
        rounds: R.
        unit: steps that belong together (updates on one set of rollouts).

    Raises:
        ValueError: there are fewer units than rounds.
    """
    units = -(-total // unit)
    if units < rounds:
        raise ValueError(f"{total} steps are too few for {rounds} rounds")
    each, rest = divmod(units, rounds)
    steps = [(each + (number < rest)) * unit for number in range(rounds)]
    steps[-1] -= units * unit - total
    return tuple(steps)


def is_held_out(input_id: str, share: float) -> bool:
    """Return whether an input is never trained on; the same in every round and for every seed."""
    return derive_seed(0, "held-out", input_id) < share * _SEEDS


def compare_labels(
    before: Mapping[str, PseudoLabel], after: Mapping[str, PseudoLabel]
) -> LabelChange:
    """Return how far the labels of two rounds agree.

    Raises:
        ValueError: no input has both.
    """
    common = [key for key in before if key in after]
    if not common:
        raise ValueError("the two rounds have no input in common")
    shared = stated = changed = 0
    for key in common:
        old, new = (Counter(canonical(labels[key].entities)) for labels in (before, after))
        shared += (old & new).total()
        stated += old.total() + new.total()
        changed += old != new
    return LabelChange(2 * shared / stated if stated else 1.0, changed / len(common), len(common))


def vote_agreement(votes: PseudoLabel, label: PseudoLabel) -> float:
    """Return how far K completions agree with a label, in [0, 1]: F1 of their votes to it.

    2·Σ v_e over the label's mentions / (Σ v_e over all + mentions of the label); of an empty label
    1 − Σ v_e, at least 0. It is the F1 of expectations, not the expected F1.

    Args:
        votes: holds the votes of the completions.
        label: what they are compared with.
    """
    shares = {_mention(entity): share for entity, share in votes.votes}
    ignored = {_mention(entity) for entity in label.abstained}
    wanted = {_mention(entity) for entity in label.entities} - ignored
    total = math.fsum(share for mention, share in shares.items() if mention not in ignored)
    if not wanted:
        return max(0.0, 1.0 - total)
    return 2 * math.fsum(shares.get(m, 0.0) for m in wanted) / (total + len(wanted))


def held_out_agreement(
    labels: Mapping[str, PseudoLabel], later: Mapping[str, PseudoLabel], keys: Iterable[str]
) -> dict[str, float]:
    """Return how far a policy agrees with the labels that it was trained on, where it was not.

    Args:
        labels: labels of the round that made the policy.
        later: labels of the next round, which hold the votes of the policy's own completions.
        keys: held-out inputs; those without both labels are left out.
    """
    return {
        key: vote_agreement(later[key], labels[key])
        for key in keys
        if key in labels and key in later
    }


def has_fallen(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Return whether held-out agreement fell from one round to the next by more than chance.

    The mean of the paired differences must be below 0 by two standard errors, over at least
    ``FEWEST_HELD_OUT`` inputs; below that nothing can be told.
    """
    gaps = [before[key] - after[key] for key in before if key in after]
    if len(gaps) < FEWEST_HELD_OUT:
        return False
    mean = math.fsum(gaps) / len(gaps)
    variance = math.fsum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
    return mean > STANDARD_ERRORS * math.sqrt(variance / len(gaps)) and mean > 1e-9


def _mention(entity: Entity) -> tuple[str, str]:
    return mention_key(entity.text), entity.type

"""Rounds of labelling and training: budget, held-out inputs, and when another round is worth it.

Nothing here reads gold labels. Agreement that is trained on rises by itself, and falls again when
a policy has begun to learn its own mistakes (rise, then fall: 2603.08660), so what ends the rounds
is looked at on inputs that were never trained on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ccrl_cli.core.agreement import canonical
from ccrl_cli.core.alignment import mention_key
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.records import Entity, PseudoLabel

STANDARD_ERRORS = 2.0
"""Standard errors by which held-out agreement must fall before the fall counts."""

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


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Agreement with a round's labels on inputs that were never trained on.

    Attributes:
        before: of the completions that the labels were made of.
        after: of completions by the policy that was trained on the other labels.
        error: standard error of their paired difference.
        num_inputs: inputs.
    """

    before: float
    after: float
    error: float
    num_inputs: int

    @property
    def fell(self) -> bool:
        """Whether training made agreement worse by more than chance would."""
        return self.before - self.after > STANDARD_ERRORS * self.error


def held_out_agreement(
    labels: Mapping[str, PseudoLabel], later: Mapping[str, PseudoLabel], keys: Sequence[str]
) -> HeldOut | None:
    """Return agreement with a round's labels before and after its training; None below two inputs.

    Args:
        labels: labels of the round, which hold the votes that they were made of.
        later: labels of the next round, which hold the votes of the adapted policy.
        keys: held-out inputs; those without both labels are left out.
    """
    common = [key for key in keys if key in labels and key in later]
    if len(common) < 2:
        return None
    before = [vote_agreement(labels[key], labels[key]) for key in common]
    after = [vote_agreement(later[key], labels[key]) for key in common]
    gaps = [b - a for b, a in zip(before, after, strict=True)]
    mean = math.fsum(gaps) / len(gaps)
    spread = math.fsum((gap - mean) ** 2 for gap in gaps) / (len(gaps) - 1)
    return HeldOut(
        math.fsum(before) / len(before),
        math.fsum(after) / len(after),
        math.sqrt(spread / len(gaps)),
        len(common),
    )


def reason_to_stop(
    change: LabelChange, held_out: HeldOut | None, *, stop_when_agreement: float
) -> str | None:
    """Return why no further round is trained: ``agreement``, ``held-out``, or None to go on.

    Args:
        change: labels of the round that was trained, and of the next.
        held_out: agreement on inputs that were never trained on, where there are any.
        stop_when_agreement: agreement of the two from which they count as the same.
    """
    if held_out is not None and held_out.fell:
        return "held-out"
    if change.agreement >= stop_when_agreement:
        return "agreement"
    return None


def _mention(entity: Entity) -> tuple[str, str]:
    return mention_key(entity.text), entity.type

"""The plan of a training: its order of inputs, its steps, its schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.curriculum import Schedule, order_inputs
from ccrl_cli.core.entity_curriculum import EntityCurriculum, ScoredLabel
from ccrl_cli.core.pacing import Pacing
from ccrl_cli.core.placing import view_for
from ccrl_cli.core.replay import replay_prompts
from ccrl_cli.core.rounds import is_held_out
from ccrl_cli.core.seeds import derive_seed

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.pipelines.labelling.labels import LabelSet

# As in core.pacing: 0.1 passes over 30 inputs, 3 a step, are 1 step, not the ceiling of 1.0…02.
_ROUNDING = 1e-12


def training_order(
    profile: Profile,
    confidence: Mapping[str, float],
    ranks: Mapping[str, float] | None = None,
    *,
    threshold: float | None = None,
) -> tuple[str, ...]:
    """Return the inputs in the order in which a profile opens them.

    Those below the threshold, and those that are held out, are left out.

    Args:
        profile: the profile.
        confidence: confidence by input id.
        ranks: what is ordered by in its place (``LabelSet.ranks``).
        threshold: in place of the profile's; 0 leaves none out.
    """
    section = profile.curriculum
    share = section.held_out_share
    confidence = {k: v for k, v in confidence.items() if not is_held_out(k, share)}
    rng = np.random.default_rng(derive_seed(profile.run.seed, "curriculum-order"))
    limit = section.threshold if threshold is None else threshold
    return order_inputs(confidence, section.order, threshold=limit, ranks=ranks, rng=rng)


def planned_steps(profile: Profile, num_inputs: int) -> int:
    """Return the optimiser steps of a profile: its ``max_steps``, else its passes over all inputs.

    One set of rollouts serves ``num_iterations`` of them.

    Args:
        profile: the profile.
        num_inputs: N, inputs with a pseudo-label, those below the threshold too: a threshold does
            not shrink the update budget.
    """
    section = profile.training
    if section.max_steps is not None:
        return section.max_steps
    exact = section.epochs * num_inputs / section.prompts_per_step
    return max(1, math.ceil(exact * (1 - _ROUNDING))) * section.num_iterations


def replayed_prompts(profile: Profile) -> int:
    """Return how many prompts of each step are labelled source sentences."""
    return replay_prompts(profile.training.replay_share, profile.training.prompts_per_step)


def plan_schedule(profile: Profile, num_ordered: int, num_inputs: int) -> Schedule:
    """Return how many inputs are open at each generation step of a profile's training.

    Args:
        profile: the profile.
        num_ordered: inputs in the order, at least 1.
        num_inputs: N that the update budget counts, see :func:`planned_steps`.
    """
    begin, end = paced_part(profile)
    return Schedule(
        num_inputs=num_ordered,
        num_steps=math.ceil(planned_steps(profile, num_inputs) / profile.training.num_iterations),
        prompts_per_step=profile.training.prompts_per_step - replayed_prompts(profile),
        pacing=make_pacing(profile),
        begin=begin,
        end=end,
    )


def make_pacing(profile: Profile) -> Pacing:
    """Return the open share by progress that a profile asks for."""
    section = profile.curriculum
    return Pacing(section.pacing, section.start, section.power, section.alpha, section.shares)


def paced_part(profile: Profile) -> tuple[float, float]:
    """Return the progress t at the first and the last step of a training: a round has its part."""
    section = profile.curriculum
    if section.round is None or section.pacing_over == "round":
        return 0.0, 1.0
    return (section.round - 1) / section.rounds, section.round / section.rounds


def plan_entities(
    profile: Profile, labels: LabelSet, order: Sequence[str]
) -> EntityCurriculum | None:
    """Return what opens of each label when, where entities are the unit of a profile's curriculum.

    Args:
        profile: the profile.
        labels: pseudo-labels.
        order: inputs that are trained on.
    """
    section = profile.curriculum
    if section.unit != "entity":
        return None
    sure, voted = labels.entity_confidence, profile.reward.overlap == "expected_f1"
    scored = {
        key: ScoredLabel(
            Aligner(view_for(labels.examples[key], labels.labels[key].entities)),
            labels.labels[key],
            sure[key],
            labels.labels[key].votes if voted else None,
        )
        for key in order
    }
    units = sum(len(item.units) for item in scored.values())
    schedule = plan_schedule(profile, units, len(labels.labels))
    rng = np.random.default_rng(derive_seed(profile.run.seed, "curriculum-order"))
    return EntityCurriculum(scored, schedule, section.order, rng)

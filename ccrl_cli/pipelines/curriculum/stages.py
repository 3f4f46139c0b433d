"""Stages of a planned training: what is open in each, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from ccrl_cli.core.balance import Kind, mix, skews
from ccrl_cli.core.curriculum import Schedule, stages
from ccrl_cli.core.entity_curriculum import EntityCurriculum
from ccrl_cli.pipelines.labelling.quality import LabelScore, mean
from ccrl_cli.records import Score


@dataclass(frozen=True, slots=True)
class StageView:
    """A run of training steps over one open set; steps count from 1, both ends belong to it.

    Attributes:
        number: from 1.
        first_step: first step.
        last_step: last step.
        num_open: inputs that can be drawn; with entities as the unit, mentions that count for
            (of an empty label one).
        open_share: the same as a share of all.
        lowest_confidence: of the open ones.
        passes: draws of the stage for each input that can be drawn.
        signal_share: share of the open inputs whose stored completions do not all earn the same
            reward; the others have no gradient yet.
        skew: how far the mix of types (and empty labels) of the open labels is from that of all
            labels: total variation, 0 to 1.
        oracle_f1: micro F1 of the open labels against gold; None without gold.
        oracle_exact: share of the open labels that equal gold; None without gold.
        oracle_precision: share of the open mentions that gold has too; None without gold.
    """

    number: int
    first_step: int
    last_step: int
    num_open: int
    open_share: float
    lowest_confidence: float
    passes: float
    signal_share: float
    skew: float
    oracle_f1: float | None
    oracle_exact: float | None
    oracle_precision: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of labels, by input id.

    Attributes:
        confidence: of each.
        scores: of those that gold exists for.
        signals: whether stored completions differ in what they earn.
    """

    confidence: Mapping[str, float]
    scores: Mapping[str, LabelScore]
    signals: Mapping[str, bool]


def sentence_stages(
    schedule: Schedule, order: Sequence[str], kinds: Sequence[Sequence[Kind]], judged: Judged
) -> tuple[StageView, ...]:
    """Return the stages of a curriculum of sentences: sums over growing prefixes of the order.

    Args:
        schedule: how many are open when.
        order: input ids, first to open first.
        kinds: what each label holds, in that order.
        judged: what is known of the labels.
    """
    scores = [judged.scores.get(key) for key in order]
    lowest = list(accumulate((judged.confidence[key] for key in order), min))
    sums = list(accumulate(item.score if item else Score() for item in scores))
    exact = list(accumulate(int(item is not None and item.exact) for item in scores))
    counts = list(accumulate(int(item is not None) for item in scores))
    lively = list(accumulate(int(judged.signals[key]) for key in order))
    views = []
    parts = list(stages(schedule))
    for stage, skew in zip(parts, skews(kinds, [part.num_open for part in parts]), strict=True):
        last = stage.num_open - 1
        draws = (stage.end_step - stage.first_step) * schedule.prompts_per_step
        views.append(
            StageView(
                number=stage.number,
                first_step=stage.first_step + 1,
                last_step=stage.end_step,
                num_open=stage.num_open,
                open_share=stage.num_open / len(order),
                lowest_confidence=lowest[last],
                passes=draws / stage.num_open,
                signal_share=lively[last] / stage.num_open,
                skew=skew,
                oracle_f1=sums[last].f1 if counts[last] else None,
                oracle_exact=exact[last] / counts[last] if counts[last] else None,
                oracle_precision=sums[last].precision if counts[last] else None,
            )
        )
    return tuple(views)


def entity_stages(
    entities: EntityCurriculum, order: Sequence[str], judged: Judged
) -> tuple[StageView, ...]:
    """Return the stages of a curriculum of entities; all inputs of the order are drawn in each.

    Args:
        entities: what is open when.
        order: input ids that are trained on.
        judged: what is known of the labels.
    """
    schedule = entities.schedule
    signal = mean(judged.signals[key] for key in order) or 0.0
    whole = mix([entities.kinds(key) for key in order])
    views = []
    for stage in stages(schedule):
        first = stage.first_step
        shown = {key: entities.is_open(key, first) for key in order}
        opened = [
            (key, number, *unit)
            for key in order
            for number, unit in enumerate(entities.units(key))
            if shown[key][number]
        ]
        counts = mix([[kind] for _, _, kind, _ in opened])
        draws = (stage.end_step - first) * schedule.prompts_per_step
        right = [
            judged.scores[key].right[number]
            for key, number, kind, _ in opened
            if key in judged.scores and kind is not None
        ]
        views.append(
            StageView(
                number=stage.number,
                first_step=first + 1,
                last_step=stage.end_step,
                num_open=len(opened),
                open_share=len(opened) / schedule.num_inputs,
                lowest_confidence=min(score for _, _, _, score in opened),
                passes=draws / len(order),
                signal_share=signal,
                skew=sum(abs(counts.get(kind, 0.0) - share) for kind, share in whole.items()) / 2,
                oracle_f1=None,
                oracle_exact=None,
                oracle_precision=mean(right),
            )
        )
    return tuple(views)

"""Pseudo-labels of many inputs at once: what :class:`Labeller` says, computed on arrays.

A store of 100 000 inputs takes seconds instead of a minute. Inputs go through in chunks, so the
arrays stay small whatever the size of the store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from ccrl_cli.core.agreement import Labeller, PosteriorOf
from ccrl_cli.core.columns import (
    BoolArray,
    Chunk,
    Columns,
    FloatArray,
    IntArray,
    Votes,
    cluster_batch,
    count_votes,
    make_chunks,
    restrict_columns,
)
from ccrl_cli.core.combination import combined
from ccrl_cli.core.confidence import (
    logprob_batch,
    self_consistency_batch,
    semantic_entropy_batch,
    winners,
)
from ccrl_cli.records import Entity, Parse, PseudoLabel

Logprobs = Sequence[float | None]


def label_batch(
    labeller: Labeller,
    input_ids: Sequence[str],
    samples: Sequence[Sequence[Parse]],
    mean_logprobs: Sequence[Logprobs],
    posteriors: Mapping[str, PosteriorOf] | None = None,
    *,
    chunks: Sequence[Chunk] | None = None,
) -> list[PseudoLabel]:
    """Return the pseudo-label of each of N inputs, as the labeller gives them one by one.

    Confidences may differ from those in the last bit: shares are summed as whole votes here, so
    that equal votes give equal confidences whatever their order.

    Args:
        labeller: rule and metric.
        input_ids: N identifiers.
        samples: completions of each input; their number may differ from input to input.
        mean_logprobs: their mean token log-probabilities in nats, None where unknown.
        posteriors: type evidence by input id; read by ``type_posterior`` alone.
        chunks: what :func:`make_chunks` made of the samples, if that is known already.

    Raises:
        ValueError: as the labeller does.
    """
    if not len(input_ids) == len(samples) == len(mean_logprobs):
        raise ValueError(
            f"{len(input_ids)} inputs, {len(samples)} samples, {len(mean_logprobs)} log-probability"
            " rows"
        )
    for parses, logprobs in zip(samples, mean_logprobs, strict=True):
        if not parses or len(parses) != len(logprobs):
            raise ValueError(f"{len(parses)} parses and {len(logprobs)} log-probabilities")
    labels: list[PseudoLabel | None] = [None] * len(input_ids)
    for chunk in make_chunks(samples) if chunks is None else chunks:
        work = _Inputs(
            labeller,
            [input_ids[place] for place in chunk.places],
            [samples[place] for place in chunk.places],
            [mean_logprobs[place] for place in chunk.places],
            (chunk, posteriors or {}),
        )
        for place, label in zip(chunk.places, work.labels(), strict=True):
            labels[place] = label
    return [label for label in labels if label is not None]


class _Inputs:
    """Inputs with equally many completions."""

    def __init__(
        self,
        labeller: Labeller,
        input_ids: Sequence[str],
        samples: Sequence[Sequence[Parse]],
        mean_logprobs: Sequence[Logprobs],
        known: tuple[Chunk, Mapping[str, PosteriorOf]],
    ) -> None:
        self.labeller = labeller
        self.input_ids = input_ids
        self.samples = samples
        chunk, self.posteriors = known
        self.columns: Columns = chunk.columns
        if labeller.types is not None:
            self.columns = restrict_columns(chunk.columns, labeller.types)
        same = self.columns is chunk.columns
        self.votes: Votes = chunk.votes if same else count_votes(self.columns)
        self.ids_nk: IntArray = cluster_batch(self.columns, similarity=labeller.similarity)
        self.logprobs_nk: FloatArray = np.array(
            [[math.nan if value is None else value for value in row] for row in mean_logprobs]
        )
        self.kept_g: BoolArray
        self.best_n: IntArray | None = None
        if labeller.rule == "majority":
            self.best_n = self._best_members()
            self.kept_g = self._mentions_of(self.best_n)
        else:
            self.kept_g = self.votes.share_g >= labeller.positive

    def labels(self) -> list[PseudoLabel]:
        """Return the pseudo-labels, in the order of the inputs."""
        confidences = self.confidence(self.labeller.metric)
        num_invalid = [
            sum(parse.outcome == "invalid" for parse in parses) for parses in self.samples
        ]
        bounds = np.searchsorted(self.votes.input_g, np.arange(len(self.samples) + 1)).tolist()
        share, place = self.votes.share_g.tolist(), self.votes.place_g.tolist()
        copies, kept = self.votes.copies_g.tolist(), self.kept_g.tolist()
        columns, labeller = self.columns, self.labeller
        entities = [columns.spellings[number] for number in self.votes.spelling_g.tolist()]
        mentions = [columns.mentions[number] for number in self.votes.mention_g.tolist()]
        voted = labeller.rule == "entity_vote"
        by_share = list(zip((-value for value in share), mentions, strict=True)).__getitem__
        by_place = list(zip(place, mentions, strict=True)).__getitem__
        best = None if self.best_n is None else self.best_n.tolist()
        labels = []
        for n, (low, high) in enumerate(pairwise(bounds)):
            ranked = sorted(range(low, high), key=by_share)
            if best is None:
                order = sorted((g for g in ranked if kept[g]), key=by_place)
                label = tuple(entities[g] for g in order for _ in range(copies[g]))
            else:
                label = self._answer(n, best[n])
            between = (g for g in ranked if labeller.negative <= share[g] < labeller.positive)
            labels.append(
                PseudoLabel(
                    input_id=self.input_ids[n],
                    entities=label,
                    confidence=confidences[n],
                    metric=labeller.metric,
                    rule=labeller.rule,
                    num_completions=columns.shape[1],
                    num_invalid=num_invalid[n],
                    abstained=tuple(entities[g] for g in between) if voted else (),
                    votes=tuple((entities[g], share[g]) for g in ranked),
                )
            )
        return labels

    def confidence(self, metric: str) -> list[float]:
        """Return a metric of each input; 0 where no completion is valid."""
        valid = np.asarray(self.columns.valid_nk.any(axis=1))
        values = np.where(valid, self._metric(metric, valid), 0.0)
        return [float(value) for value in values]

    def _metric(self, metric: str, valid: BoolArray) -> FloatArray:
        if metric == "self_consistency":
            return self_consistency_batch(self.ids_nk)
        if metric == "semantic_entropy":
            return self._semantic_entropy()
        if metric == "entity_vote":
            # Whole votes are summed: one division, so equal sums are equal confidences.
            return self._mean_of_kept(self.votes.count_g.astype(np.float64), self.columns.shape[1])
        if metric == "type_posterior":
            return self._mean_of_kept(self._posteriors(), 1)
        if metric == "logprob":
            values = np.zeros(len(valid))
            values[valid] = logprob_batch(self.ids_nk[valid], self.logprobs_nk[valid])
            return values
        combination = self.labeller.combination
        assert combination is not None  # the labeller has checked
        parts = {name: self._metric(name, valid) for name in combination.metrics}
        return combined(parts, combination)

    def _semantic_entropy(self) -> FloatArray:
        """Return the metric from likelihoods where an input has them all, else from counts."""
        known = ~np.isnan(self.logprobs_nk).any(axis=1)
        values = semantic_entropy_batch(self.ids_nk)
        if known.any():
            values[known] = semantic_entropy_batch(self.ids_nk[known], self.logprobs_nk[known])
        return values

    def _mean_of_kept(self, values_g: FloatArray, scale: int) -> FloatArray:
        """Return the mean over kept entities; with none kept, the share of empty answers."""
        size = len(self.samples)
        inputs = self.votes.input_g[self.kept_g]
        number = np.bincount(inputs, minlength=size)
        total = np.bincount(inputs, weights=values_g[self.kept_g], minlength=size)
        filled = np.bincount(self.columns.row_d, minlength=self.columns.valid_nk.size) > 0
        empty_nk = self.columns.valid_nk & ~filled.reshape(self.columns.shape)
        means = total / (np.maximum(number, 1) * scale)
        return np.asarray(np.where(number > 0, means, empty_nk.mean(axis=1)))

    def _posteriors(self) -> FloatArray:
        """Return the type posterior of each kept vote; ValueError if one was not scored."""
        values = np.zeros(len(self.votes.input_g))
        for g in np.flatnonzero(self.kept_g).tolist():
            input_id = self.input_ids[int(self.votes.input_g[g])]
            mention = self.columns.mentions[int(self.votes.mention_g[g])]
            known = self.posteriors.get(input_id, {}).get(mention)
            if known is None:
                raise ValueError(f"input {input_id} has no type scores for {mention[0]!r}")
            values[g] = known
        return values

    def _best_members(self) -> IntArray:
        """Return the likeliest member (k) of each winning cluster; -1 where nothing is valid."""
        winner = winners(self.ids_nk, self.logprobs_nk)
        member = (self.ids_nk == winner[:, None]) & (self.ids_nk >= 0)
        likely = np.where(np.isnan(self.logprobs_nk), -np.finfo(np.float64).max, self.logprobs_nk)
        best = np.where(member, likely, -np.inf).argmax(axis=1)
        return np.where(winner >= 0, best, -1)

    def _mentions_of(self, best_n: IntArray) -> BoolArray:
        """Return which votes are mentions of the chosen completions."""
        kept = np.zeros(len(self.votes.input_g), dtype=np.bool_)
        row = self.columns.row_d
        chosen = best_n[row // self.columns.shape[1]] == row % self.columns.shape[1]
        kept[self.votes.vote_d[chosen]] = True
        return kept

    def _answer(self, n: int, k: int) -> tuple[Entity, ...]:
        if k < 0:
            return ()
        entities, types = self.samples[n][k].entities, self.labeller.types
        return entities if types is None else tuple(e for e in entities if e.type in types)

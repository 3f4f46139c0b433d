"""Confidence of a model in its own answer, from K completions of one input; all in [0, 1].

Axis letters: N inputs, K completions. Cluster ids are whole numbers of any size; -1 marks an
invalid completion, which agrees with nobody: it stays in K, is a cluster of its own for the
entropy, and never wins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccrl_cli.core.combination import METRICS, Combination, combined

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_PAIRS_PER_CHUNK = 4_000_000
_TIE_DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the metrics look at for one input.

    Attributes:
        cluster_ids: K cluster ids, -1 for an invalid completion.
        mean_logprobs: K mean token log-probabilities in nats, None where the backend has none.
        kept_votes: vote share of each entity in the label.
        empty_share: share of K that are valid and name no entity.
        type_posteriors: posterior of its type for each entity in the label, see
            ``core.type_evidence``; None where an entity was not scored.
    """

    cluster_ids: Sequence[int]
    mean_logprobs: Sequence[float | None]
    kept_votes: Sequence[float] = ()
    empty_share: float = 0.0
    type_posteriors: Sequence[float] | None = None


def confidence(metric: str, evidence: Evidence, *, combination: Combination | None = None) -> float:
    """Return the value of a named metric for one input.

    Args:
        metric: one of ``METRICS``.
        evidence: clusters, log-probabilities and votes of the input.
        combination: how ``combined`` combines; needed for it alone.

    Raises:
        ValueError: the metric is unknown, ``combined`` has no combination, or the evidence does
            not hold what the metric needs.
    """
    if metric == "self_consistency":
        return self_consistency(evidence.cluster_ids)
    if metric == "semantic_entropy":
        return semantic_entropy(evidence.cluster_ids, evidence.mean_logprobs)
    if metric == "entity_vote":
        return entity_vote(evidence.kept_votes, evidence.empty_share)
    if metric == "logprob":
        return logprob(evidence.cluster_ids, evidence.mean_logprobs)
    if metric == "type_posterior":
        return type_posterior(evidence.type_posteriors, evidence.empty_share)
    if metric != "combined":
        raise ValueError(f"metric {metric!r} is not one of {', '.join(METRICS)}")
    if combination is None:
        raise ValueError("the combined metric needs a combination of other metrics")
    values = {name: confidence(name, evidence) for name in combination.metrics}
    return float(combined(values, combination))


def self_consistency(cluster_ids: Sequence[int]) -> float:
    """Return the share of K in the largest cluster (Wang 2203.11171; TTRL 2504.16084)."""
    return float(self_consistency_batch(_one_row(cluster_ids))[0])


def semantic_entropy(
    cluster_ids: Sequence[int], mean_logprobs: Sequence[float | None] | None = None
) -> float:
    """Return 1 − H/ln K over clusters (Kuhn 2302.09664; Farquhar, Nature 2024).

    Cluster probabilities come from length-normalised likelihoods if every completion has one, else
    from counts. Differs from the papers in that it is scaled to [0, 1] and that invalid completions
    count, each as a cluster of its own. With K = 1 a valid answer gives 1.
    """
    rows = _logprob_row(mean_logprobs, len(cluster_ids))
    if rows is not None and np.isnan(rows).any():
        rows = None
    return float(semantic_entropy_batch(_one_row(cluster_ids), rows)[0])


def entity_vote(kept_votes: Sequence[float], empty_share: float) -> float:
    """Return the mean vote share of the kept entities; with none kept, the share of empty answers.

    Self-Improving zero-shot NER 2311.08921; SCRL 2603.19880.

    Args:
        kept_votes: vote share of each entity in the label.
        empty_share: share of K that are valid and name no entity.
    """
    return math.fsum(kept_votes) / len(kept_votes) if kept_votes else float(empty_share)


def type_posterior(posteriors: Sequence[float] | None, empty_share: float) -> float:
    """Return the mean posterior of the kept entities' types; with none kept, as `entity_vote`.

    Args:
        posteriors: for each entity in the label, see ``core.type_evidence``.
        empty_share: share of K that are valid and name no entity.

    Raises:
        ValueError: the entities were not scored.
    """
    if posteriors is None:
        raise ValueError("the type_posterior metric needs type scores of the entities")
    return math.fsum(posteriors) / len(posteriors) if posteriors else float(empty_share)


def logprob(cluster_ids: Sequence[int], mean_logprobs: Sequence[float | None]) -> float:
    """Return exp(mean token log-probability), averaged over the members of the winning cluster.

    0 if no completion is valid.

    Raises:
        ValueError: a member of the winning cluster has no log-probability.
    """
    rows = _logprob_row(mean_logprobs, len(cluster_ids))
    if rows is None:
        raise ValueError("the logprob metric needs the log-probabilities of the completions")
    return float(logprob_batch(_one_row(cluster_ids), rows)[0])


def self_consistency_batch(ids_nk: ArrayLike) -> FloatArray:
    """Return :func:`self_consistency` of N inputs.

    Args:
        ids_nk: cluster ids, -1 for an invalid completion.
    """
    ids = _check_ids(ids_nk)
    share = np.empty(len(ids))
    for rows, _, counts_nk in _cluster_sizes(ids):
        share[rows] = np.where(ids[rows] >= 0, counts_nk, 0).max(axis=1) / ids.shape[1]
    return share


def cluster_entropy_batch(
    ids_nk: ArrayLike, mean_logprobs_nk: ArrayLike | None = None
) -> FloatArray:
    """Return the entropy over clusters of N inputs, in nats, at most ln K.

    Args:
        ids_nk: cluster ids; every -1 is a cluster of its own.
        mean_logprobs_nk: mean token log-probabilities; None counts completions instead.

    Raises:
        ValueError: a log-probability is missing (NaN) or above 0, or shapes differ.
    """
    ids = _check_ids(ids_nk)
    num_completions = ids.shape[1]
    if mean_logprobs_nk is None:
        weights = np.full(ids.shape, 1.0)
    else:
        logprobs = _check_logprobs(mean_logprobs_nk, ids)
        if np.isnan(logprobs).any():
            raise ValueError("a log-probability is missing: entropy needs all of them or none")
        weights = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    entropy = np.empty(len(ids))
    for rows, same_nkk, counts_nk in _cluster_sizes(ids):
        if mean_logprobs_nk is None:
            mass_nk = counts_nk / num_completions
            share_nk = np.full(mass_nk.shape, 1.0 / num_completions)
        else:
            share_nk = weights[rows] / weights[rows].sum(axis=1, keepdims=True)
            mass_nk = np.minimum(_sum_over_cluster(same_nkk, share_nk), 1.0)
        # Σ_c p_c ln p_c = Σ_k w_k ln p_c(k); a weight that underflowed to 0 contributes 0.
        entropy[rows] = -(share_nk * np.log(np.where(mass_nk > 0, mass_nk, 1.0))).sum(axis=1)
    return np.clip(entropy, 0.0, math.log(num_completions))


def semantic_entropy_batch(
    ids_nk: ArrayLike, mean_logprobs_nk: ArrayLike | None = None
) -> FloatArray:
    """Return :func:`semantic_entropy` of N inputs; 0 where no completion is valid.

    Args:
        ids_nk: cluster ids, -1 for an invalid completion.
        mean_logprobs_nk: mean token log-probabilities; None counts completions instead.

    Raises:
        ValueError: a log-probability is missing (NaN) or above 0, or shapes differ.
    """
    ids = _check_ids(ids_nk)
    valid = (ids >= 0).any(axis=1)
    if ids.shape[1] == 1:
        return np.asarray(valid, dtype=np.float64)
    entropy = cluster_entropy_batch(ids, mean_logprobs_nk)
    return np.asarray(np.where(valid, 1.0 - entropy / math.log(ids.shape[1]), 0.0))


def winners(ids_nk: ArrayLike, mean_logprobs_nk: ArrayLike | None = None) -> IntArray:
    """Return the id of the winning cluster of N inputs; -1 where no completion is valid.

    The largest cluster wins; ties go to the higher mean log-probability, then to the first seen.

    Args:
        ids_nk: cluster ids, -1 for an invalid completion.
        mean_logprobs_nk: mean token log-probabilities, NaN where unknown; means are over the
            known ones, and a cluster with none known loses a tie.
    """
    ids = _check_ids(ids_nk)
    logprobs = (
        np.full(ids.shape, np.nan)
        if mean_logprobs_nk is None
        else _check_logprobs(mean_logprobs_nk, ids)
    )
    winner = np.empty(len(ids), dtype=np.int64)
    for rows, same_nkk, counts_nk in _cluster_sizes(ids):
        size_nk = np.where(ids[rows] >= 0, counts_nk, 0)
        largest_nk = size_nk == size_nk.max(axis=1, keepdims=True)
        known_nk = ~np.isnan(logprobs[rows])
        num_known = _sum_over_cluster(same_nkk, known_nk.astype(np.float64))
        total = _sum_over_cluster(same_nkk, np.where(known_nk, logprobs[rows], 0.0))
        mean_nk = np.where(num_known > 0, total / np.maximum(num_known, 1), -np.inf)
        # Rounded, so that equal clusters tie whatever the order in which their sums were taken.
        mean_nk = np.where(largest_nk, np.round(mean_nk, _TIE_DECIMALS), -np.inf)
        best_nk = largest_nk & (mean_nk == mean_nk.max(axis=1, keepdims=True))
        winner[rows] = np.take_along_axis(ids[rows], best_nk.argmax(axis=1)[:, None], axis=1)[:, 0]
    return winner


def logprob_batch(ids_nk: ArrayLike, mean_logprobs_nk: ArrayLike) -> FloatArray:
    """Return :func:`logprob` of N inputs.

    Args:
        ids_nk: cluster ids, -1 for an invalid completion.
        mean_logprobs_nk: mean token log-probabilities, NaN where unknown.

    Raises:
        ValueError: a member of a winning cluster has no log-probability, or shapes differ.
    """
    ids = _check_ids(ids_nk)
    logprobs = _check_logprobs(mean_logprobs_nk, ids)
    members = (ids == winners(ids, logprobs)[:, None]) & (ids >= 0)
    if np.isnan(logprobs[members]).any():
        raise ValueError("the logprob metric needs the log-probabilities of the completions")
    likelihood = np.exp(np.where(members, logprobs, -np.inf))
    return np.asarray(likelihood.sum(axis=1) / np.maximum(members.sum(axis=1), 1))


def _cluster_sizes(ids: IntArray) -> Iterator[tuple[slice, NDArray[np.bool_], IntArray]]:
    """Yield chunks of rows: slice, whether two completions share a cluster (nKK), sizes (nK)."""
    num_completions = ids.shape[1]
    diagonal = np.eye(num_completions, dtype=np.bool_)
    height = max(1, _PAIRS_PER_CHUNK // num_completions**2)
    for start in range(0, len(ids), height):
        rows = slice(start, start + height)
        chunk = ids[rows]
        same = chunk[:, :, None] == chunk[:, None, :]
        invalid = chunk < 0
        if invalid.any():
            same &= ~invalid[:, :, None] | diagonal
        yield rows, same, same.sum(axis=2)


def _sum_over_cluster(same_nkk: NDArray[np.bool_], values_nk: FloatArray) -> FloatArray:
    """Return, for every completion, the sum of values over its cluster."""
    return np.asarray((same_nkk @ values_nk[:, :, None])[:, :, 0], dtype=np.float64)


def _one_row(cluster_ids: Sequence[int]) -> IntArray:
    return np.asarray(cluster_ids, dtype=np.int64).reshape(1, -1)


def _logprob_row(mean_logprobs: Sequence[float | None] | None, size: int) -> FloatArray | None:
    """Return one row with NaN for None, or None if no completion has a log-probability."""
    if mean_logprobs is None:
        return None
    if len(mean_logprobs) != size:
        raise ValueError(f"{size} cluster ids but {len(mean_logprobs)} log-probabilities")
    if all(value is None for value in mean_logprobs):
        return None
    return np.array([[math.nan if value is None else value for value in mean_logprobs]])


def _check_ids(ids_nk: ArrayLike) -> IntArray:
    ids = np.asarray(ids_nk, dtype=np.int64)
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(f"cluster ids have shape {ids.shape}, not (N, K) with K of at least 1")
    return ids


def _check_logprobs(logprobs_nk: ArrayLike, ids: IntArray) -> FloatArray:
    """Return log-probabilities as floats, rounding noise above 0 removed; NaN is allowed."""
    logprobs = np.asarray(logprobs_nk, dtype=np.float64)
    if logprobs.shape != ids.shape:
        raise ValueError(f"log-probabilities have shape {logprobs.shape}, not {ids.shape}")
    if (logprobs > 1e-3).any() or np.isneginf(logprobs).any():
        raise ValueError("a mean log-probability is above 0 or infinite")
    return np.minimum(logprobs, 0.0)

"""Confidence of a model in its own answer, from K completions of one input; all in [0, 1].

Cluster ids are whole numbers of any size; -1 marks an invalid completion, which agrees with
nobody: it stays in K, is a cluster of its own for the entropy, and never wins.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ccrl_cli.core.combination import METRICS, Combination, combined

INVALID = -1
"""Cluster id of an invalid completion."""

_TIE_DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the metrics look at for one input.

    Attributes:
        cluster_ids: K cluster ids, -1 for an invalid completion.
        mean_logprobs: K mean token log-probabilities in nats, None where the backend has none.
        kept_votes: for each entity in the label, how many of the K hold it.
        num_empty: how many of the K are valid and name no entity.
        type_posteriors: posterior of its type for each entity in the label, see
            ``core.type_evidence``; None where an entity was not scored.
    """

    cluster_ids: Sequence[int]
    mean_logprobs: Sequence[float | None]
    kept_votes: Sequence[int] = ()
    num_empty: int = 0
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
    empty_share = evidence.num_empty / max(1, len(evidence.cluster_ids))
    if metric == "self_consistency":
        return self_consistency(evidence.cluster_ids)
    if metric == "semantic_entropy":
        return semantic_entropy(evidence.cluster_ids, evidence.mean_logprobs)
    if metric == "entity_vote":
        return entity_vote(evidence.kept_votes, len(evidence.cluster_ids), empty_share)
    if metric == "logprob":
        return logprob(evidence.cluster_ids, evidence.mean_logprobs)
    if metric == "type_posterior":
        return type_posterior(evidence.type_posteriors, empty_share)
    if metric != "combined":
        raise ValueError(f"metric {metric!r} is not one of {', '.join(METRICS)}")
    if combination is None:
        raise ValueError("the combined metric needs a combination of other metrics")
    values = {name: confidence(name, evidence) for name in combination.metrics}
    return float(combined(values, combination))


def self_consistency(cluster_ids: Sequence[int]) -> float:
    """Return the share of K in the largest cluster (Wang 2203.11171; TTRL 2504.16084).

    Raises:
        ValueError: K is 0.
    """
    _check(cluster_ids)
    sizes = Counter(number for number in cluster_ids if number != INVALID)
    return max(sizes.values(), default=0) / len(cluster_ids)


def semantic_entropy(
    cluster_ids: Sequence[int], mean_logprobs: Sequence[float | None] | None = None
) -> float:
    """Return 1 − H/ln K over clusters (Kuhn 2302.09664; Farquhar, Nature 2024).

    Cluster probabilities come from length-normalised likelihoods if every completion has one, else
    from counts. Differs from the papers in that it is scaled to [0, 1] and that invalid completions
    count, each as a cluster of its own. With K = 1 a valid answer gives 1; 0 if none is valid.

    Raises:
        ValueError: K is 0, the lengths differ, or a log-probability is above 0 or infinite.
    """
    entropy = cluster_entropy(cluster_ids, mean_logprobs)
    if all(number == INVALID for number in cluster_ids):
        return 0.0
    return 1.0 - entropy / math.log(len(cluster_ids)) if len(cluster_ids) > 1 else 1.0


def cluster_entropy(
    cluster_ids: Sequence[int], mean_logprobs: Sequence[float | None] | None = None
) -> float:
    """Return the entropy over clusters in nats, at most ln K; every -1 is a cluster of its own.

    Args:
        cluster_ids: K cluster ids.
        mean_logprobs: K mean token log-probabilities in nats; counts are taken where one of them
            is missing.

    Raises:
        ValueError: as :func:`semantic_entropy` says.
    """
    known = _known(mean_logprobs, cluster_ids)
    logprobs = [value for value in known if value is not None]
    if len(logprobs) < len(known):
        logprobs = [0.0] * len(known)
    highest = max(logprobs)
    mass: defaultdict[int, list[float]] = defaultdict(list)
    for place, (number, value) in enumerate(zip(cluster_ids, logprobs, strict=True)):
        mass[number if number != INVALID else -2 - place].append(math.exp(value - highest))
    # Sums are exact whatever their order, so inputs that agree alike are equally sure.
    sums = [math.fsum(values) for values in mass.values()]
    total = math.fsum(sums)
    entropy = -math.fsum(p * math.log(p) for p in (value / total for value in sums) if p > 0)
    return min(max(entropy, 0.0), math.log(len(cluster_ids)))


def entity_vote(kept_votes: Sequence[int], num_completions: int, empty_share: float) -> float:
    """Return the mean vote share of the kept entities; with none kept, the share of empty answers.

    Self-Improving zero-shot NER 2311.08921; SCRL 2603.19880. Whole votes are summed and divided
    once, so that equal votes give equal confidences to the last bit.

    Args:
        kept_votes: for each entity in the label, how many completions hold it.
        num_completions: K.
        empty_share: share of K that are valid and name no entity.
    """
    if not kept_votes:
        return empty_share
    return sum(kept_votes) / (len(kept_votes) * num_completions)


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
    return math.fsum(posteriors) / len(posteriors) if posteriors else empty_share


def logprob(cluster_ids: Sequence[int], mean_logprobs: Sequence[float | None]) -> float:
    """Return exp(mean token log-probability), averaged over the members of the winning cluster.

    Members without a log-probability are left out of the average; 0 if none has one, or no
    completion is valid.

    Raises:
        ValueError: as :func:`semantic_entropy` says.
    """
    known = _known(mean_logprobs, cluster_ids)
    best = winner(cluster_ids, mean_logprobs)
    members = [value for number, value in zip(cluster_ids, known, strict=True) if number == best]
    likelihoods = [math.exp(value) for value in members if value is not None]
    if best == INVALID or not likelihoods:
        return 0.0
    return math.fsum(likelihoods) / len(likelihoods)


def winner(cluster_ids: Sequence[int], mean_logprobs: Sequence[float | None] | None = None) -> int:
    """Return the id of the winning cluster; -1 where no completion is valid.

    The largest cluster wins; ties go to the higher mean log-probability, then to the first seen.

    Args:
        cluster_ids: K cluster ids, -1 for an invalid completion.
        mean_logprobs: K mean token log-probabilities in nats; means are over the known ones, and
            a cluster with none known loses a tie.

    Raises:
        ValueError: as :func:`semantic_entropy` says.
    """
    known = _known(mean_logprobs, cluster_ids)
    members: dict[int, list[float | None]] = {}
    for number, value in zip(cluster_ids, known, strict=True):
        if number != INVALID:
            members.setdefault(number, []).append(value)
    largest = max(map(len, members.values()), default=0)
    tied = [number for number, values in members.items() if len(values) == largest]
    if len(tied) < 2:
        return tied[0] if tied else INVALID
    return max(tied, key=lambda number: _mean_known(members[number]))


def _mean_known(values: Sequence[float | None]) -> float:
    """Return the mean of the known values, rounded so that equal clusters tie; -inf without any."""
    known = [value for value in values if value is not None]
    return round(math.fsum(known) / len(known), _TIE_DECIMALS) if known else -math.inf


def _known(
    mean_logprobs: Sequence[float | None] | None, cluster_ids: Sequence[int]
) -> list[float | None]:
    """Return K log-probabilities, rounding noise above 0 removed, None where unknown."""
    _check(cluster_ids)
    if mean_logprobs is None:
        return [None] * len(cluster_ids)
    if len(mean_logprobs) != len(cluster_ids):
        raise ValueError(
            f"{len(cluster_ids)} cluster ids but {len(mean_logprobs)} log-probabilities"
        )
    if any(value is not None and not -math.inf < value <= 1e-3 for value in mean_logprobs):
        raise ValueError("a mean log-probability is above 0 or infinite")
    return [None if value is None else min(value, 0.0) for value in mean_logprobs]


def _check(cluster_ids: Sequence[int]) -> None:
    if not len(cluster_ids):
        raise ValueError("there are no completions: K is 0")

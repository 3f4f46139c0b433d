"""Agreement of K completions of one input: clusters, entity votes, pseudo-label.

K counts every completion: an invalid one stays in the denominator of every share and never wins.
Surface texts are compared by :func:`ccrl_cli.core.alignment.mention_key`, so spacing and Unicode
composition do not split a vote; case does.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_low

import numpy as np

from ccrl_cli.core.alignment import mention_key
from ccrl_cli.core.combination import METRICS, Combination
from ccrl_cli.core.confidence import Evidence, confidence, winners
from ccrl_cli.records import Entity, Parse, PseudoLabel

RULES = ("majority", "entity_vote")
"""Names of the rules by which a pseudo-label is chosen."""

INVALID = -1
"""Cluster id of an invalid completion."""

PosteriorOf = Mapping[tuple[str, str], float]
"""Posterior of its type by (normalised text, type), see ``core.type_evidence``."""


def canonical(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Return the canonical form: the sorted multiset of (normalised text, type)."""
    return tuple(sorted(_mention(entity) for entity in entities))


def restrict_types(parses: Iterable[Parse], types: Collection[str]) -> list[Parse]:
    """Return the parses without mentions of other types, so that none can enter a label.

    An answer that has mentions but none of a listed type becomes ``invalid``: it does not say
    that the text has no entities. ``num_unknown_types`` stays as it was parsed.

    Args:
        parses: completions of one input.
        types: type identifiers of the label set.
    """
    known = frozenset(types)
    return [_restrict(parse, known) for parse in parses]


def cluster(parses: Sequence[Parse], *, similarity: float = 1.0) -> list[int]:
    """Return the cluster id of each completion, numbered by first appearance; invalid gives -1.

    Args:
        parses: K completions of one input.
        similarity: entity F1 at which two completions join, in (0, 1], by single linkage: they
            share a cluster if a chain of such pairs links them. 1 asks for equal canonical forms.

    Raises:
        ValueError: the similarity is not in (0, 1].
    """
    if not 0 < similarity <= 1:
        raise ValueError(f"similarity is {similarity}, not in (0, 1]")
    forms = [None if parse.outcome == "invalid" else canonical(parse.entities) for parse in parses]
    distinct = list(dict.fromkeys(form for form in forms if form is not None))
    groups = range(len(distinct)) if similarity == 1 else _link(distinct, similarity)
    numbers: dict[int, int] = {}
    group_of = {
        form: numbers.setdefault(group, len(numbers))
        for form, group in zip(distinct, groups, strict=True)
    }
    return [INVALID if form is None else group_of[form] for form in forms]


def cluster_weights(
    cluster_ids: Sequence[int], mean_logprobs: Sequence[float | None] | None = None
) -> dict[int, float]:
    """Return the probability of each cluster of valid completions; the values sum to 1.

    Args:
        cluster_ids: K cluster ids, -1 for an invalid completion, which is left out.
        mean_logprobs: K mean token log-probabilities; if every valid completion has one, weights
            are sums of length-normalised likelihoods (Farquhar, Nature 2024), else counts.
    """
    ids = [number for number in cluster_ids if number != INVALID]
    logprobs: list[float | None] = [None] * len(ids)
    if mean_logprobs is not None:
        pairs = zip(cluster_ids, mean_logprobs, strict=True)
        logprobs = [value for number, value in pairs if number != INVALID]
    known = [value for value in logprobs if value is not None]
    if len(known) < len(ids):
        known = [0.0] * len(ids)
    highest = max(known, default=0.0)
    mass: defaultdict[int, list[float]] = defaultdict(list)
    for number, value in zip(ids, known, strict=True):
        mass[number].append(math.exp(value - highest))
    sums = {number: math.fsum(values) for number, values in mass.items()}
    total = math.fsum(sums.values())
    return {number: value / total for number, value in sums.items()}


def entity_votes(parses: Sequence[Parse]) -> dict[Entity, float]:
    """Return the share of K that contains each entity at least once, highest share first.

    Copies inside one completion are one vote. An entity is shown in its most frequent spelling.

    Args:
        parses: K completions of one input.
    """
    return {vote.entity: vote.share for vote in _count_votes(parses)}


def pool(
    groups: Iterable[tuple[Sequence[Parse], Sequence[float | None]]],
) -> tuple[list[Parse], list[float | None]]:
    """Return the completions of several models for one input as one list, one vote each.

    A model with more completions has more votes. Log-probabilities of different models are not on
    one scale: in a pool they should break ties and no more.

    Args:
        groups: for each model, its parses and their mean log-probabilities.

    Raises:
        ValueError: a model has a different number of parses and log-probabilities.
    """
    parses: list[Parse] = []
    mean_logprobs: list[float | None] = []
    for group_parses, group_logprobs in groups:
        if len(group_parses) != len(group_logprobs):
            raise ValueError(
                f"{len(group_parses)} parses but {len(group_logprobs)} log-probabilities"
            )
        parses.extend(group_parses)
        mean_logprobs.extend(group_logprobs)
    return parses, mean_logprobs


@dataclass(frozen=True, slots=True)
class Labeller:
    """How a pseudo-label and its confidence are taken from K completions.

    Attributes:
        rule: ``majority``: the answer of the winning cluster, in the order written by its member
            of highest log-probability. ``entity_vote``: every entity with vote share of at least
            ``positive``, in the mean order of the completions, with as many copies as the lower
            median of the completions that contain it.
        metric: name of the confidence metric.
        positive: vote share in [0, 1] from which an entity is kept.
        negative: vote share, at most ``positive``, below which an entity is a negative; between
            the two it abstains. ``majority`` has no abstention.
        similarity: entity F1 at which two completions share a cluster; 1 asks for equality.
        types: type identifiers that a label may hold; None leaves all.
        combination: how the ``combined`` metric combines.

    Raises:
        ValueError: a name is unknown or a limit is out of range.
    """

    rule: str = "majority"
    metric: str = "self_consistency"
    positive: float = 0.5
    negative: float = 0.125
    similarity: float = 1.0
    types: Collection[str] | None = None
    combination: Combination | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule {self.rule!r} is not one of {', '.join(RULES)}")
        if self.metric not in METRICS:
            raise ValueError(f"metric {self.metric!r} is not one of {', '.join(METRICS)}")
        if self.metric == "combined" and self.combination is None:
            raise ValueError("the combined metric needs a combination of other metrics")
        if not 0 <= self.negative <= self.positive <= 1:
            raise ValueError(
                f"negative {self.negative} and positive {self.positive} are not in order in [0, 1]"
            )
        if not 0 < self.similarity <= 1:
            raise ValueError(f"similarity is {self.similarity}, not in (0, 1]")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are computed: the metric, or the parts of a combination."""
        if self.metric == "combined" and self.combination is not None:
            return self.combination.metrics
        return (self.metric,)

    def __call__(
        self,
        input_id: str,
        parses: Sequence[Parse],
        mean_logprobs: Sequence[float | None],
        posteriors: PosteriorOf | None = None,
    ) -> PseudoLabel:
        """Return the pseudo-label of one input; empty with confidence 0 if nothing is valid.

        :func:`ccrl_cli.core.batch.label_batch` does the same for many inputs at once.

        Args:
            input_id: identifier of the input.
            parses: K completions, K at least 1.
            mean_logprobs: K mean token log-probabilities in nats, None where unknown.
            posteriors: type evidence of the input; read by ``type_posterior`` alone.

        Raises:
            ValueError: K is 0, the lengths differ, or the metric needs log-probabilities or type
                evidence that is not there.
        """
        if not parses or len(parses) != len(mean_logprobs):
            raise ValueError(f"{len(parses)} parses and {len(mean_logprobs)} log-probabilities")
        known = list(parses) if self.types is None else restrict_types(parses, self.types)
        ids = cluster(known, similarity=self.similarity)
        votes = _count_votes(known)
        abstained: tuple[Entity, ...] = ()
        if self.rule == "majority":
            entities = _majority_answer(known, ids, mean_logprobs)
        else:
            entities = _voted_answer(votes, self.positive)
            between = (vote for vote in votes if self.negative <= vote.share < self.positive)
            abstained = tuple(vote.entity for vote in between)
        kept = {_mention(entity) for entity in entities}
        evidence = Evidence(
            cluster_ids=ids,
            mean_logprobs=mean_logprobs,
            kept_votes=[vote.share for vote in votes if vote.mention in kept],
            empty_share=sum(map(_is_empty, known)) / len(known),
            type_posteriors=_posteriors_of(kept, posteriors),
        )
        return PseudoLabel(
            input_id=input_id,
            entities=entities,
            confidence=self._confidence(evidence),
            metric=self.metric,
            rule=self.rule,
            num_completions=len(parses),
            num_invalid=sum(parse.outcome == "invalid" for parse in parses),
            abstained=abstained,
            votes=tuple((vote.entity, vote.share) for vote in votes),
        )

    def _confidence(self, evidence: Evidence) -> float:
        if all(number == INVALID for number in evidence.cluster_ids):
            return 0.0
        return confidence(self.metric, evidence, combination=self.combination)


def pseudo_label(
    input_id: str,
    parses: Sequence[Parse],
    mean_logprobs: Sequence[float | None],
    *,
    rule: str = "majority",
    metric: str = "self_consistency",
    positive: float = 0.5,
    negative: float = 0.125,
) -> PseudoLabel:
    """Return the pseudo-label of one input by the named rule, with the named confidence.

    The short form of :class:`Labeller`, which also takes a label set, soft clusters and a
    combination of metrics.

    Args:
        input_id: identifier of the input.
        parses: K completions; apply :func:`restrict_types` first if types may be unknown.
        mean_logprobs: K mean token log-probabilities in nats, None where unknown.
        rule: see :class:`Labeller`.
        metric: see :class:`Labeller`.
        positive: see :class:`Labeller`.
        negative: see :class:`Labeller`.

    Raises:
        ValueError: as :class:`Labeller` does.
    """
    labeller = Labeller(rule=rule, metric=metric, positive=positive, negative=negative)
    return labeller(input_id, parses, mean_logprobs)


@dataclass(frozen=True, slots=True)
class _Vote:
    """One entity over K completions.

    Attributes:
        mention: normalised text and type, by which completions are compared.
        entity: most frequent spelling.
        share: share of K that contains it.
        copies: its copies in each completion that contains it.
        place: its mean place in these completions.
    """

    mention: Entity
    entity: Entity
    share: float
    copies: tuple[int, ...]
    place: float


def _count_votes(parses: Sequence[Parse]) -> list[_Vote]:
    """Return the votes, highest share first; the order of the completions plays no part."""
    spellings: defaultdict[Entity, Counter[str]] = defaultdict(Counter)
    copies: defaultdict[Entity, list[int]] = defaultdict(list)
    places: defaultdict[Entity, int] = defaultdict(int)
    for parse in parses:
        if parse.outcome == "invalid":
            continue
        seen: Counter[Entity] = Counter()
        for place, entity in enumerate(parse.entities):
            mention = _mention(entity)
            spellings[mention][entity.text] += 1
            if mention not in seen:
                places[mention] += place
            seen[mention] += 1
        for mention, number in seen.items():
            copies[mention].append(number)
    votes = [
        _Vote(
            mention=mention,
            entity=Entity(_most_frequent(spellings[mention]), mention.type),
            share=len(numbers) / len(parses),
            copies=tuple(numbers),
            place=places[mention] / len(numbers),
        )
        for mention, numbers in copies.items()
    ]
    return sorted(votes, key=lambda vote: (-vote.share, vote.mention))


def _posteriors_of(
    kept: Iterable[Entity], posteriors: PosteriorOf | None
) -> tuple[float, ...] | None:
    """Return the type posterior of each kept entity; None if any of them was not scored."""
    values = [(posteriors or {}).get((mention.text, mention.type)) for mention in kept]
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _most_frequent(spellings: Counter[str]) -> str:
    """Return the most frequent text, ties by code point."""
    return min(spellings, key=lambda text: (-spellings[text], text))


def _voted_answer(votes: Iterable[_Vote], positive: float) -> tuple[Entity, ...]:
    """Return the entities with enough votes, in the mean order of the completions."""
    kept = [vote for vote in votes if vote.share >= positive]
    kept.sort(key=lambda vote: (vote.place, vote.mention))
    return tuple(vote.entity for vote in kept for _ in range(median_low(vote.copies)))


def _majority_answer(
    parses: Sequence[Parse], ids: Sequence[int], mean_logprobs: Sequence[float | None]
) -> tuple[Entity, ...]:
    """Return the answer of the winning cluster as its likeliest member wrote it."""
    logprobs = [math.nan if value is None else value for value in mean_logprobs]
    winner = int(winners(np.array([ids]), np.array([logprobs]))[0])
    if winner == INVALID:
        return ()
    members = [index for index, number in enumerate(ids) if number == winner]
    best = max(members, key=lambda index: (not math.isnan(logprobs[index]), logprobs[index]))
    return parses[best].entities


def _link(forms: Sequence[tuple[Entity, ...]], similarity: float) -> list[int]:
    """Return a group for each canonical form: single linkage at an entity F1 (union-find)."""
    parents = list(range(len(forms)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    counts = [Counter(form) for form in forms]
    for later in range(len(forms)):
        for earlier in range(later):
            shared = (counts[later] & counts[earlier]).total()
            if 2 * shared / (len(forms[later]) + len(forms[earlier])) >= similarity:
                parents[root(later)] = root(earlier)
    return [root(index) for index in range(len(forms))]


def _restrict(parse: Parse, known: frozenset[str]) -> Parse:
    kept = tuple(entity for entity in parse.entities if entity.type in known)
    if len(kept) == len(parse.entities):
        return parse
    if not kept:
        return replace(parse, outcome="invalid", entities=(), reason="no mention of a known type")
    return replace(parse, entities=kept)


def _is_empty(parse: Parse) -> bool:
    return parse.outcome != "invalid" and not parse.entities


def _mention(entity: Entity) -> Entity:
    return Entity(mention_key(entity.text), entity.type)

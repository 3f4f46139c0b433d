"""Agreement of K completions of one input: clusters, entity votes, pseudo-label.

K counts every completion: an invalid one stays in the denominator of every share and never wins.
Surface texts are compared by :func:`ccrl_cli.core.alignment.mention_key`, so spacing and Unicode
composition do not split a vote; case does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_low

from ccrl_cli.core.alignment import Mention, mention_key, mention_of
from ccrl_cli.core.combination import METRICS, Combination
from ccrl_cli.core.confidence import INVALID, Evidence, confidence, winner
from ccrl_cli.records import Entity, Parse, PseudoLabel

RULES = ("majority", "entity_vote")
"""Names of the rules by which a pseudo-label is chosen."""

PosteriorOf = Mapping[Mention, float]
"""Posterior of its type by (normalised text, type), see ``core.type_evidence``."""


def canonical(entities: Iterable[Entity]) -> tuple[Entity, ...]:
    """Return the canonical form: the sorted multiset of (normalised text, type)."""
    return tuple(Entity(*mention) for mention in sorted(map(mention_of, entities)))


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
    _check_similarity(similarity)
    return _cluster([_stated(parse) for parse in parses], similarity)


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
        _check_similarity(self.similarity)

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
        stated = [_stated(parse) for parse in known]
        ids = _cluster(stated, self.similarity)
        votes = _count_votes(known, stated)
        abstained: tuple[Entity, ...] = ()
        if self.rule == "majority":
            entities = _majority_answer(known, ids, mean_logprobs)
        else:
            entities = _voted_answer(votes, self.positive)
            between = (vote for vote in votes if self.negative <= vote.share < self.positive)
            abstained = tuple(vote.entity for vote in between)
        kept = set(map(mention_of, entities))
        evidence = Evidence(
            cluster_ids=ids,
            mean_logprobs=mean_logprobs,
            kept_votes=[len(vote.copies) for vote in votes if vote.mention in kept],
            num_empty=stated.count(()),
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


@dataclass(frozen=True, slots=True)
class _Vote:
    """One entity over K completions.

    Attributes:
        mention: normalised text and type, by which completions are compared.
        entity: the mention in its most frequent spelling, ties by code point.
        share: share of K that contains it.
        copies: its copies in each completion that contains it.
        place: mean of its first places in these completions.
    """

    mention: Mention
    entity: Entity
    share: float
    copies: list[int]
    place: float


def _stated(parse: Parse) -> tuple[Mention, ...] | None:
    """Return the mentions of a completion in the order written; None if it is invalid."""
    if parse.outcome == "invalid":
        return None
    return tuple([(mention_key(entity.text), entity.type) for entity in parse.entities])


def _count_votes(
    parses: Sequence[Parse], stated: Sequence[tuple[Mention, ...] | None]
) -> list[_Vote]:
    """Return the votes, highest share first; the order of the completions plays no part."""
    spellings: defaultdict[Mention, list[str]] = defaultdict(list)
    places: defaultdict[Mention, int] = defaultdict(int)
    copies: defaultdict[Mention, list[int]] = defaultdict(list)
    for parse, mentions in zip(parses, stated, strict=True):
        seen: dict[Mention, int] = {}
        for place, mention in enumerate(mentions or ()):
            spellings[mention].append(parse.entities[place].text)
            if mention in seen:
                seen[mention] += 1
            else:
                seen[mention] = 1
                places[mention] += place
        for mention, number in seen.items():
            copies[mention].append(number)
    votes = [
        _Vote(
            mention=mention,
            entity=Entity(_most_frequent(spellings[mention]), mention[1]),
            share=len(numbers) / len(parses),
            copies=numbers,
            place=places[mention] / len(numbers),
        )
        for mention, numbers in copies.items()
    ]
    return sorted(votes, key=lambda vote: (-vote.share, vote.mention))


def _most_frequent(spellings: Sequence[str]) -> str:
    """Return the most frequent text, ties by code point."""
    distinct = set(spellings)
    if len(distinct) == 1:
        return spellings[0]
    counts = Counter(spellings)
    return min(distinct, key=lambda text: (-counts[text], text))


def _voted_answer(votes: Iterable[_Vote], positive: float) -> tuple[Entity, ...]:
    """Return the entities with enough votes, in the mean order of the completions."""
    kept = [vote for vote in votes if vote.share >= positive]
    kept.sort(key=lambda vote: (vote.place, vote.mention))
    return tuple(vote.entity for vote in kept for _ in range(median_low(vote.copies)))


def _majority_answer(
    parses: Sequence[Parse], ids: Sequence[int], mean_logprobs: Sequence[float | None]
) -> tuple[Entity, ...]:
    """Return the answer of the winning cluster as its likeliest member wrote it."""
    best = winner(ids, mean_logprobs)
    if best == INVALID:
        return ()

    def likelihood(place: int) -> tuple[bool, float]:
        value = mean_logprobs[place]
        return value is not None, value or 0.0

    members = [place for place, number in enumerate(ids) if number == best]
    return parses[max(members, key=likelihood)].entities


def _posteriors_of(
    kept: Iterable[Mention], posteriors: PosteriorOf | None
) -> tuple[float, ...] | None:
    """Return the type posterior of each kept entity; None if any of them was not scored."""
    values = [(posteriors or {}).get(mention) for mention in kept]
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def _cluster(stated: Sequence[tuple[Mention, ...] | None], similarity: float) -> list[int]:
    """Return the cluster id of each completion, given its mentions; None is an invalid one."""
    forms = [None if mentions is None else tuple(sorted(mentions)) for mentions in stated]
    distinct = list(dict.fromkeys(form for form in forms if form is not None))
    groups = range(len(distinct)) if similarity == 1 else _link(distinct, similarity)
    numbers: dict[int, int] = {}
    group_of = {
        form: numbers.setdefault(group, len(numbers))
        for form, group in zip(distinct, groups, strict=True)
    }
    return [INVALID if form is None else group_of[form] for form in forms]


def _link(forms: Sequence[tuple[Mention, ...]], similarity: float) -> list[int]:
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


def _check_similarity(similarity: float) -> None:
    if not 0 < similarity <= 1:
        raise ValueError(f"similarity is {similarity}, not in (0, 1]")

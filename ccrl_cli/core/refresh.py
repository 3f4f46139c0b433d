"""Dynamic curriculum: confidence estimated again while training, labels flipped under guard.

Evidence comes from rollouts that were drawn anyway, or from completions of a named teacher. A
policy that is trained on its labels agrees with them more and more, so agreement alone is no
reason to change one: an entity enters a label only after its vote share rose over w refreshes,
and leaves only after it fell over w refreshes. Every change is a record for the journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccrl_cli.core.agreement import Labeller, PosteriorOf, canonical
from ccrl_cli.core.alignment import mention_key
from ccrl_cli.core.label_guard import Mention, Shares, guarded
from ccrl_cli.core.type_evidence import with_types
from ccrl_cli.records import Entity, Parse, PseudoLabel

SOURCES = ("rollouts", "base", "ema")
"""Where evidence comes from: rollouts of the live policy, or one of the two teachers."""


@dataclass(frozen=True, slots=True)
class RefreshSettings:
    """When confidence is estimated again, and from what.

    Attributes:
        every_steps: R, steps between two refreshes; 0 never refreshes.
        window: w, refreshes over which a vote share must move in one direction.
        source: ``rollouts``, ``base`` (adapter off) or ``ema`` (moving average of the adapter).
        min_completions: completions of an input that an estimate needs; fewer are kept for the
            next refresh.

    Raises:
        ValueError: a number is out of range or the source is unknown.
    """

    every_steps: int
    window: int = 2
    source: str = "rollouts"
    min_completions: int = 4

    def __post_init__(self) -> None:
        if self.every_steps < 0 or self.window < 1 or self.min_completions < 1:
            raise ValueError(
                f"every_steps {self.every_steps}, window {self.window} and min_completions "
                f"{self.min_completions} are not at least 0, 1 and 1"
            )
        if self.source not in SOURCES:
            raise ValueError(f"source {self.source!r} is not one of {', '.join(SOURCES)}")


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh changed.

    Attributes:
        confidence: confidence of every input, estimated again or not.
        labels: the labels that changed, by input id.
        records: what the journal gets: one record a flip, then one of the refresh.
    """

    confidence: Mapping[str, float]
    labels: Mapping[str, PseudoLabel]
    records: tuple[dict[str, Any], ...]


class Refresher:
    """Keeps the labels of a training and the votes they were judged by.

    Args:
        labels: pseudo-label by input id, as derived from the store.
        labeller: rule and metric, the same as for the store.
        settings: when and from what.
        chosen_types: by input id, the type that a span (normalised text) is given, whatever a
            completion says.
        posteriors: type evidence of the store by input id. Until :meth:`renew_types` brings
            other, labels of a metric that reads it keep their confidence.
        fitted: takes mentions out of an estimate that its text has no place for.
        comparable: the labels' votes are of the policy that answers from now on; else the first
            estimate begins the history, and the labels' own shares are no part of it.
    """

    def __init__(
        self,
        labels: Mapping[str, PseudoLabel],
        labeller: Labeller,
        settings: RefreshSettings,
        chosen_types: Mapping[str, Mapping[str, str]] | None = None,
        posteriors: Mapping[str, PosteriorOf] | None = None,
        *,
        fitted: Callable[[PseudoLabel], PseudoLabel] = lambda label: label,
        comparable: bool = True,
    ) -> None:
        self._chosen_types = dict(chosen_types or {})
        self._posteriors = {key: (posteriors or {}).get(key, {}) for key in labels}
        self._renewed: set[str] = set()
        self._fitted = fitted
        self._labels = dict(labels)
        self._labeller = labeller
        self._settings = settings
        # Vote shares of the last w + 1 estimates, oldest first; the store's come first.
        self._history = {
            key: [_shares(label)] if comparable else [] for key, label in labels.items()
        }
        self._pending: dict[str, list[tuple[Parse, float | None]]] = {}

    @property
    def labels(self) -> Mapping[str, PseudoLabel]:
        """The labels as they are now, by input id."""
        return self._labels

    @property
    def settings(self) -> RefreshSettings:
        """When and from what."""
        return self._settings

    @property
    def posteriors(self) -> Mapping[str, PosteriorOf]:
        """The type evidence of each input as it is now."""
        return self._posteriors

    def renew_types(
        self, chosen: Mapping[str, Mapping[str, str]], posteriors: Mapping[str, PosteriorOf]
    ) -> None:
        """Take a teacher's evidence of types, ahead of the answers that it is about.

        Args:
            chosen: by input id, the type of each span (normalised text); empty where completions
                keep the types that they state.
            posteriors: by input id.

        Raises:
            KeyError: an input has no label.
        """
        for key in (*chosen, *posteriors):
            if key not in self._labels:
                raise KeyError(key)
        self._chosen_types.update(chosen)
        self._posteriors.update(posteriors)
        self._renewed.update(posteriors)

    def observe(
        self, input_id: str, parses: Iterable[Parse], mean_logprobs: Iterable[float | None]
    ) -> None:
        """Take completions of an input as evidence for the next refresh.

        Raises:
            KeyError: the input has no label.
            ValueError: there is not one log-probability (or None) a completion.
        """
        if input_id not in self._labels:
            raise KeyError(input_id)
        typed = with_types(list(parses), self._chosen_types.get(input_id, {}))
        pairs = list(zip(typed, mean_logprobs, strict=True))
        self._pending.setdefault(input_id, []).extend(pairs)

    def is_due(self, step: int) -> bool:
        """Return whether a refresh follows a step (counted from 1)."""
        every = self._settings.every_steps
        return every > 0 and step > 0 and step % every == 0

    def refresh(self, step: int) -> Refreshed:
        """Estimate confidence again for every input with enough evidence, and flip labels.

        Args:
            step: the step just done, for the records.
        """
        before = {key: label.confidence for key, label in self._labels.items()}
        changed: dict[str, PseudoLabel] = {}
        records = []
        estimated = 0
        for key in sorted(self._pending):
            pairs = self._pending[key]
            if len(pairs) < self._settings.min_completions:
                continue
            del self._pending[key]
            estimated += 1
            record = self._update(key, [p for p, _ in pairs], [value for _, value in pairs])
            if record is not None:
                changed[key] = self._labels[key]
                records.append({"step": step, "kind": "flip", **record})
        after = {key: label.confidence for key, label in self._labels.items()}
        records.append(
            {
                "step": step,
                "kind": "refresh",
                "source": self._settings.source,
                "inputs": len(self._labels),
                "estimated": estimated,
                "flips": len(changed),
                "confidence_before": _mean(before.values()),
                "confidence_after": _mean(after.values()),
            }
        )
        return Refreshed(after, changed, tuple(records))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later refreshes depend on, as plain JSON values."""
        return {
            "labels": {
                key: {
                    "entities": _pairs(label.entities),
                    "abstained": _pairs(label.abstained),
                    "votes": [[e.text, e.type, share] for e, share in label.votes],
                    "confidence": label.confidence,
                }
                for key, label in self._labels.items()
            },
            "history": {
                key: [[[*mention, share] for mention, share in sorted(t.items())] for t in tables]
                for key, tables in self._history.items()
            },
            "pending": {
                key: [
                    [p.outcome, _pairs(p.entities), p.num_unknown_types, value]
                    for p, value in pairs
                ]
                for key, pairs in self._pending.items()
            },
            "chosen_types": {key: dict(types) for key, types in self._chosen_types.items()},
            "posteriors": {
                key: [[*mention, value] for mention, value in sorted(known.items())]
                for key, known in self._posteriors.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: the state belongs to other inputs.
        """
        if set(state["labels"]) != set(self._labels):
            raise ValueError("the saved state belongs to other inputs")
        for key, saved in state["labels"].items():
            self._labels[key] = replace(
                self._labels[key],
                entities=_entities(saved["entities"]),
                abstained=_entities(saved["abstained"]),
                votes=tuple((Entity(text, kind), share) for text, kind, share in saved["votes"]),
                confidence=saved["confidence"],
            )
        self._history = {
            key: [{(text, kind): share for text, kind, share in table} for table in tables]
            for key, tables in state["history"].items()
        }
        self._pending = {
            key: [
                (Parse(outcome, _entities(found), unknown), value)
                for outcome, found, unknown, value in pairs
            ]
            for key, pairs in state["pending"].items()
        }
        self._chosen_types = dict(state["chosen_types"])
        self._posteriors = {
            key: {(text, kind): value for text, kind, value in known}
            for key, known in state["posteriors"].items()
        }

    def _update(
        self, key: str, parses: Sequence[Parse], logprobs: Sequence[float | None]
    ) -> dict[str, Any] | None:
        """Estimate one input again; return the record of a flip, or None."""
        label = self._labels[key]
        if "type_posterior" in self._labeller.metrics and key not in self._renewed:
            # Nobody was asked for types: votes are tracked, the confidence stays.
            votes = replace(self._labeller, metric="entity_vote", combination=None)(
                key, parses, logprobs
            )
            estimate = replace(votes, metric=label.metric, confidence=label.confidence)
        else:
            estimate = self._labeller(key, parses, logprobs, self._posteriors[key])
            self._renewed.discard(key)
        estimate = self._fitted(estimate)
        tables = [*self._history[key], _shares(estimate)][-self._settings.window - 1 :]
        self._history[key] = tables
        entities = label.entities
        if len(tables) > self._settings.window:
            entities = guarded(
                label.entities,
                estimate.entities,
                tables,
                whole=self._labeller.rule == "majority",
                spans=self._chosen_types.get(key, {}),
            )
        sure = estimate.confidence
        if canonical(entities) != canonical(estimate.entities):
            sure = _confidence_in(entities, estimate, parses)
        self._labels[key] = replace(label, entities=entities, votes=estimate.votes, confidence=sure)
        if canonical(entities) == canonical(label.entities):
            return None
        kept = set(canonical(entities))
        abstained = tuple(e for e in estimate.abstained if canonical([e])[0] not in kept)
        self._labels[key] = replace(self._labels[key], abstained=abstained)
        return self._record(key, label, tables)

    def _record(self, key: str, before: PseudoLabel, tables: Sequence[Shares]) -> dict[str, Any]:
        after = self._labels[key]
        moved = set(canonical(before.entities)) ^ set(canonical(after.entities))
        return {
            "input_id": key,
            "source": self._settings.source,
            "before": _pairs(before.entities),
            "after": _pairs(after.entities),
            "shares": [
                [e.text, e.type, [table.get((e.text, e.type), 0.0) for table in tables]]
                for e in sorted(moved)
            ],
            "confidence_before": before.confidence,
            "confidence_after": after.confidence,
        }


def _confidence_in(
    entities: tuple[Entity, ...], estimate: PseudoLabel, parses: Sequence[Parse]
) -> float:
    """Return how sure the evidence is of a label that is not its own choice.

    That is the label's own support: mean vote share of its entities, or for a majority answer and
    for an empty label the share of completions that say exactly it. Under another metric than
    ``entity_vote`` it is also at most the confidence of the estimate.
    """
    form = canonical(entities)
    if estimate.rule == "entity_vote" and form:
        shares = _shares(estimate)
        distinct = sorted(set(form))
        support = math.fsum(shares.get((e.text, e.type), 0.0) for e in distinct) / len(distinct)
    else:
        same = [p for p in parses if p.outcome != "invalid" and canonical(p.entities) == form]
        support = len(same) / len(parses)
    return support if estimate.metric == "entity_vote" else min(support, estimate.confidence)


def _shares(label: PseudoLabel) -> dict[Mention, float]:
    """Return vote shares by normalised mention."""
    return {(mention_key(entity.text), entity.type): share for entity, share in label.votes}


def _pairs(entities: Iterable[Entity]) -> list[list[str]]:
    return [[entity.text, entity.type] for entity in entities]


def _entities(pairs: Iterable[Sequence[str]]) -> tuple[Entity, ...]:
    return tuple(Entity(text, kind) for text, kind in pairs)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else 0.0

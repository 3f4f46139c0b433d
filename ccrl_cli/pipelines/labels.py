"""Pseudo-labels of a run, derived from its completion store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ccrl_cli.core.agreement import Labeller, pool
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.records import Example, Parse, PseudoLabel
from ccrl_cli.store.completions import CompletionStore

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.pipelines.domains import Domain

Samples = tuple[list[Parse], list[float | None]]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Pseudo-labels of the target's training inputs.

    Attributes:
        labels: pseudo-label by input id, in the order of the data.
        examples: the inputs, gold labels removed.
        num_missing: training inputs without completions in the store.
        num_invalid: completions that did not parse.
        num_completions: completions read.
        models: models whose completions were pooled.
        reportable: False when a mock backend made any of them.
    """

    labels: Mapping[str, PseudoLabel]
    examples: Mapping[str, Example]
    num_missing: int
    num_invalid: int
    num_completions: int
    models: tuple[str, ...]
    reportable: bool

    @property
    def confidence(self) -> dict[str, float]:
        """Confidence by input id."""
        return {key: label.confidence for key, label in self.labels.items()}


def load_labels(profile: Profile, domain: Domain) -> LabelSet:
    """Derive the pseudo-labels of the target's training inputs from the store.

    Raises:
        PreconditionError: there is no store, or it has no completion of these inputs.
        UsageError: ``confidence.models`` names a model that the store does not hold.
        IntegrityError: the store is damaged.
    """
    path = profile.store_path
    hint = "run `ccrl generate` first, or `ccrl run` for everything"
    if not path.exists():
        raise PreconditionError(f"there is no completion store at {path}", hint=hint)
    store = CompletionStore(path)
    wanted = _models(profile, store)
    inputs = {e.id: e for e in domain.training_inputs()[0]}
    samples: dict[str, list[Samples]] = {}
    for record in store.records(wanted):
        if record.input_id in inputs:
            parses = [parse_completion(c.text, domain.names.by_name) for c in record.completions]
            logprobs = [c.mean_logprob for c in record.completions]
            samples.setdefault(record.input_id, []).append((parses, logprobs))
    if not samples:
        raise PreconditionError(f"{path} has no completions of this target", hint=hint)
    labeller = _labeller(profile, domain)
    labels = {}
    for input_id in inputs:
        if input_id in samples:
            parses, logprobs = pool(samples[input_id])
            labels[input_id] = labeller(input_id, parses, logprobs)
    return LabelSet(
        labels=labels,
        examples={key: inputs[key].without_gold() for key in labels},
        num_missing=len(inputs) - len(labels),
        num_invalid=sum(label.num_invalid for label in labels.values()),
        num_completions=sum(label.num_completions for label in labels.values()),
        models=wanted,
        reportable=not any(model.startswith("mock:") for model in wanted),
    )


def _models(profile: Profile, store: CompletionStore) -> tuple[str, ...]:
    """Return the models of the store whose votes are pooled."""
    strangers = [name for name in profile.confidence.models if name not in store.models]
    if strangers:
        raise UsageError(
            f"{store.path} has no completions by {strangers[0]!r}",
            hint=f"confidence.models may name {', '.join(store.models)}",
        )
    return profile.confidence.models or store.models


def _labeller(profile: Profile, domain: Domain) -> Labeller:
    section = profile.confidence
    return Labeller(
        rule=section.label,
        metric=section.metric,
        positive=section.positive,
        negative=section.negative,
        types=frozenset(domain.labels),
    )

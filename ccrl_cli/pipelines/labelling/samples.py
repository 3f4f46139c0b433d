"""Completions of a split as the learning core takes them: parsed, pooled over models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ccrl_cli.core.agreement import pool
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.type_evidence import with_types
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.pipelines.common.domains import TRAINING, Inputs
from ccrl_cli.records import Example, Parse, Record
from ccrl_cli.store.completions import CompletionStore

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.pipelines.common.domains import Domain

Samples = tuple[list[Parse], list[float | None]]


@dataclass(frozen=True, slots=True)
class SampleSet:
    """Parsed completions of the inputs of one split.

    Attributes:
        samples: parses and mean log-probabilities by input id, in the order of the data.
        examples: all inputs of the split by id, gold labels included.
        num_missing: inputs without completions in the store.
        models: models whose completions were pooled.
    """

    samples: Mapping[str, Samples]
    examples: Mapping[str, Example]
    num_missing: int
    models: tuple[str, ...]

    @property
    def reportable(self) -> bool:
        """Whether no mock backend made any of them."""
        return not any(model.startswith("mock:") for model in self.models)

    @property
    def parses(self) -> dict[str, list[Parse]]:
        """The completions by input id, without their log-probabilities."""
        return {key: parses for key, (parses, _) in self.samples.items()}

    def with_types(self, chosen: Mapping[str, Mapping[str, str]]) -> SampleSet:
        """Return the same completions under the types that are given for their spans, by input."""
        samples = {
            key: (with_types(parses, chosen[key]), logprobs)
            for key, (parses, logprobs) in self.samples.items()
        }
        return replace(self, samples=samples)


def load_samples(profile: Profile, domain: Domain, inputs: Inputs = TRAINING) -> SampleSet:
    """Read the completions of a split from the profile's store.

    Args:
        profile: the profile.
        domain: whose sentences; that of `inputs`.
        inputs: which of them.

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
    examples = domain.unique_inputs(inputs.split)[0]
    wanted_inputs = {example.id: example for example in examples}
    groups: dict[str, list[Samples]] = {}
    for record in store.records(wanted):
        if record.input_id in wanted_inputs:
            groups.setdefault(record.input_id, []).append(_parse(record, domain.names.by_name))
    if not groups:
        if inputs != TRAINING:
            hint = f"run `ccrl generate --split {inputs} --resume` first"
        raise PreconditionError(
            f"{path} has no completions of the {inputs.split} split of this {inputs.role}",
            hint=hint,
        )
    samples = {key: pool(groups[key]) for key in wanted_inputs if key in groups}
    return SampleSet(samples, wanted_inputs, len(wanted_inputs) - len(samples), wanted)


def _parse(record: Record, types: Mapping[str, str]) -> Samples:
    """Parse the completions of a record; equal texts are parsed once."""
    known: dict[tuple[str, str], Parse] = {}
    parses = []
    for completion in record.completions:
        key = completion.text, completion.finish
        parse = known.get(key)
        if parse is None:
            parse = known[key] = parse_completion(completion.text, types, completion.finish)
        parses.append(parse)
    return parses, [completion.mean_logprob for completion in record.completions]


def _models(profile: Profile, store: CompletionStore) -> tuple[str, ...]:
    """Return the models of the store whose votes are pooled."""
    unknown = [name for name in profile.confidence.models if name not in store.models]
    if unknown:
        raise UsageError(
            f"{store.path} has no completions by {unknown[0]!r}",
            hint=f"confidence.models may name {', '.join(store.models)}",
        )
    return profile.confidence.models or store.models

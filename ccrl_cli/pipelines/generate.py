"""Generate: K completions of each owed input, on disk as soon as they are done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from ccrl_cli.core.agreement import Labeller
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.generators.base import Generated, GenerationRequest, Generator
from ccrl_cli.pipelines.backends import (
    make_generator,
    pick_backend,
    prepare_model,
    sampling_identity,
)
from ccrl_cli.pipelines.domains import Domain, load_domain
from ccrl_cli.records import Example, Record
from ccrl_cli.store.completions import CompletionStore

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """Flags of ``ccrl generate`` that are no part of a profile."""

    resume: bool = False
    overwrite: bool = False
    skip: Literal["pair", "input"] = "pair"
    max_samples: int | None = None
    shard: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """What was generated.

    Attributes:
        store: file of the completions.
        generated: new records, by model.
        already_stored: inputs that were not owed, by model.
        records: pairs in the store now.
        tokens: sampled tokens.
        seconds: wall time of sampling, models' loading included.
        duplicates: inputs left out because an equal text came before, or is in the test split.
        reportable: False with a mock backend or a cut set of inputs.
    """

    store: str
    generated: dict[str, int]
    already_stored: dict[str, int]
    records: int
    tokens: int
    seconds: float
    duplicates: int
    reportable: bool


def generate(profile: Profile, options: GenerateOptions, *, reporter: Reporter) -> GenerateResult:
    """Sample K completions of each owed target input with each model of the profile.

    Raises:
        UsageError: the store is not empty and nothing says what to do with it.
        PreconditionError: a model, a package or the types are missing.
        IntegrityError: the store contradicts the profile or itself.
    """
    started = time.perf_counter()
    domain = load_domain(profile, "target")
    examples, dropped = domain.training_inputs()
    backend, reason = pick_backend(profile)
    reporter.debug(f"backend {backend}: {reason}")
    made: dict[str, int] = {}
    stored: dict[str, int] = {}
    tokens = 0
    with CompletionStore(profile.store_path, shard=options.shard) as store:
        if store.torn_bytes:
            reporter.warn(f"{store.path}: cut off a torn last line of {store.torn_bytes} bytes")
        for model in profile.generation_models:
            maker = _ModelRun(profile, domain, model, backend, reporter)
            count, sampled, skipped = maker.run(store, examples, options)
            made[model], stored[model] = count, skipped
            tokens += sampled
        total = len(store)
    cut = options.max_samples is not None or profile.data.target.max_train_samples is not None
    return GenerateResult(
        store=str(store.path),
        generated=made,
        already_stored=stored,
        records=total,
        tokens=tokens,
        seconds=round(time.perf_counter() - started, 3),
        duplicates=dropped,
        reportable=backend != "mock" and not cut,
    )


class _ModelRun:
    """Generation by one model of the profile."""

    def __init__(
        self, profile: Profile, domain: Domain, model: str, backend: str, reporter: Reporter
    ) -> None:
        self.profile = profile
        self.domain = domain
        self.backend = backend
        self.reporter = reporter
        self.model = model if backend != "mock" else f"mock:{model}"
        self._reference = model
        self._start = prepare_model(profile, backend, model, reporter)
        confidence = profile.confidence
        self._labeller = Labeller(
            rule=confidence.label,
            metric=confidence.metric,
            positive=confidence.positive,
            negative=confidence.negative,
            types=frozenset(domain.labels),
        )

    def identity(self) -> dict[str, Any]:
        """Settings that a stored pair must agree with to count as done."""
        return {
            "model_revision": self._start.revision if self._start else None,
            "adapter": self._start.adapter_digest if self._start else None,
            "prompt": self.domain.prompt_digest,
            "labels": self.domain.labels_digest,
            "sampling": sampling_identity(self.profile, self.backend),
        }

    def run(
        self, store: CompletionStore, examples: Sequence[Example], options: GenerateOptions
    ) -> tuple[int, int, int]:
        """Generate what is owed; return new records, sampled tokens and inputs not owed."""
        identity = self.identity()
        owed = store.owed(
            [example.id for example in examples],
            self.model,
            identity,
            resume=options.resume,
            overwrite=options.overwrite,
            skip=options.skip,
            max_samples=options.max_samples,
        )
        considered = min(len(examples), options.max_samples or len(examples))
        if not owed:
            return 0, 0, considered
        by_id = {example.id: example for example in examples}
        tokens = 0
        with closing(self._generator([by_id[i] for i in owed])) as generator:
            requests = [self._request(by_id[i], generator.special_tokens) for i in owed]
            identity |= {"backend": generator.name, "versions": dict(generator.details)}
            started = time.perf_counter()
            with self.reporter.progress(len(owed), f"generate with {self.model}") as progress:
                for generated in generator.generate(requests):
                    record = self._record(by_id[generated.input_id], generated, identity)
                    store.append(record, overwrite=options.overwrite)
                    tokens += sum(c.num_tokens for c in generated.completions)
                    rate = tokens / (time.perf_counter() - started)
                    progress.advance(1, **{"tokens/s": f"{rate:.0f}"})
        return len(owed), tokens, considered - len(owed)

    def _request(self, example: Example, special: Sequence[str]) -> GenerationRequest:
        count = self.profile.generation.num_completions
        seed = self.profile.run.seed
        return GenerationRequest(
            example.id,
            tuple(
                self.domain.prompt(example, sample=k, special_tokens=special) for k in range(count)
            ),
            tuple(derive_seed(seed, "completion", self.model, example.id, k) for k in range(count)),
        )

    def _record(self, example: Example, generated: Generated, identity: dict[str, Any]) -> Record:
        parses = [
            parse_completion(completion.text, self.domain.names.by_name)
            for completion in generated.completions
        ]
        label = self._labeller(example.id, parses, [c.mean_logprob for c in generated.completions])
        return Record(
            input_id=example.id,
            text=example.text,
            model=self.model,
            completions=generated.completions,
            identity=identity,
            pseudo_label=label.entities,
            confidence=label.confidence,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(generated.seconds, 3),
        )

    def _generator(self, examples: Sequence[Example]) -> Generator:
        return make_generator(
            self.profile, self.backend, self._reference, self._start, self.domain, examples
        )

"""Generate: K completions of each owed input, on disk as soon as they are done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.errors import PreconditionError
from ccrl_cli.generators.base import Generated, GenerationRequest, Generator, SamplingSettings
from ccrl_cli.generators.registry import backend_class, choose_backend
from ccrl_cli.pipelines.domains import TRAINING, Domain, Inputs, load_domain
from ccrl_cli.pipelines.labels import stored_labeller
from ccrl_cli.pipelines.start import Start, starting_policy
from ccrl_cli.records import Entity, Example, Record
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
    inputs: Inputs = TRAINING


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
    """Sample K completions of each owed input with each model of the profile.

    By default of the target's training split; other splits share the store, since records are
    kept by the content of their input.

    Raises:
        UsageError: the store is not empty and nothing says what to do with it.
        PreconditionError: a model, a package or the types are missing.
        IntegrityError: the store contradicts the profile or itself.
    """
    started = time.perf_counter()
    domain = load_domain(profile, options.inputs.role)
    examples, dropped = domain.inputs(options.inputs.split)
    backend, reason = choose_backend(profile.generation.backend)
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
        self._start = self._prepare()
        self._labeller = stored_labeller(profile, domain)

    def _prepare(self) -> Start | None:
        """Have the model on disk, so that its revision is known; None for the mock backend."""
        if self.backend == "mock":
            return None
        return starting_policy(self.profile, self._reference, self.reporter)

    def identity(self) -> dict[str, Any]:
        """Settings that a stored pair must agree with to count as done."""
        generation = self.profile.generation
        return {
            "model_revision": self._start.revision if self._start else None,
            "adapter": self._start.adapter_digest if self._start else None,
            "prompt": self.domain.prompt_digest,
            "labels": self.domain.labels_digest,
            "sampling": {
                "k": generation.num_completions,
                "temperature": generation.temperature,
                "top_p": generation.top_p,
                "max_tokens": generation.max_tokens,
                "seed": self.profile.run.seed,
            },
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
        maker = backend_class(self.backend)
        if self.backend == "mock":
            if any(example.gold is None for example in examples):
                raise PreconditionError(
                    "the mock backend corrupts gold labels, and this data set has none",
                    hint="choose --backend transformers, or a labelled data set",
                )
            shown = {
                example.id: [
                    Entity(e.text, self.domain.names.name(e.type)) for e in example.gold_entities()
                ]
                for example in examples
            }
            mock: Generator = maker(
                shown, [self.domain.names.name(label) for label in self.domain.labels]
            )
            return mock
        assert self._start is not None
        generation, model = self.profile.generation, self.profile.model
        settings = SamplingSettings(
            generation.temperature, generation.top_p, generation.max_tokens, generation.batch_size
        )
        generator: Generator = maker(
            self._start.folder,
            settings,
            adapter=self._start.adapter,
            dtype=model.dtype,
            load_in_4bit=model.load_in_4bit,
            attention=model.attention,
        )
        return generator

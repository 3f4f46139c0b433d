"""Generate: K completions of each owed input, on disk as soon as they are done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.errors import PartialError, PreconditionError
from ccrl_cli.generators.base import Generated, GenerationRequest, Generator
from ccrl_cli.pipelines.common.domains import TRAINING, Domain, Inputs, load_domain
from ccrl_cli.pipelines.generation.backends import (
    generator_recipe,
    make_generator,
    pick_backend,
    prepare_model,
    sampling_identity,
)
from ccrl_cli.pipelines.generation.watch import AnswerWatch
from ccrl_cli.pipelines.labelling.labels import stored_labeller
from ccrl_cli.records import Example, Parse, Record
from ccrl_cli.store.completions import CompletionStore

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import SplitReader
    from ccrl_cli.reporting import Reporter


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """Flags of ``ccrl generate`` that are no part of a profile."""

    resume: bool = False
    overwrite: bool = False
    skip: Literal["pair", "input"] = "pair"
    max_samples: int | None = None
    shard: tuple[int, int] | None = None
    ray: str | None = None
    inputs: Inputs = TRAINING


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """What was generated.

    Attributes:
        store: file of the completions.
        generated: new records, by model.
        already_stored: inputs (of the shard) that were not owed, by model.
        records: pairs in the store now.
        tokens: sampled tokens.
        seconds: wall time of sampling, models' loading included.
        duplicates: inputs left out because an equal text came before, or is in the test split.
        too_long: inputs left out because the model has no room for their prompt, over all models.
        reportable: False with a mock backend or a cut set of inputs.
    """

    store: str
    generated: dict[str, int]
    already_stored: dict[str, int]
    records: int
    tokens: int
    seconds: float
    duplicates: int
    too_long: int
    reportable: bool


@dataclass(slots=True)
class ModelResult:
    """Counts of one model, while they grow: inputs stored before, generated, too long; tokens."""

    stored: int = 0
    generated: int = 0
    too_long: int = 0
    tokens: int = 0


def generate(
    profile: Profile,
    options: GenerateOptions,
    *,
    reporter: Reporter,
    data: SplitReader | None = None,
) -> GenerateResult:
    """Sample K completions of each owed input with each model of the profile.

    By default of the target's training split; other splits share the store, since records are
    kept by the content of their input.

    Args:
        profile: the profile.
        options: flags.
        reporter: told of progress.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        UsageError: the store is not empty and nothing says what to do with it.
        PreconditionError: a model, a package or the types are missing.
        IntegrityError: the store contradicts the profile or itself.
    """
    started = time.perf_counter()
    domain = load_domain(profile, options.inputs.role, data)
    examples, dropped = domain.unique_inputs(options.inputs.split)
    backend, reason = pick_backend(profile)
    reporter.debug(f"backend {backend}: {reason}")
    made: dict[str, int] = {}
    stored: dict[str, int] = {}
    tokens = too_long = 0
    with CompletionStore(profile.store_path, shard=options.shard) as store:
        if store.torn_bytes:
            reporter.warn(f"{store.path}: cut off a torn last line of {store.torn_bytes} bytes")
        for model in profile.generation_models:
            maker = _ModelRun(profile, domain, model, backend, reporter)
            found = maker.run(store, examples, options)
            made[model], stored[model] = found.generated, found.stored
            tokens += found.tokens
            too_long += found.too_long
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
        too_long=too_long,
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
        self._labeller = stored_labeller(profile, domain)

    def identity(self) -> dict[str, Any]:
        """Settings that a stored pair must agree with to count as done."""
        return {
            "model_revision": self._start.revision if self._start else None,
            "adapter": self._start.digest if self._start else None,
            "prompt": self.domain.prompt_digest,
            "labels": self.domain.labels_digest,
            "sampling": sampling_identity(self.profile, self.backend),
        }

    def run(
        self, store: CompletionStore, examples: Sequence[Example], options: GenerateOptions
    ) -> ModelResult:
        """Generate what is owed and store it, input by input.

        Raises:
            PartialError: the backend failed when some inputs had been stored.
        """
        identity = self.identity()
        ids = [example.id for example in examples]
        owed = store.owed(
            ids,
            self.model,
            identity,
            resume=options.resume,
            overwrite=options.overwrite,
            skip=options.skip,
            max_samples=options.max_samples,
        )
        found = ModelResult(stored=store.count_considered(ids, options.max_samples) - len(owed))
        if not owed:
            return found
        by_id = {example.id: example for example in examples}
        recipe = generator_recipe(
            self.profile,
            self.backend,
            self._reference,
            self._start,
            self.domain,
            [by_id[i] for i in owed],
        )
        try:
            with closing(make_generator(recipe, self.profile, options.ray)) as generator:
                requests = [self._request(by_id[i], generator.special_tokens) for i in owed]
                kept = self._without_long(requests)
                found.too_long = len(requests) - len(kept)
                self._store_all(generator, kept, by_id, store, options.overwrite, found)
        except (PreconditionError, MemoryError) as error:
            raise _stopped(error, found.generated, len(owed)) from error
        return found

    def _store_all(
        self,
        generator: Generator,
        requests: Sequence[GenerationRequest],
        examples: Mapping[str, Example],
        store: CompletionStore,
        overwrite: bool,
        found: ModelResult,
    ) -> None:
        """Write each input when the generator hands it out; count into ``found``."""
        identity = self.identity() | {"backend": generator.name}
        if hasattr(generator, "tell"):
            generator.tell = self.reporter.warn
        watch = AnswerWatch(
            self.reporter,
            self.profile.generation.max_tokens,
            needs_logprobs=self.profile.confidence.metric == "logprob",
        )
        started = time.perf_counter()
        with self.reporter.progress(len(requests), f"generate with {self.model}") as progress:
            for generated in generator.generate(requests):
                identity["versions"] = dict(generator.details)
                record, parses = self._record(examples[generated.input_id], generated, identity)
                store.append(record, overwrite=overwrite)
                found.generated += 1
                watch.add(record.completions, parses)
                found.tokens += sum(c.num_tokens for c in generated.completions)
                rate = found.tokens / (time.perf_counter() - started)
                progress.advance(1, **{"tokens/s": f"{rate:.0f}"})
        watch.end()
        if found.generated < len(requests):
            raise PartialError(
                f"the {generator.name} backend returned {found.generated} of {len(requests)} "
                "inputs",
                hint="what it returned is stored: go on with --resume",
            )

    def _without_long(self, requests: Sequence[GenerationRequest]) -> Sequence[GenerationRequest]:
        """Leave out inputs whose prompt the model has no room for, and say so."""
        if self._start is None:  # servers and the mock backend: no tokenizer here
            return requests
        from ccrl_cli.models.context import PromptMeter

        generation = self.profile.generation
        meter = PromptMeter(
            self._start.folder,
            max_tokens=generation.max_tokens,
            max_prompt_tokens=generation.max_prompt_tokens,
        )
        fitting = [request for request in requests if meter.fits(request.prompts[:1])]
        if len(fitting) < len(requests):
            kept = {request.input_id for request in fitting}
            first = next(r.input_id for r in requests if r.input_id not in kept)
            self.reporter.warn(
                f"{len(requests) - len(fitting)} inputs are left out: their prompts have more "
                f"than {meter.room} tokens (generation.max_prompt_tokens, and the context of the "
                f"model less max_tokens); the first is input {first}"
            )
        return fitting

    def _request(self, example: Example, special: Sequence[str]) -> GenerationRequest:
        count = self.profile.generation.num_completions
        seed = self.profile.run.seed
        return GenerationRequest(
            example.id,
            self.domain.sample_prompts(example, count, special_tokens=special),
            tuple(derive_seed(seed, "completion", self.model, example.id, k) for k in range(count)),
        )

    def _record(
        self, example: Example, generated: Generated, identity: Mapping[str, Any]
    ) -> tuple[Record, list[Parse]]:
        parses = [
            parse_completion(completion.text, self.domain.names.by_name, completion.finish)
            for completion in generated.completions
        ]
        label = self._labeller(example.id, parses, [c.mean_logprob for c in generated.completions])
        record = Record(
            input_id=example.id,
            text=example.text,
            model=self.model,
            completions=generated.completions,
            identity=dict(identity),
            pseudo_label=label.entities,
            confidence=label.confidence,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(generated.seconds, 3),
        )
        return record, parses


def _stopped(error: Exception, done: int, owed: int) -> Exception:
    """Return the error of a backend that failed: partial once there is something to resume."""
    message = getattr(error, "message", "memory ran out")
    hint = getattr(error, "hint", None) or "lower generation.batch_size"
    if done:
        return PartialError(
            f"stopped when {done} of {owed} inputs were stored: {message}",
            hint=f"{hint}; then go on with --resume",
        )
    if isinstance(error, PreconditionError):
        return error
    return PreconditionError(f"the backend failed: {message}", hint=hint)

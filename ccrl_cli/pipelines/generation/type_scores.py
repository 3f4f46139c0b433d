"""Type scores: the model is asked for the type of every span that its completions name."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.core.type_evidence import (
    CONTENT_FREE,
    SpanScore,
    mean_scores,
)
from ccrl_cli.data.type_prompts import TypePrompt
from ccrl_cli.generators.registry import SERVERS
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.common.domains import TRAINING, Domain, Inputs, load_domain
from ccrl_cli.pipelines.common.weights import load_options, starting_weights
from ccrl_cli.pipelines.generation.backends import pick_backend
from ccrl_cli.pipelines.labelling.samples import load_samples
from ccrl_cli.pipelines.labelling.type_evidence import (
    lacks_spans,
    score_identity,
    spans_of,
    type_prompts,
)
from ccrl_cli.store.jsonl import JsonlWriter
from ccrl_cli.store.type_scores import TypeScores, read_type_scores, type_scores_path

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import SplitReader
    from ccrl_cli.models.loading import LoadedModel
    from ccrl_cli.reporting import Reporter

INPUTS_A_CHUNK = 64
"""Inputs whose scores reach the disk together."""


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """What was scored.

    Attributes:
        path: file of the scores.
        scored: inputs scored now.
        already_scored: inputs that had all their scores.
        spans: spans scored now.
        types: type names asked for, for each span.
        seconds: wall time, loading the model included.
    """

    path: str
    scored: int
    already_scored: int
    spans: int
    types: int
    seconds: float


def score_types(
    profile: Profile,
    inputs: Inputs = TRAINING,
    *,
    reporter: Reporter,
    data: SplitReader | None = None,
) -> ScoreResult:
    """Score the type of every span that the stored completions of some inputs name.

    The scores lie beside the store; what is there already is not scored again.

    Args:
        profile: the profile.
        inputs: which inputs.
        reporter: told of progress.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        PreconditionError: completions, a model or a package are missing.
        IntegrityError: the store or the scores are damaged.
    """
    started = time.perf_counter()
    domain = load_domain(profile, inputs.role, data)
    found = load_samples(profile, domain, inputs)
    start = starting_weights(profile, profile.model.name, reporter)
    spans = spans_of(found.examples, found.parses)
    place = ScoreFile.of(profile, domain, start, type_scores_path(profile.store_path))
    texts = {key: found.examples[key].text for key in spans}
    owed = fill_scores(place, texts, spans, lambda: _load_asker(profile, domain, start), reporter)
    return ScoreResult(
        path=str(place.path),
        scored=len(owed),
        already_scored=len(spans) - len(owed),
        spans=sum(len(spans[key]) for key in owed),
        types=len(domain.labels),
        seconds=round(time.perf_counter() - started, 3),
    )


@dataclass(frozen=True, slots=True)
class ScoreFile:
    """A file of type scores, and what those that count were made with.

    Attributes:
        path: the file.
        model: name of the model.
        identity: weights, prompt and labels.
        types: T type identifiers, in the order of the scores.
    """

    path: Path
    model: str
    identity: Mapping[str, Any]
    types: tuple[str, ...]

    @classmethod
    def of(cls, profile: Profile, domain: Domain, weights: Weights, path: Path) -> ScoreFile:
        """Return the file of what some weights say of a domain."""
        identity = {**score_identity(profile, domain), **_weights(weights)}
        return cls(path, profile.model.name, identity, domain.labels)

    def read(self) -> dict[str, TypeScores]:
        """Return the scores that count, by input id."""
        return read_type_scores(self.path, self.model, self.identity)


def fill_scores(
    place: ScoreFile,
    texts: Mapping[str, str],
    spans: Mapping[str, Sequence[str]],
    make_asker: Callable[[], TypeAsker],
    reporter: Reporter,
) -> frozenset[str]:
    """Score what a file lacks, on disk chunk by chunk.

    Args:
        place: the file.
        texts: sentence by input id.
        spans: spans whose types are asked for, by input id.
        make_asker: loads the model; called if anything is owed.
        reporter: told of progress.

    Returns:
        Ids of the inputs that were scored now.
    """
    known = place.read()
    owed = {key for key in spans if key not in known or lacks_spans(known[key], spans[key])}
    if not owed:
        return frozenset()
    asker = make_asker()
    content_free = asker.content_free()
    with (
        JsonlWriter(place.path) as writer,
        reporter.progress(len(owed), "score types", unit="inputs") as progress,
    ):
        for chunk in _chunks(list(spans), owed):
            scores = asker.score({key: texts[key] for key in chunk}, spans)
            missing = [key for key in chunk if key in owed]
            for key in missing:
                made = TypeScores(
                    input_id=key,
                    model=place.model,
                    identity=place.identity,
                    types=place.types,
                    content_free=content_free,
                    spans=scores[key],
                )
                writer.append(made.to_json())
            progress.advance(len(missing))
    return frozenset(owed)


def _chunks(keys: Sequence[str], owed: Collection[str]) -> Iterator[Sequence[str]]:
    """Yield the chunks that hold an owed input, whole.

    What is scored together must not depend on where an earlier call was killed: scores of other
    batches differ by rounding.
    """
    for first in range(0, len(keys), INPUTS_A_CHUNK):
        chunk = keys[first : first + INPUTS_A_CHUNK]
        if any(key in owed for key in chunk):
            yield chunk


def score_types_if_needed(
    profile: Profile,
    inputs: Inputs = TRAINING,
    *,
    reporter: Reporter,
    data: SplitReader | None = None,
) -> ScoreResult | None:
    """Score types where the profile's labels are taken from type scores, and a model can be asked.

    A server's model cannot be, and mock completions have none; None where nothing was to do.

    Raises:
        PreconditionError: as `score_types` does.
    """
    if not profile.confidence.reads_type_scores:
        return None
    if pick_backend(profile)[0] in {*SERVERS, "mock"}:
        return None
    return score_types(profile, inputs, reporter=reporter, data=data)


def _load_asker(profile: Profile, domain: Domain, start: Weights) -> TypeAsker:
    from ccrl_cli.models.loading import load_model

    return TypeAsker(profile, domain, load_model(start, load_options(profile)))


class TypeAsker:
    """Asks a loaded model, with the weights that it has at the moment, for types as a profile does.

    Args:
        profile: says how.
        domain: whose types.
        loaded: model in eval mode, and tokenizer.
    """

    def __init__(self, profile: Profile, domain: Domain, loaded: LoadedModel) -> None:
        self._loaded = loaded
        tokenizer = loaded.tokenizer
        self._prompts = type_prompts(
            profile, domain, tuple(tokenizer.all_special_tokens), str(tokenizer.eos_token)
        )
        self._rows = profile.generation.batch_size * len(domain.labels)

    def content_free(self) -> tuple[float, ...]:
        """Return the (T,) scores of a span and text that say nothing."""
        ((scores,),) = self._score([(CONTENT_FREE, (CONTENT_FREE,))])
        return scores.logprobs

    def score(
        self, texts: Mapping[str, str], spans: Mapping[str, Sequence[str]]
    ) -> dict[str, tuple[SpanScore, ...]]:
        """Return the scores of the spans of some inputs, by input id."""
        scores = self._score([(text, spans[key]) for key, text in texts.items()])
        return dict(zip(texts, scores, strict=True))

    def _score(self, asked: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[SpanScore, ...]]:
        ways = [
            score_spans(self._loaded, prompt, asked, batch_rows=self._rows)
            for prompt in self._prompts
        ]
        return [mean_scores(scores) for scores in zip(*ways, strict=True)]


def score_spans(
    loaded: LoadedModel,
    prompt: TypePrompt,
    asked: Sequence[tuple[str, Sequence[str]]],
    *,
    batch_rows: int,
) -> list[tuple[SpanScore, ...]]:
    """Return the scores of the spans of each text.

    Args:
        loaded: model and tokenizer.
        prompt: how types are asked for.
        asked: texts, each with its spans.
        batch_rows: (span, type) pairs in one forward pass.
    """
    from ccrl_cli.models.scoring import ScoringRequest, score_continuations

    questions = [prompt.ask(text, spans) for text, spans in asked]
    requests = [
        ScoringRequest(loaded.render(question.messages), question.continuations)
        for group in questions
        for question in group
    ]
    flat = iter(
        value
        for values in score_continuations(loaded, requests, batch_rows=batch_rows)
        for value in values
    )
    width = len(prompt.types)
    return [
        tuple(SpanScore(span, tuple(next(flat) for _ in range(width))) for span in spans)
        for _, spans in asked
    ]


def _weights(start: Weights) -> dict[str, Any]:
    return {"model_revision": start.revision, "adapter": start.digest}

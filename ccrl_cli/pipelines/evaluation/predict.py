"""Predict: entities of new texts, with a trained adapter or the starting weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccrl_cli.core.alignment import tokenize
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.pieces import split_text
from ccrl_cli.core.placing import align_in_text
from ccrl_cli.data.prompts import PromptTemplate, get_template, render
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.errors import UsageError
from ccrl_cli.generators.base import GenerationRequest, SamplingSettings
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.common.weights import find_weights, load_options
from ccrl_cli.records import Completion, Entity, Example

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.inputs import InputText
    from ccrl_cli.generators.transformers import TransformersGenerator
    from ccrl_cli.models.weights import Weights
    from ccrl_cli.reporting import Reporter

#: Longest piece of a text that is asked about at once: adapters are trained on sentences.
PIECE_CHARACTERS = 600


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """Flags of ``ccrl predict`` that are no part of a profile.

    Attributes:
        adapter: folder or ``builtin:NAME``; ``none``: the starting policy; None: the run's
            adapter, else the starting weights.
        types: types to look for; empty: those of the target domain.
        piece_characters: longest piece of a text that is asked about at once.
    """

    adapter: str | None = None
    types: tuple[str, ...] = ()
    piece_characters: int = PIECE_CHARACTERS


@dataclass(frozen=True, slots=True)
class PredictResult:
    """What was found.

    Attributes:
        model: model folder.
        adapter: adapter folder, or None.
        types: types that were looked for.
        rows: one object a text, in order: ``text``, ``entities`` with character offsets,
            ``hallucinated`` mentions, ``outcome`` (``valid``, ``repaired``, ``invalid``, or
            ``empty`` for a blank text that no model was asked about), and ``id`` where given.
        counts: texts, pieces, entities, hallucinated, and texts by outcome.
        seconds: wall time, loading included.
    """

    model: str
    adapter: str | None
    types: tuple[str, ...]
    rows: list[dict[str, Any]]
    counts: Mapping[str, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a text and where it begins."""

    text: str
    start: int


_WORST_FIRST = ("invalid", "repaired", "valid")


def predict(
    profile: Profile, inputs: Sequence[InputText], options: PredictOptions, *, reporter: Reporter
) -> PredictResult:
    """Find the entities of texts by greedy decoding.

    Args:
        profile: names the model, its run, the prompt and the target's types.
        inputs: the texts.
        options: flags.
        reporter: told of progress and of what could not be read.

    Raises:
        UsageError: the same type is asked for twice, or a piece cannot hold anything.
        PreconditionError: a model, an adapter, a package or the types are missing.
    """
    started = time.perf_counter()
    if options.piece_characters < 1:
        raise UsageError("a piece needs at least one character", hint="leave --piece out")
    names = _type_names(profile, options.types)
    weights = find_weights(profile, options.adapter, reporter)
    pieces = [_pieces(item.text, options.piece_characters) for item in inputs]
    wanted = list(dict.fromkeys(piece.text for parts in pieces for piece in parts))
    answers = _ask(profile, weights, names, wanted, reporter) if wanted else {}
    rows = [_row(item, parts, answers, names) for item, parts in zip(inputs, pieces, strict=True)]
    counts = _counts(rows, sum(map(len, pieces)))
    _warn(counts, reporter)
    return PredictResult(
        model=str(weights.folder),
        adapter=str(weights.adapter) if weights.adapter else None,
        types=names.identifiers,
        rows=rows,
        counts=counts,
        seconds=round(time.perf_counter() - started, 3),
    )


def _type_names(profile: Profile, types: tuple[str, ...]) -> TypeNames:
    """Return the types to look for with their names in prompts."""
    if not types:
        return load_domain(profile, "target").names
    if len(set(types)) < len(types):
        raise UsageError("--types names a type twice", hint="list each type once")
    return TypeNames.build(types, profile.data.type_names)


def _pieces(text: str, limit: int) -> list[_Piece]:
    """Return the parts of a text that hold something to read."""
    ranges = split_text(text, limit)
    return [_Piece(text[a:b], a) for a, b in ranges if text[a:b].strip()]


def _ask(
    profile: Profile, weights: Weights, names: TypeNames, texts: Sequence[str], reporter: Reporter
) -> dict[str, Completion]:
    """Return the model's answer to each piece."""
    from ccrl_cli.generators.transformers import TransformersGenerator

    section = profile.evaluation
    settings = SamplingSettings(0.0, 1.0, section.max_tokens, section.batch_size)
    generator = TransformersGenerator(weights, settings, load_options(profile))
    answers: dict[str, Completion] = {}
    with closing(generator), reporter.progress(len(texts), "predict", unit="texts") as progress:
        requests = list(_requests(texts, get_template(profile.prompt.template), names, generator))
        for generated in generator.generate(requests):
            answers[texts[int(generated.input_id)]] = generated.completions[0]
            progress.advance()
    return answers


def _requests(
    texts: Sequence[str],
    template: PromptTemplate,
    names: TypeNames,
    generator: TransformersGenerator,
) -> Iterator[GenerationRequest]:
    """Yield a request for each text, named by its place."""
    for place, text in enumerate(texts):
        messages = render(
            template, text, names.identifiers, names, special_tokens=generator.special_tokens
        )
        yield GenerationRequest(str(place), (tuple(messages),), (0,))


def _row(
    item: InputText,
    pieces: Sequence[_Piece],
    answers: Mapping[str, Completion],
    names: TypeNames,
) -> dict[str, Any]:
    """Return the output of one text, its pieces put together."""
    entities: list[dict[str, Any]] = []
    hallucinated: list[dict[str, str]] = []
    outcomes: list[str] = []
    for piece in pieces:
        parse = parse_completion(answers[piece.text].text, names.by_name)
        outcomes.append(parse.outcome)
        placed, loose = place_mentions(piece.text, parse.entities)
        for mention in placed:
            start, end = mention["start"] + piece.start, mention["end"] + piece.start
            entities.append({**mention, "start": start, "end": end})
        hallucinated += [{"text": mention.text, "type": mention.type} for mention in loose]
    worst = next((name for name in _WORST_FIRST if name in outcomes), "empty")
    row = {
        "text": item.text,
        "entities": entities,
        "hallucinated": hallucinated,
        "outcome": worst,
    }
    return row if item.id is None else {"id": item.id, **row}


def place_mentions(
    text: str, mentions: Sequence[Entity]
) -> tuple[list[dict[str, Any]], tuple[Entity, ...]]:
    """Return mentions with their character ranges in a text, and those that it does not hold."""
    view, alignment = align_in_text(mentions, Example(text, *tokenize(text)))
    placed = [
        {
            "text": view.span_text(span),
            "type": span.type,
            "start": view.offsets[span.start][0],
            "end": view.offsets[span.end - 1][1],
        }
        for span in alignment.spans
    ]
    return placed, alignment.hallucinated


def _counts(rows: Sequence[Mapping[str, Any]], num_pieces: int) -> dict[str, int]:
    return {
        "texts": len(rows),
        "pieces": num_pieces,
        "entities": sum(len(row["entities"]) for row in rows),
        "hallucinated": sum(len(row["hallucinated"]) for row in rows),
        **{
            name: sum(row["outcome"] == name for row in rows)
            for name in ("valid", "repaired", "invalid", "empty")
        },
    }


def _warn(counts: Mapping[str, int], reporter: Reporter) -> None:
    if counts["invalid"]:
        reporter.warn(
            f"{counts['invalid']} of {counts['texts']} texts have an answer that cannot be read "
            "(outcome invalid): what it holds is unknown, not nothing"
        )

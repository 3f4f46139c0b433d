"""Predict: entities of new texts, with a trained adapter or the starting weights."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.core.alignment import tokenize
from ccrl_cli.core.pieces import split_text
from ccrl_cli.data.catalog import DatasetSpec
from ccrl_cli.data.prompts import get_template
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.errors import UsageError
from ccrl_cli.generators.registry import SERVERS
from ccrl_cli.pipelines.common.domains import Domain, load_domain
from ccrl_cli.pipelines.common.weights import NO_ADAPTER, find_weights, run_adapter
from ccrl_cli.pipelines.evaluation.answerer import Answerer
from ccrl_cli.pipelines.evaluation.decoding import (
    Task,
    WorkFiles,
    decode_sentences,
    reads_types,
)
from ccrl_cli.pipelines.evaluation.prediction import Answer, Prediction, place_answer
from ccrl_cli.pipelines.generation.backends import prepare_model
from ccrl_cli.pipelines.labelling.type_evidence import Prior, score_identity, weigh_scores
from ccrl_cli.records import Entity, Example
from ccrl_cli.store.type_scores import read_type_scores, type_scores_path

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.inputs import InputText
    from ccrl_cli.models.weights import Weights
    from ccrl_cli.reporting import Reporter

#: Longest piece of a text that is asked about at once: adapters are trained on sentences.
PIECE_CHARACTERS = 600
#: A piece that is shorter is asked about even where the model has no room for it.
SHORTEST_PIECE = 20


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
        model: model folder, or the model that a server has.
        adapter: adapter folder, or None.
        types: types that were looked for.
        decode: how answers were decoded.
        type_prior: what was taken off type scores: ``training inputs`` (fitted on the run's),
            ``content_free``, or None where no types were asked for.
        rows: one object a text, in order: ``text``, ``entities`` with character offsets and
            confidence, ``hallucinated`` mentions, ``other_types`` (mentions of types that were not
            asked for), ``outcome`` (``valid``, ``repaired``, ``invalid``, or ``empty`` for a blank
            text that no model was asked about), and ``id`` where given.
        counts: texts, pieces, entities, hallucinated, other_types, and texts by outcome.
        seconds: wall time, loading included.
    """

    model: str
    adapter: str | None
    types: tuple[str, ...]
    decode: str
    type_prior: str | None
    rows: list[dict[str, Any]]
    counts: Mapping[str, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a text and where it begins."""

    example: Example
    start: int


_WORST_FIRST = ("invalid", "repaired", "valid")


def predict(
    profile: Profile, inputs: Sequence[InputText], options: PredictOptions, *, reporter: Reporter
) -> PredictResult:
    """Find the entities of texts, decoded as the profile says.

    Args:
        profile: names the model, its run, the prompt, the target's types and the decoding.
        inputs: the texts.
        options: flags.
        reporter: told of progress and of what could not be read.

    Raises:
        UsageError: a piece cannot hold anything, or types are asked of a server.
        PreconditionError: a model, an adapter, a package or the types are missing.
    """
    started = time.perf_counter()
    if options.piece_characters < 1:
        raise UsageError("a piece needs at least one character", hint="leave --piece out")
    domain = _domain(profile, options.types)
    weights = _weights(profile, options, reporter)
    fits = Answerer(profile, weights).fits(profile.evaluation.max_tokens)
    pieces = [
        _pieces(item.text, options.piece_characters, lambda e: fits([domain.prompt(e)]))
        for item in inputs
    ]
    examples = {piece.example.id: piece.example for parts in pieces for piece in parts}
    prior = _prior(profile, domain) if reads_types(profile.evaluation.decode) else None
    answers = _ask(profile, domain, weights, examples, prior, reporter) if examples else {}
    rows = [_row(item, parts, answers, domain) for item, parts in zip(inputs, pieces, strict=True)]
    counts = _counts(rows, sum(map(len, pieces)))
    _warn(counts, reporter)
    return PredictResult(
        model=profile.model.name if weights is None else str(weights.folder),
        adapter=str(weights.adapter) if weights and weights.adapter else None,
        types=domain.labels,
        decode=profile.evaluation.decode,
        type_prior=prior if prior is None or isinstance(prior, str) else "training inputs",
        rows=rows,
        counts=counts,
        seconds=round(time.perf_counter() - started, 3),
    )


def _domain(profile: Profile, types: tuple[str, ...]) -> Domain:
    """Return the target domain, or one of the types that are asked for."""
    if not types:
        return load_domain(profile, "target")
    return Domain(
        role="target",
        spec=DatasetSpec(profile.data.target.reference),
        limits={},
        labels=types,
        names=TypeNames.build(
            types,
            profile.data.type_names,
            profile.prompt.paraphrases,
            profile.data.type_descriptions,
        ),
        template=get_template(profile.prompt.template),
        shuffle_types=profile.prompt.shuffle_types,
        run_seed=profile.run.seed,
        rename_types=profile.prompt.rename_types,
    )


def _weights(profile: Profile, options: PredictOptions, reporter: Reporter) -> Weights | None:
    """Return what answers; None: what a server has.

    Raises:
        UsageError: a server is asked for an adapter.
    """
    backend = profile.evaluation.backend
    if backend not in SERVERS:
        return find_weights(profile, options.adapter, reporter)
    if options.adapter and options.adapter != NO_ADAPTER:
        raise UsageError(
            f"the {backend} backend asks a server, which does not have the adapter",
            hint="leave --adapter out, or choose a local backend",
        )
    if options.adapter is None and run_adapter(profile) is not None:
        reporter.warn(f"{profile.run_path} has a trained adapter, which the server does not have")
    return prepare_model(profile, backend, profile.model.name, reporter)


def _prior(profile: Profile, domain: Domain) -> Prior:
    """Return the type prior for texts that come alone.

    Prior matching needs the spans of many sentences, so it is fitted on the type scores of the
    training inputs, which lie beside the store since the labels were made. The scores of other
    types tell nothing; then it is the content-free prior.
    """
    if profile.confidence.type_prior == "content_free":
        return "content_free"
    path = type_scores_path(profile.store_path)
    scores = read_type_scores(path, profile.model.name, score_identity(profile, domain))
    evidence = weigh_scores(profile, domain, scores)
    return evidence.prior if scores else "content_free"


def _pieces(text: str, limit: int, fits: Callable[[Example], bool], start: int = 0) -> list[_Piece]:
    """Return the parts of a text that hold something to read, each as short as the model needs."""
    pieces: list[_Piece] = []
    for a, b in split_text(text, limit):
        part = text[a:b]
        if not part.strip():
            continue
        example = Example(part, *tokenize(part))
        if fits(example) or len(part) < 2 * SHORTEST_PIECE:
            pieces.append(_Piece(example, start + a))
        else:
            pieces += _pieces(part, len(part) // 2, fits, start + a)
    return pieces


def _ask(
    profile: Profile,
    domain: Domain,
    weights: Weights | None,
    examples: Mapping[str, Example],
    prior: Prior,
    reporter: Reporter,
) -> dict[str, Answer]:
    """Return the policy's answer to each piece, by id."""
    answerer = Answerer(profile, weights)
    with tempfile.TemporaryDirectory(prefix="ccrl-") as folder:
        place = Path(folder)
        task = Task(
            profile,
            domain,
            examples,
            profile.evaluation.decode,
            answerer,
            WorkFiles(place / "answers.jsonl", place / "types.jsonl", ""),
            prior,
            "predict",
        )
        try:
            return decode_sentences(task, reporter)
        finally:
            answerer.close()


def _row(
    item: InputText, pieces: Sequence[_Piece], answers: Mapping[str, Answer], domain: Domain
) -> dict[str, Any]:
    """Return the output of one text, its pieces put together."""
    asked = frozenset(domain.labels)
    entities: list[dict[str, Any]] = []
    found: list[Prediction] = []
    for piece in pieces:
        prediction = place_answer(piece.example, answers[piece.example.id])
        entities += prediction.mentions(shift=piece.start)
        found.append(prediction)
    entities = _without_halves(entities, pieces)
    loose = [mention for prediction in found for mention in prediction.hallucinated]
    outcomes = {prediction.outcome for prediction in found}
    others = [Entity(row["text"], row["type"]) for row in entities if row["type"] not in asked]
    row = {
        "text": item.text,
        "entities": [row for row in entities if row["type"] in asked],
        "hallucinated": _plain(mention for mention in loose if mention.type in asked),
        "other_types": _plain([*others, *(m for m in loose if m.type not in asked)]),
        "outcome": next((name for name in _WORST_FIRST if name in outcomes), "empty"),
    }
    return row if item.id is None else {"id": item.id, **row}


def _without_halves(
    entities: list[dict[str, Any]], pieces: Sequence[_Piece]
) -> list[dict[str, Any]]:
    """Return mentions where pieces overlap once each, the longer one if they meet."""
    if all(b.start >= a.start + len(a.example.text) for a, b in pairwise(pieces)):
        return entities
    kept: list[dict[str, Any]] = []
    for row in sorted(entities, key=lambda row: (row["start"] - row["end"], row["start"])):
        if all(row["end"] <= other["start"] or other["end"] <= row["start"] for other in kept):
            kept.append(row)
    return sorted(kept, key=lambda row: (row["start"], row["end"]))


def _plain(mentions: Iterable[Entity]) -> list[dict[str, str]]:
    return [{"text": mention.text, "type": mention.type} for mention in mentions]


def _counts(rows: Sequence[Mapping[str, Any]], num_pieces: int) -> dict[str, int]:
    return {
        "texts": len(rows),
        "pieces": num_pieces,
        "entities": sum(len(row["entities"]) for row in rows),
        "hallucinated": sum(len(row["hallucinated"]) for row in rows),
        "other_types": sum(len(row["other_types"]) for row in rows),
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

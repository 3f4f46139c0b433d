"""Decoding: from a policy and sentences to answers, by one of the named ways.

``greedy``: one answer. ``typed``: the spans of the greedy answer, the type of each by type
evidence. ``vote``: K answers, spans by votes, types by evidence, which is how labels are made.
``majority``: K answers, spans and types by votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.typed_labels import entity_confidence
from ccrl_cli.data.prompts import answer
from ccrl_cli.errors import UsageError
from ccrl_cli.generators.base import GenerationRequest, SamplingSettings
from ccrl_cli.pipelines.common.domains import Domain
from ccrl_cli.pipelines.evaluation.answerer import Answerer
from ccrl_cli.pipelines.evaluation.prediction import Answer
from ccrl_cli.pipelines.generation.type_scores import ScoreFile, fill_scores
from ccrl_cli.pipelines.labelling.labels import LabelSet, label_samples, make_labeller
from ccrl_cli.pipelines.labelling.samples import SampleSet
from ccrl_cli.pipelines.labelling.type_evidence import Prior, TypeEvidence, spans_of, weigh_scores
from ccrl_cli.records import Completion, Example, Parse, Record
from ccrl_cli.store.completions import CompletionStore

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

Decode = Literal["greedy", "typed", "vote", "majority"]


def is_sampled(decode: Decode) -> bool:
    """Return whether a way of decoding draws K answers."""
    return decode in ("vote", "majority")


def reads_types(decode: Decode) -> bool:
    """Return whether a way of decoding asks for types."""
    return decode in ("typed", "vote")


@dataclass(frozen=True, slots=True)
class WorkFiles:
    """Where answers and type scores lie until all are there, so that a crash loses little.

    Attributes:
        answers: file of the answers.
        types: file of the type scores.
        identity: what the answers depend on; others in the file are removed.
    """

    answers: Path
    types: Path
    identity: str


@dataclass(frozen=True, slots=True)
class Task:
    """Sentences that are to be decoded.

    Attributes:
        profile: says how answers are drawn and read.
        domain: how sentences are asked about.
        examples: the sentences by id.
        decode: the way.
        answerer: the policy.
        work: files of what is under way.
        prior: the type prior.
        title: what progress is shown under.
    """

    profile: Profile
    domain: Domain
    examples: Mapping[str, Example]
    decode: Decode
    answerer: Answerer
    work: WorkFiles
    prior: Prior = None
    title: str = "answer"


def decode_sentences(
    task: Task, reporter: Reporter, greedy: Mapping[str, Completion] | None = None
) -> dict[str, Answer]:
    """Return the answer to each sentence, by id.

    Args:
        task: what is to be decoded.
        reporter: told of progress.
        greedy: greedy answers of the same policy, if they are known; read by ``typed``.

    Raises:
        UsageError: types are asked of a server.
    """
    if task.decode == "typed" and task.answerer.weights is None:
        raise UsageError(
            "a server does not give the log-probabilities that types are decided by",
            hint="choose --decode greedy or vote, or a local backend",
        )
    given: Mapping[str, tuple[Completion, ...]]
    if task.decode == "typed" and greedy is not None:
        given = {key: (greedy[key],) for key in task.examples}
    else:
        given = _drawn(task, reporter)
    known = task.domain.names.by_name
    samples = {
        key: (
            [parse_completion(c.text, known, c.finish) for c in many],
            [c.mean_logprob for c in many],
        )
        for key, many in given.items()
    }
    if task.decode == "greedy":
        return {key: Answer.of(samples[key][0][0], given[key][0]) for key in given}
    found = SampleSet(samples, task.examples, 0, (task.profile.model.name,))
    evidence = _evidence(task, found, reporter) if reads_types(task.decode) else None
    metric = "entity_vote" if evidence is None else "type_posterior"
    labeller = make_labeller(task.profile, task.domain, metric=metric)
    labels = label_samples(found, labeller, evidence, retypes=evidence is not None)
    return {key: _labelled(task, labels, samples[key][0], given[key], key) for key in given}


def _labelled(
    task: Task,
    labels: LabelSet,
    parses: Sequence[Parse],
    given: Sequence[Completion],
    key: str,
) -> Answer:
    """Return a label as an answer; where nothing can be read, an unreadable one stands for it."""
    label, first = labels.labels[key], given[0]
    if label.num_invalid == label.num_completions:
        return Answer("invalid", text=first.text, finish=first.finish)
    sure = entity_confidence(label, labels.posteriors.get(key, {}))
    if task.decode == "typed":
        return Answer(parses[0].outcome, label.entities, sure, first.text, first.finish)
    return Answer("valid", label.entities, sure, answer(label.entities, task.domain.names))


def _evidence(task: Task, found: SampleSet, reporter: Reporter) -> TypeEvidence | None:
    """Return what the policy says of the type of every span that the answers name."""
    weights = task.answerer.weights
    if weights is None:
        reporter.warn(
            "a server does not give the log-probabilities that types are decided by: its answers' "
            "votes say the types"
        )
        return None
    spans = spans_of(found.examples, found.parses)
    place = ScoreFile.of(task.profile, task.domain, weights, task.work.types)
    texts = {key: found.examples[key].text for key in spans}
    fill_scores(place, texts, spans, lambda: task.answerer.asker(task.domain), reporter)
    known = place.read()
    scores = {key: known[key] for key in spans}
    return weigh_scores(task.profile, task.domain, scores, task.prior)


def _drawn(task: Task, reporter: Reporter) -> dict[str, tuple[Completion, ...]]:
    """Return the answers by id; each is on disk as soon as it is there."""
    place, identity = task.work.answers, {"evaluation": task.work.identity}
    if place.exists() and any(r.identity != identity for r in CompletionStore(place).records()):
        place.unlink()  # answers of other weights or sentences
    name = task.profile.model.name
    with CompletionStore(place) as store:
        owed = store.owed(list(task.examples), name, identity, resume=True)
        with reporter.progress(len(task.examples), task.title) as progress:
            progress.advance(len(task.examples) - len(owed))
            for record in _answered(task, owed, name, identity, reporter) if owed else ():
                store.append(record)
                progress.advance(1)
        return {record.input_id: record.completions for record in store.records()}


def _answered(
    task: Task, owed: Sequence[str], name: str, identity: Mapping[str, Any], reporter: Reporter
) -> Iterator[Record]:
    """Yield each answered sentence as a record; what the model has no room for as unanswered."""
    examples = {key: task.examples[key] for key in owed}
    with task.answerer.generator(_settings(task), task.domain, examples) as generator:
        special = generator.special_tokens
        requests = [_request(task, example, special) for example in examples.values()]
        fits = task.answerer.fits(task.profile.evaluation.max_tokens)
        fitting = [request for request in requests if fits(request.prompts[:1])]
        for generated in generator.generate(fitting):
            text = examples[generated.input_id].text
            yield Record(generated.input_id, text, name, generated.completions, identity)
    kept = {request.input_id for request in fitting}
    long = [request for request in requests if request.input_id not in kept]
    if long:
        reporter.warn(
            f"{len(long)} of {len(requests)} sentences are longer than the model reads: they have "
            "no answer"
        )
    for request in long:
        none = Completion("", None, 0, "error", reason="longer than the model reads")
        text = examples[request.input_id].text
        yield Record(request.input_id, text, name, (none,) * len(request.seeds), identity)


def _settings(task: Task) -> SamplingSettings:
    """Return how the answers are drawn; samples may be held to the types of their domain."""
    section, drawn = task.profile.evaluation, task.profile.generation
    if not is_sampled(task.decode):
        return SamplingSettings(0.0, 1.0, section.max_tokens, section.batch_size)
    names = task.domain.names
    types = tuple(names.name(label) for label in task.domain.labels)
    return SamplingSettings(
        drawn.temperature,
        drawn.top_p,
        section.max_tokens,
        max(1, section.batch_size // drawn.num_completions),
        answer_types=types if drawn.constrained else None,
    )


def _request(task: Task, example: Example, special: Sequence[str]) -> GenerationRequest:
    domain = task.domain
    if not is_sampled(task.decode):
        prompt = domain.prompt(example, special_tokens=special)
        return GenerationRequest(example.id, (prompt,), (0,))
    seed, count = task.profile.run.seed, task.profile.generation.num_completions
    return GenerationRequest(
        example.id,
        domain.sample_prompts(example, count, special_tokens=special),
        tuple(derive_seed(seed, "vote", domain.role, example.id, k) for k in range(count)),
    )

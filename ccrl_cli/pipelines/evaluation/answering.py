"""Answering: the sentences of a domain, answered greedily or by the majority of K samples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.data.prompts import answer
from ccrl_cli.errors import PreconditionError
from ccrl_cli.generators.base import GenerationRequest, Generator, SamplingSettings
from ccrl_cli.generators.registry import backend_class
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.common.domains import Domain, Role, load_domain
from ccrl_cli.pipelines.common.weights import load_options
from ccrl_cli.pipelines.evaluation.scoring import Prediction, prediction_row
from ccrl_cli.pipelines.labelling.labels import make_labeller
from ccrl_cli.records import Completion, Record, content_id
from ccrl_cli.store.atomic import write_json_lines
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.jsonl import JsonlReader

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import Split, SplitReader
    from ccrl_cli.records import Example
    from ccrl_cli.reporting import Reporter
    from ccrl_cli.store.runs import RunDirectory


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering.

    Attributes:
        name: ``before`` or ``after``, or one of them with ``-majority``; names files and marks.
        weights: what answers.
        votes: K samples whose agreed label is the answer; 0: one greedy answer.
    """

    name: str
    weights: Weights
    votes: int = 0


@dataclass(frozen=True)
class View:
    """The sentences of one domain that are scored.

    Attributes:
        role: ``target`` or ``source``.
        domain: how its sentences are asked about.
        split: the sentences, all with gold labels.
        mode: ``transductive`` if a sentence was trained on, or ``held-out``.
    """

    role: Role
    domain: Domain
    split: Split
    mode: str

    @classmethod
    def load(cls, profile: Profile, role: Role, data: SplitReader | None = None) -> View:
        """Return the scored split of a domain.

        Args:
            profile: the profile.
            role: which domain.
            data: reads the splits of the command; None: this call reads its own.

        Raises:
            PreconditionError: it has no gold labels.
        """
        domain = load_domain(profile, role, data)
        name = profile.evaluation.split
        learnt = {"train", profile.training.replay_split if profile.training.replay_share else ""}
        if role == "source" and name in learnt:
            name = "test"  # warm-up and replay trained on its gold labels
        split = domain.split(name)
        if not split.examples or any(example.gold is None for example in split.examples):
            raise PreconditionError(
                f"{split.name} has no gold labels in its {name} split, so there is nothing to "
                f"score the {role} domain with",
                hint="choose another with --split, or score one domain with --domain",
            )
        mode = "held-out"
        if role == "target":
            seen = {example.id for example in domain.training_inputs()[0]}
            known = any(example.id in seen for example in split.examples)
            mode = "transductive" if known else "held-out"
        return cls(role, domain, split, mode)

    def digest(self, profile: Profile, way: Way) -> str:
        """Return what an answer depends on."""
        section = profile.evaluation
        facts = [
            way.weights.identity,
            self.split.digest,
            self.domain.prompt_digest,
            self.domain.labels_digest,
            f"{profile.model.dtype} {profile.model.load_in_4bit} {section.max_tokens}",
        ]
        if way.votes:
            drawn, rule = profile.generation, profile.confidence
            facts.append(
                f"{way.votes} {drawn.temperature} {drawn.top_p} {profile.run.seed} "
                f"{rule.label} {rule.positive} {rule.negative} {rule.similarity} "
                f"{drawn.constrained}"
            )
        return content_id("\n".join(facts))


def step_name(role: str, way: str) -> str:
    """Return the name of the mark of answered sentences in a run directory."""
    return f"evaluate-{role}-{way}"


def answer_views(
    profile: Profile,
    run: RunDirectory,
    views: Sequence[View],
    way: Way,
    reporter: Reporter,
) -> int:
    """Answer what was not answered yet in this way; return how many sentences that were."""
    owed = []
    for view in views:
        place = run.predictions_path(f"{view.role}-{way.name}")
        done = run.done(step_name(view.role, way.name), view.digest(profile, way))
        if done is None or not place.exists():
            owed.append(view)
    # Samples may be held to the types of their domain; greedy answers need one model for both.
    for views_of_one in [[view] for view in owed] if way.votes else [owed] if owed else []:
        with closing(_generator(profile, way, views_of_one[0])) as generator:
            for view in views_of_one:
                _answer_view(profile, run, generator, view, way, reporter)
    return sum(len(view.split.examples) for view in owed)


def _answer_view(
    profile: Profile,
    run: RunDirectory,
    generator: Generator,
    view: View,
    way: Way,
    reporter: Reporter,
) -> None:
    """Answer one domain, and leave its predictions and a mark."""
    began = time.perf_counter()
    answers = _answers(profile, run, generator, view, way, reporter)
    rows = [
        prediction_row(make_prediction(view, example, answers[example.id]))
        for example in view.split.examples
    ]
    name = f"{view.role}-{way.name}"
    write_json_lines(run.predictions_path(name), rows)
    run.mark_done(
        step_name(view.role, way.name),
        view.digest(profile, way),
        seconds=time.perf_counter() - began,
    )
    _work_path(run, name).unlink(missing_ok=True)


def adopt_answers(
    profile: Profile, finished: RunDirectory, run: RunDirectory, views: Sequence[View], way: Way
) -> bool:
    """Copy the answers that another run has for the same weights, prompts and sentences.

    Returns:
        Whether `run` has all of them now.
    """
    complete = True
    for view in views:
        step, digest = step_name(view.role, way.name), view.digest(profile, way)
        name = f"{view.role}-{way.name}"
        theirs, ours = finished.predictions_path(name), run.predictions_path(name)
        if run.done(step, digest) is not None and ours.exists():
            continue
        mark = finished.done(step, digest)
        if mark is None or not theirs.exists():
            complete = False
            continue
        write_json_lines(ours, (row for _, row in JsonlReader(theirs).objects()))
        run.mark_done(step, digest, seconds=0.0, result={"copied_from": str(finished.path)})
    return complete


def stored_predictions(
    profile: Profile, run: RunDirectory, view: View, way: Way
) -> list[Prediction] | None:
    """Return what is on disk of a domain in a way, all it depends on unchanged, else None."""
    place = run.predictions_path(f"{view.role}-{way.name}")
    done = run.done(step_name(view.role, way.name), view.digest(profile, way))
    if done is None or not place.exists():
        return None
    rows = [row for _, row in JsonlReader(place).objects()]
    if [row["input_id"] for row in rows] != [example.id for example in view.split.examples]:
        return None
    return [
        make_prediction(view, example, Completion(row["completion"], None, 0, row["finish"]))
        for example, row in zip(view.split.examples, rows, strict=True)
    ]


def make_prediction(view: View, example: Example, given: Completion) -> Prediction:
    """Return an answer with what it says."""
    parse = parse_completion(given.text, view.domain.names.by_name)
    return Prediction(example, parse, given.text, given.finish)


def _generator(profile: Profile, way: Way, view: View) -> Generator:
    section = profile.evaluation
    settings = SamplingSettings(0.0, 1.0, section.max_tokens, section.batch_size)
    if way.votes:
        drawn, names = profile.generation, view.domain.names
        types = tuple(names.name(label) for label in view.domain.labels)
        settings = SamplingSettings(
            drawn.temperature,
            drawn.top_p,
            section.max_tokens,
            max(1, section.batch_size // way.votes),
            answer_types=types if drawn.constrained else None,
        )
    generator: Generator = backend_class("transformers")(
        way.weights, settings, load_options(profile)
    )
    return generator


def _work_path(run: RunDirectory, name: str) -> Path:
    """Return the file that holds answers until all of them are there."""
    return run.path / f"answers-{name}.jsonl"


def _answers(
    profile: Profile,
    run: RunDirectory,
    generator: Generator,
    view: View,
    way: Way,
    reporter: Reporter,
) -> dict[str, Completion]:
    """Return one answer by input id; what is drawn is on disk at once, so a crash loses little."""
    place = _work_path(run, f"{view.role}-{way.name}")
    identity = {"evaluation": view.digest(profile, way)}
    if place.exists() and any(r.identity != identity for r in CompletionStore(place).records()):
        place.unlink()  # answers of other weights or sentences
    inputs = {example.id: example for example in view.split.examples}
    with CompletionStore(place) as store:
        owed = store.owed(list(inputs), way.name, identity, resume=True)
        requests = [
            _request(profile, view, way, inputs[key], generator.special_tokens) for key in owed
        ]
        with reporter.progress(len(inputs), f"evaluate {view.role} {way.name}") as progress:
            progress.advance(len(inputs) - len(owed))
            for generated in generator.generate(requests):
                text = inputs[generated.input_id].text
                store.append(
                    Record(generated.input_id, text, way.name, generated.completions, identity)
                )
                progress.advance(1)
        return {
            record.input_id: _agreed(profile, view, record) if way.votes else record.completions[0]
            for record in store.records()
        }


def _request(
    profile: Profile, view: View, way: Way, example: Example, special: Sequence[str]
) -> GenerationRequest:
    if not way.votes:
        prompt = view.domain.prompt(example, special_tokens=special)
        return GenerationRequest(example.id, (prompt,), (0,))
    seed = profile.run.seed
    return GenerationRequest(
        example.id,
        view.domain.sample_prompts(example, way.votes, special_tokens=special),
        tuple(derive_seed(seed, "vote", view.role, example.id, k) for k in range(way.votes)),
    )


def _agreed(profile: Profile, view: View, record: Record) -> Completion:
    """Return what K samples agree on as one answer, by the rule of the pseudo-labels.

    Where not one sample can be read, there is no answer: an unreadable one stands for it.
    """
    names = view.domain.names
    labeller = make_labeller(profile, view.domain, metric="entity_vote")
    parses = [parse_completion(sample.text, names.by_name) for sample in record.completions]
    if all(parse.outcome == "invalid" for parse in parses):
        return record.completions[0]
    logprobs = [sample.mean_logprob for sample in record.completions]
    label = labeller(record.input_id, parses, logprobs)
    return Completion(answer(label.entities, names), None, 0, "stop")

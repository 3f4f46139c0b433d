"""Answering: the scored sentences of a domain, decoded in named ways, on disk once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ccrl_cli.config.load import section_digest
from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.common.domains import Domain, Role, load_domain
from ccrl_cli.pipelines.evaluation.answerer import Answerer
from ccrl_cli.pipelines.evaluation.decoding import (
    Decode,
    Task,
    WorkFiles,
    decode_sentences,
    is_sampled,
)
from ccrl_cli.pipelines.evaluation.prediction import Prediction, place_answer, read_prediction
from ccrl_cli.records import Completion, content_id
from ccrl_cli.store.atomic import write_json_lines
from ccrl_cli.store.jsonl import JsonlReader

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import Split, SplitReader
    from ccrl_cli.reporting import Reporter
    from ccrl_cli.store.runs import RunDirectory

Phase = Literal["before", "after"]
ROLES: tuple[Role, ...] = ("target", "source")


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering.

    Attributes:
        phase: ``before``: the start; ``after``: what is reached from it.
        weights: what answers.
        decode: how its answers are decoded.
        roles: domains that are answered in this way.
        name: names files and marks; empty: the phase, with the decoding where it is not greedy.
    """

    phase: Phase
    weights: Weights
    decode: Decode = "greedy"
    roles: tuple[Role, ...] = ROLES
    name: str = ""

    def __str__(self) -> str:
        if self.name:
            return self.name
        return self.phase if self.decode == "greedy" else f"{self.phase}-{self.decode}"


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
        facts = [self.drawn_digest(profile, way)]
        if way.decode != "greedy":
            facts += [way.decode, section_digest(profile, "confidence")]
        return content_id("\n".join(facts)) if len(facts) > 1 else facts[0]

    def drawn_digest(self, profile: Profile, way: Way) -> str:
        """Return what the drawn answers depend on, however they are decoded."""
        section = profile.evaluation
        facts = [
            way.weights.identity,
            self.split.digest,
            self.domain.prompt_digest,
            self.domain.labels_digest,
            f"{profile.model.dtype} {profile.model.load_in_4bit} {section.max_tokens}",
        ]
        if section.backend != "transformers":
            facts.append(section.backend)
        if is_sampled(way.decode):
            drawn = profile.generation
            facts.append(
                f"{drawn.num_completions} {drawn.temperature} {drawn.top_p} {profile.run.seed} "
                f"{drawn.constrained}"
            )
        return content_id("\n".join(facts))


def step_name(role: str, way: Way) -> str:
    """Return the name of the mark of answered sentences in a run directory."""
    return f"evaluate-{role}-{way}"


def answer_views(
    profile: Profile,
    run: RunDirectory,
    views: Sequence[View],
    ways: Sequence[Way],
    reporter: Reporter,
) -> int:
    """Answer what was not answered yet; return how many answers to sentences that took.

    Ways of the same weights share one loaded model; ``greedy`` must come before ``typed``, which
    takes its answers over.
    """
    answered = 0
    for weights in dict.fromkeys(way.weights for way in ways):
        answerer = Answerer(profile, weights)
        try:
            for way in (way for way in ways if way.weights == weights):
                for view in views:
                    if view.role not in way.roles or is_answered(profile, run, view, way):
                        continue
                    _answer_view(profile, run, view, way, answerer, reporter)
                    answered += len(view.split.examples)
        finally:
            answerer.close()
    return answered


def is_answered(profile: Profile, run: RunDirectory, view: View, way: Way) -> bool:
    """Return whether a run has the answers of a domain in a way, all it depends on unchanged."""
    done = run.done(step_name(view.role, way), view.digest(profile, way))
    return done is not None and run.predictions_path(f"{view.role}-{way}").exists()


def _answer_view(
    profile: Profile,
    run: RunDirectory,
    view: View,
    way: Way,
    answerer: Answerer,
    reporter: Reporter,
) -> None:
    """Answer one domain in one way, and leave its predictions and a mark."""
    began = time.perf_counter()
    work = _work_files(profile, run, view, way)
    task = Task(
        profile,
        view.domain,
        {example.id: example for example in view.split.examples},
        way.decode,
        answerer,
        work,
        title=f"evaluate {view.role} {way}",
    )
    greedy = _greedy_answers(profile, run, view, way) if way.decode == "typed" else None
    answers = decode_sentences(task, reporter, greedy)
    rows = [place_answer(e, answers[e.id]).row() for e in view.split.examples]
    write_json_lines(run.predictions_path(f"{view.role}-{way}"), rows)
    run.mark_done(
        step_name(view.role, way),
        view.digest(profile, way),
        seconds=time.perf_counter() - began,
    )
    work.types.unlink(missing_ok=True)
    if not is_sampled(way.decode):  # samples serve vote and majority
        work.answers.unlink(missing_ok=True)


def _work_files(profile: Profile, run: RunDirectory, view: View, way: Way) -> WorkFiles:
    drawn = "samples" if is_sampled(way.decode) else "answers"
    return WorkFiles(
        run.path / f"{drawn}-{view.role}-{way.phase}.jsonl",
        run.path / f"types-{view.role}-{way}.jsonl",
        view.drawn_digest(profile, way),
    )


def _greedy_answers(
    profile: Profile, run: RunDirectory, view: View, way: Way
) -> Mapping[str, Completion] | None:
    """Return the greedy answers that the same weights have given already."""
    greedy = Way(way.phase, way.weights)
    if not is_answered(profile, run, view, greedy):
        return None
    rows = JsonlReader(run.predictions_path(f"{view.role}-{greedy}")).objects()
    return {
        row["input_id"]: Completion(row["completion"], None, 0, row["finish"]) for _, row in rows
    }


def adopt_answers(
    profile: Profile, finished: RunDirectory, run: RunDirectory, views: Sequence[View], way: Way
) -> bool:
    """Copy the answers that another run has for the same weights, prompts and sentences.

    Returns:
        Whether `run` has all of them now.
    """
    complete = True
    for view in views:
        if is_answered(profile, run, view, way):
            continue
        if not is_answered(profile, finished, view, way):
            complete = False
            continue
        name = f"{view.role}-{way}"
        rows = (row for _, row in JsonlReader(finished.predictions_path(name)).objects())
        write_json_lines(run.predictions_path(name), rows)
        run.mark_done(
            step_name(view.role, way),
            view.digest(profile, way),
            seconds=0.0,
            result={"copied_from": str(finished.path)},
        )
    return complete


def stored_predictions(
    profile: Profile, run: RunDirectory, view: View, way: Way
) -> list[Prediction] | None:
    """Return what is on disk of a domain in a way, all it depends on unchanged, else None."""
    if not is_answered(profile, run, view, way):
        return None
    place = run.predictions_path(f"{view.role}-{way}")
    rows = [row for _, row in JsonlReader(place).objects()]
    if [row["input_id"] for row in rows] != [example.id for example in view.split.examples]:
        return None
    return [
        read_prediction(example, row)
        for example, row in zip(view.split.examples, rows, strict=True)
    ]

"""Evaluate: greedy answers of the starting policy and of the trained adapter, scored by spans."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ccrl_cli.core.metrics import forgetting
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.statistics import Interval
from ccrl_cli.errors import PreconditionError
from ccrl_cli.generators.base import GenerationRequest, Generator, SamplingSettings
from ccrl_cli.generators.registry import backend_class
from ccrl_cli.pipelines.domains import Domain, Role, load_domain
from ccrl_cli.pipelines.manifest import run_manifest
from ccrl_cli.pipelines.scoring import (
    Prediction,
    Scores,
    f1_difference,
    prediction_row,
    score_predictions,
)
from ccrl_cli.pipelines.start import Start, adapter_digest, starting_policy
from ccrl_cli.records import Completion, Record, content_id
from ccrl_cli.store.atomic import write_json_lines
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.jsonl import JsonlReader
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import Split
    from ccrl_cli.records import Example
    from ccrl_cli.reporting import Reporter

Phase = Literal["before", "after"]
ROLES: tuple[Role, ...] = ("target", "source")
PHASES: tuple[Phase, ...] = ("before", "after")


@dataclass(frozen=True, slots=True)
class DomainEvaluation:
    """Scores of one domain.

    Attributes:
        data: the data set.
        digest: SHA-256 of the sentences scored.
        split: which of its splits.
        mode: ``transductive`` (scored on the very inputs that training saw, gold unseen) or
            ``held-out``.
        before: scores of the starting policy; None when not evaluated.
        after: scores of the trained adapter; None when not evaluated.
        delta_f1: F1 after minus before, paired by sentence, with its interval.
    """

    data: str
    digest: str
    split: str
    mode: str
    before: Scores | None
    after: Scores | None
    delta_f1: Interval | None


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What ``evaluation.json`` holds.

    Attributes:
        split: role of the split scored.
        reportable: False when only a part of a split was scored.
        created: UTC time.
        domains: scores by role, ``target`` and ``source``.
        forgetting: source F1 before minus after; None when one of them is missing.
        seconds: wall time of this call.
        answered: sentences that this call answered; others were answered before.
    """

    split: str
    reportable: bool
    created: str
    domains: Mapping[str, DomainEvaluation]
    forgetting: float | None
    seconds: float
    answered: int
    schema: int = 1


def evaluate(
    profile: Profile,
    *,
    reporter: Reporter,
    phases: Sequence[Phase] | None = None,
    roles: Sequence[Role] = ROLES,
    adapter: Path | None = None,
    origins: Mapping[str, str] | None = None,
) -> EvaluationResult:
    """Answer the scored splits of both domains greedily, before and after training.

    What was answered before with the same weights, prompts and sentences is not answered again.

    Args:
        profile: the profile.
        reporter: told of progress.
        phases: which weights; None: the starting policy, and the adapter if there is one.
        roles: which domains.
        adapter: an adapter to evaluate in place of the run's own.
        origins: origin of each value of the profile, for the manifest of a new run.

    Raises:
        PreconditionError: a package, the model, the adapter or gold labels are missing.
    """
    started = time.perf_counter()
    start = starting_policy(profile, profile.model.name, reporter)
    trained = adapter or RunDirectory(profile.run_path).adapter_path
    if phases is None:
        phases = PHASES if adapter or trained.is_dir() else ("before",)
        if "after" not in phases:
            reporter.info(f"{profile.run_path} has no trained adapter: the start alone is scored")
    weights = {phase: start if phase == "before" else _trained(start, trained) for phase in phases}
    views = {role: _View.load(profile, role) for role in roles}
    with RunDirectory(profile.run_path) as run:
        if not run.manifest_path.exists():
            domain = views[roles[0]].domain
            run.write_manifest(run_manifest(profile, domain, origins or {}))
        answered = sum(
            _answer(profile, run, list(views.values()), phase, weights[phase], reporter)
            for phase in phases
        )
        found = {
            (role, phase): _answers(run, view, phase)
            for role, view in views.items()
            for phase in PHASES
        }
        result = _result(profile, views, found, time.perf_counter() - started, answered)
        run.write_evaluation(_document(run, result, roles))
    return result


@dataclass(frozen=True)
class _View:
    """The sentences of one domain that are scored."""

    role: Role
    domain: Domain
    split: Split
    mode: str

    @classmethod
    def load(cls, profile: Profile, role: Role) -> _View:
        domain = load_domain(profile, role)
        name = profile.evaluation.split
        if role == "source" and name == "train":
            name = "test"  # the warm-up learned the source's training split by heart
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
            known = sum(example.id in seen for example in split.examples)
            mode = "transductive" if known == len(split.examples) else "held-out"
        return cls(role, domain, split, mode)

    def digest(self, profile: Profile, weights: Start) -> str:
        """Return what an answer depends on."""
        section = profile.evaluation
        facts = (
            weights.identity,
            self.split.digest,
            self.domain.prompt_digest,
            self.domain.labels_digest,
            f"{profile.model.dtype} {profile.model.load_in_4bit} {section.max_tokens}",
        )
        return content_id("\n".join(facts))


def _trained(start: Start, adapter: Path) -> Start:
    """Return the starting policy with the trained adapter in place of its own."""
    if not (adapter / "adapter_config.json").is_file():
        raise PreconditionError(
            f"there is no trained adapter at {adapter}",
            hint="run `ccrl train` first, or `ccrl run` for everything",
        )
    return Start(start.folder, adapter, start.revision, adapter_digest(adapter))


def _step(role: str, phase: str) -> str:
    return f"evaluate-{role}-{phase}"


def _answer(
    profile: Profile,
    run: RunDirectory,
    views: Sequence[_View],
    phase: Phase,
    weights: Start,
    reporter: Reporter,
) -> int:
    """Answer what was not answered yet with these weights; return how many sentences that were."""
    owed = []
    for view in views:
        place = run.predictions_path(f"{view.role}-{phase}")
        done = run.done(_step(view.role, phase), view.digest(profile, weights))
        if done is None or not place.exists():
            owed.append(view)
    if not owed:
        return 0
    section, model = profile.evaluation, profile.model
    settings = SamplingSettings(0.0, 1.0, section.max_tokens, section.batch_size)
    generator: Generator = backend_class("transformers")(
        weights.folder,
        settings,
        adapter=weights.adapter,
        dtype=model.dtype,
        load_in_4bit=model.load_in_4bit,
        attention=model.attention,
    )
    with closing(generator):
        for view in owed:
            began = time.perf_counter()
            digest = view.digest(profile, weights)
            answers = _greedy(run, generator, view, phase, digest, reporter)
            rows = [
                prediction_row(_prediction(view, example, answers[example.id]))
                for example in view.split.examples
            ]
            name = f"{view.role}-{phase}"
            write_json_lines(run.predictions_path(name), rows)
            run.mark_done(_step(view.role, phase), digest, seconds=time.perf_counter() - began)
            _work_path(run, name).unlink(missing_ok=True)
    return sum(len(view.split.examples) for view in owed)


def _work_path(run: RunDirectory, name: str) -> Path:
    """Return the file that holds answers until all of them are there."""
    return run.path / f"answers-{name}.jsonl"


def _greedy(
    run: RunDirectory,
    generator: Generator,
    view: _View,
    phase: Phase,
    digest: str,
    reporter: Reporter,
) -> dict[str, Completion]:
    """Return one greedy answer by input id; each is on disk at once, so a crash loses little."""
    place = _work_path(run, f"{view.role}-{phase}")
    identity = {"evaluation": digest}
    if place.exists() and any(r.identity != identity for r in CompletionStore(place).records()):
        place.unlink()  # answers of other weights or sentences
    inputs = {example.id: example for example in view.split.examples}
    with CompletionStore(place) as store:
        owed = store.owed(list(inputs), phase, identity, resume=True)
        requests = [_request(view, inputs[key], generator.special_tokens) for key in owed]
        with reporter.progress(len(inputs), f"evaluate {view.role} {phase}") as progress:
            progress.advance(len(inputs) - len(owed))
            for generated in generator.generate(requests):
                text = inputs[generated.input_id].text
                store.append(
                    Record(generated.input_id, text, phase, generated.completions, identity)
                )
                progress.advance(1)
        return {record.input_id: record.completions[0] for record in store.records()}


def _request(view: _View, example: Example, special: Sequence[str]) -> GenerationRequest:
    prompt = view.domain.prompt(example, special_tokens=special)
    return GenerationRequest(example.id, (prompt,), (0,))


def _prediction(view: _View, example: Example, answer: Completion) -> Prediction:
    parse = parse_completion(answer.text, view.domain.names.by_name)
    return Prediction(example, parse, answer.text, answer.finish)


def _answers(run: RunDirectory, view: _View, phase: Phase) -> list[Prediction] | None:
    """Return the predictions of a domain that are on disk for these very sentences, else None."""
    place = run.predictions_path(f"{view.role}-{phase}")
    if not place.exists() or _step(view.role, phase) not in run.steps():
        return None
    rows = [row for _, row in JsonlReader(place).objects()]
    if [row["input_id"] for row in rows] != [example.id for example in view.split.examples]:
        return None
    return [
        _prediction(view, example, Completion(row["completion"], None, 0, row["finish"]))
        for example, row in zip(view.split.examples, rows, strict=True)
    ]


def _result(
    profile: Profile,
    views: Mapping[Role, _View],
    found: Mapping[tuple[Role, Phase], list[Prediction] | None],
    seconds: float,
    answered: int,
) -> EvaluationResult:
    domains: dict[str, DomainEvaluation] = {
        role: _score(profile, view, found) for role, view in views.items()
    }
    source = domains.get("source")
    lost = None
    if source and source.before and source.after:
        lost = forgetting(source.before.f1, source.after.f1)
    return EvaluationResult(
        split=profile.evaluation.split,
        reportable=all(view.split.counts.truncated == 0 for view in views.values()),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        domains=domains,
        forgetting=lost,
        seconds=round(seconds, 1),
        answered=answered,
    )


def _score(
    profile: Profile,
    view: _View,
    found: Mapping[tuple[Role, Phase], list[Prediction] | None],
) -> DomainEvaluation:
    types = view.domain.labels

    def rng(name: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(profile.run.seed, "bootstrap", view.role, name))

    scores = {
        phase: score_predictions(answers, types, rng("interval")) if answers else None
        for phase in PHASES
        for answers in [found[view.role, phase]]
    }
    before, after = found[view.role, "before"], found[view.role, "after"]
    return DomainEvaluation(
        data=view.split.name,
        digest=view.split.digest,
        split=view.split.split,
        mode=view.mode,
        before=scores["before"],
        after=scores["after"],
        delta_f1=f1_difference(after, before, types, rng("paired")) if before and after else None,
    )


def _document(run: RunDirectory, result: EvaluationResult, roles: Sequence[Role]) -> dict[str, Any]:
    """Return the content of ``evaluation.json``; a domain not scored this time keeps its scores."""
    document = asdict(result)
    if run.evaluation_path.exists():
        kept = {k: v for k, v in run.read_evaluation()["domains"].items() if k not in roles}
        document["domains"] = {**kept, **document["domains"]}
    return document

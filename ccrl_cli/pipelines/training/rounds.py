"""Rounds: label, train, let the adapted policy label again, train again.

Each round is the ordinary commands in a folder of its own, ``<run>/rounds/N``, with a profile
written there; a call that was killed at any point goes on where it stopped. The first round takes
the completions of the run itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.config.dump import to_toml
from ccrl_cli.core.rounds import (
    LabelChange,
    compare_labels,
    has_fallen,
    held_out_agreement,
    is_held_out,
    share_out,
)
from ccrl_cli.data.catalog import SplitReader
from ccrl_cli.errors import UsageError
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.curriculum.plan import planned_steps
from ccrl_cli.pipelines.generation.generate import GenerateOptions, generate
from ccrl_cli.pipelines.generation.type_scores import score_types_if_needed
from ccrl_cli.pipelines.labelling.labels import LabelSet, load_labels
from ccrl_cli.pipelines.training.outcome import ROUNDS_FILE, TrainOutcome
from ccrl_cli.pipelines.training.round_files import round_profile, write_labels
from ccrl_cli.pipelines.training.train import (
    STEP,
    TrainOptions,
    check_fresh,
    found_done,
    mark_trained,
    refuse_processes,
    remove_training,
    train,
    train_shared,
    training_digest,
    training_weights,
    write_manifest,
)
from ccrl_cli.store.atomic import write_json, write_json_lines, write_text
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.models.weights import Weights
    from ccrl_cli.reporting import Reporter

LABEL_STEP = "label"
"""Mark of a round whose inputs are labelled."""


@dataclass(frozen=True, slots=True)
class Round:
    """A round that was trained.

    Attributes:
        number: from 1.
        profile: its own profile.
        labels: what it was trained on.
        outcome: what its training did.
        change: its labels against those of the round before; None in the first.
        held_out: agreement of the policy that it made with its labels, by held-out input; empty
            until the next round is labelled.
        seconds: of labelling.
    """

    number: int
    profile: Profile
    labels: LabelSet
    outcome: TrainOutcome
    change: LabelChange | None
    held_out: Mapping[str, float]
    seconds: float


def train_rounds(
    profile: Profile,
    options: TrainOptions,
    *,
    reporter: Reporter,
    data: SplitReader | None = None,
    labels: LabelSet | None = None,
) -> TrainOutcome:
    """Train in as many rounds as a profile asks for; a single one is :func:`train`.

    Args:
        profile: the profile.
        options: flags.
        reporter: told of progress.
        data: reads the splits of the command; None: this call reads its own.
        labels: pseudo-labels of the run's own completions, if they are derived already.

    Raises:
        PreconditionError: completions, the warm-up, a model or a package are missing.
        UsageError: the run has a training already and `resume` is off, its settings differ, or
            the budget is too small for the rounds.
    """
    data = data or SplitReader()
    if profile.curriculum.rounds == 1 or profile.curriculum.round is not None:
        return train(profile, options, reporter=reporter, data=data, labels=labels)
    refuse_processes()
    domain = load_domain(profile, "target", data)
    labels = labels or load_labels(profile, domain)
    start, _ = training_weights(profile, reporter)
    with RunDirectory(profile.run_path) as run:
        digest = training_digest(profile, labels, start, options.variant)
        if options.overwrite:
            remove_training(run)
        mark = run.done(STEP, digest)
        if mark is not None and options.resume:
            return found_done(run, mark.result, reporter)
        check_fresh(run, digest, resume=options.resume)
        write_manifest(run, profile, domain, options, digest)
        began = time.perf_counter()
        work = _Rounds(profile, options, reporter, data, run)
        outcome = work.finish(work.train(labels), start)
        mark_trained(run, digest, outcome, time.perf_counter() - began)
    return outcome


def train_in_rounds(
    profile: Profile, options: TrainOptions, *, reporter: Reporter
) -> TrainOutcome | None:
    """Train as a profile asks for: in rounds, or once, then in several processes if they are there.

    Returns:
        What was done; None in every process but the first.
    """
    if profile.curriculum.rounds == 1 or profile.curriculum.round is not None:
        return train_shared(profile, options, reporter=reporter)
    return train_rounds(profile, options, reporter=reporter)


class _Rounds:
    """The rounds of one run."""

    def __init__(
        self,
        profile: Profile,
        options: TrainOptions,
        reporter: Reporter,
        data: SplitReader,
        run: RunDirectory,
    ) -> None:
        self._profile, self._run = profile, run
        self._reporter, self._data = reporter, data
        self._options = TrainOptions(resume=True, origins=options.origins, variant=options.variant)
        self._ended_by = "budget"

    def train(self, labels: LabelSet) -> list[Round]:
        """Train round after round, until the budget is spent or another is not worth it."""
        steps = self._steps(len(labels.labels))
        done: list[Round] = []
        seconds = 0.0
        for number in range(1, len(steps) + 1):
            own = round_profile(self._profile, number, steps)
            write_text(own.run_path / "profile.toml", to_toml(own))
            change = None
            if done:
                labels, seconds = self._label(own)
                change = compare_labels(done[-1].labels.labels, labels.labels)
                done[-1] = self._judged(done[-1], labels)
                if self._is_over(done, change):
                    break
            write_labels(own.run_path, labels)
            self._reporter.info(f"round {number} of {len(steps)}: {steps[number - 1]} updates")
            outcome = self._train(own, labels)
            done.append(Round(number, own, labels, outcome, change, {}, seconds))
            self._write(done)
            if outcome.stopped_by is not None:
                self._ended_by = "collapse-guard"
                break
        return done

    def finish(self, done: Sequence[Round], start: Weights) -> TrainOutcome:
        """Make the run's adapter and journals of those of its rounds; return the outcome."""
        from ccrl_cli.models.mixing import mix_adapters

        kept = self._kept(done)
        back = self._profile.training.start_share
        parts = [(item.profile.run_path / "adapter", (1 - back) / len(kept)) for item in kept]
        mixed: list[tuple[Path | None, float]] = [*parts, (start.adapter, back)]
        mix_adapters([part for part in mixed if part[1]], self._run.adapter_path)
        for name in ("metrics", "stages"):
            write_json_lines(self._run.journal_path(name), _joined(done, name))
        facts = self._write(done)
        last = done[-1].outcome
        return TrainOutcome(
            adapter=str(self._run.adapter_path),
            steps=sum(item.outcome.steps for item in done),
            resumed_from=done[0].outcome.resumed_from,
            inputs=done[0].outcome.inputs,
            left_out=done[0].outcome.left_out,
            stages=self._run.read_journal("stages"),
            seconds=_added([item.outcome.seconds for item in done]),
            reportable=all(item.outcome.reportable for item in done),
            counts=dict(done[0].outcome.counts),
            kept_step=_kept_step(done, kept),
            stopped_by=last.stopped_by,
            warning=last.warning,
            backend=last.backend,
            rounds=facts,
            ended_by=self._ended_by,
        )

    def _steps(self, num_inputs: int) -> tuple[int, ...]:
        total, rounds = planned_steps(self._profile, num_inputs), self._profile.curriculum.rounds
        try:
            return share_out(total, rounds, self._profile.training.num_iterations)
        except ValueError as error:
            raise UsageError(
                f"{error}: every round needs an update of its own",
                hint="raise training.max_steps or training.epochs, or lower curriculum.rounds",
            ) from error

    def _label(self, own: Profile) -> tuple[LabelSet, float]:
        """Let the adapted policy label all inputs again; what is stored is not drawn again."""
        began = time.perf_counter()
        options = GenerateOptions(resume=True)
        made = generate(own, options, reporter=self._reporter, data=self._data)
        scored = score_types_if_needed(own, reporter=self._reporter, data=self._data)
        _free_memory()
        labels = load_labels(own, load_domain(own, "target", self._data))
        with RunDirectory(own.run_path) as place:
            mark = place.steps().get(LABEL_STEP)
            fresh = sum(made.generated.values()) or (scored is not None and scored.scored)
            if fresh or mark is None:
                mark = place.mark_done(LABEL_STEP, "", seconds=time.perf_counter() - began)
        return labels, round(mark.seconds, 1)

    def _train(self, own: Profile, labels: LabelSet) -> TrainOutcome:
        if self._profile.curriculum.continue_from == "start":
            own = own.with_values({"model.trained_adapter": self._profile.model.trained_adapter})
        outcome = train(own, self._options, reporter=self._reporter, data=self._data, labels=labels)
        _free_memory()
        return outcome

    def _judged(self, item: Round, later: LabelSet) -> Round:
        """Return a round with what the next one's labels say of it."""
        share = self._profile.curriculum.held_out_share
        keys = [key for key in item.labels.labels if is_held_out(key, share)]
        found = held_out_agreement(item.labels.labels, later.labels, keys)
        return replace(item, held_out=found)

    def _is_over(self, done: Sequence[Round], change: LabelChange) -> bool:
        """Return whether no further round is worth it, and say why."""
        told = None
        if len(done) > 1 and has_fallen(done[-2].held_out, done[-1].held_out):
            self._ended_by = "held-out"
            before, after = (_mean(item.held_out.values()) for item in done[-2:])
            told = (
                f"agreement with the labels of {len(done[-1].held_out)} held-out inputs fell from "
                f"{before:.1%} to {after:.1%}, and the round before is kept"
            )
        elif change.agreement >= self._profile.curriculum.stop_when_agreement:
            self._ended_by = "agreement"
            told = f"the labels of two rounds agree to {change.agreement:.1%}"
        if told is not None:
            self._reporter.info(f"no further round: {told}")
        return told is not None

    def _kept(self, done: Sequence[Round]) -> Sequence[Round]:
        """Return the rounds that the adapter is made of: not one that unlearnt held-out labels."""
        kept = list(done)
        if self._ended_by == "held-out" and len(kept) > 1:
            kept.pop()
        return kept if self._profile.curriculum.keep_rounds == "mean" else kept[-1:]

    def _write(self, done: Sequence[Round]) -> list[dict[str, Any]]:
        """Write what is known of the rounds so far."""
        facts = [_facts(item) for item in done]
        kept = [item.number for item in self._kept(done)]
        document = {"schema": 1, "rounds": facts, "ended_by": self._ended_by, "kept": kept}
        write_json(self._run.path / ROUNDS_FILE, document)
        return facts


def _facts(item: Round) -> dict[str, Any]:
    """Return what is kept of a round; no gold label is read."""
    labels = item.labels.labels.values()
    facts: dict[str, Any] = {
        "round": item.number,
        "run_dir": str(item.profile.run_path),
        "steps": item.outcome.steps,
        "kept_step": item.outcome.kept_step,
        "stopped_by": item.outcome.stopped_by,
        "inputs": item.outcome.inputs,
        "labelled": len(labels),
        "mean_confidence": _mean(label.confidence for label in labels),
        "mean_entities": _mean(len(label.entities) for label in labels),
        "agreement": item.change.agreement if item.change else None,
        "changed_share": item.change.changed_share if item.change else None,
        "held_out_inputs": len(item.held_out),
        "held_out_agreement": _mean(item.held_out.values()) if item.held_out else None,
        "seconds_label": item.seconds,
        "seconds_train": round(sum(item.outcome.seconds.values()), 1),
    }
    return facts


def _kept_step(done: Sequence[Round], kept: Sequence[Round]) -> int | None:
    """Return the step of all rounds whose weights the adapter holds; None of a mean."""
    if len(kept) > 1 or kept[0].outcome.kept_step is None:
        return None
    before = (item.outcome.steps for item in done if item.number < kept[0].number)
    return sum(before) + kept[0].outcome.kept_step


def _joined(done: Sequence[Round], name: str) -> list[dict[str, Any]]:
    """Return a journal of all rounds, steps and stages counted on."""
    rows: list[dict[str, Any]] = []
    steps = numbers = 0
    for item in done:
        found = RunDirectory(item.profile.run_path).read_journal(name)
        for row in found:
            moved = {**row, "step": row["step"] + steps, "round": item.number}
            if "stage" in row:
                moved["stage"] = row["stage"] + numbers
            rows.append(moved)
        steps += item.outcome.steps
        numbers += max((row["stage"] for row in found if "stage" in row), default=0)
    return rows


def _added(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = round(total.get(name, 0.0) + value, 2)
    return total


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def _free_memory() -> None:
    from ccrl_cli.models.loading import free_memory

    free_memory()

"""Journals and display of a training: records of steps and stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ccrl_cli.core.curriculum import Stage

if TYPE_CHECKING:
    from ccrl_cli.reporting import Progress
    from ccrl_cli.store.runs import RunDirectory
    from ccrl_cli.trainers.base import GrpoSettings
    from ccrl_cli.trainers.trackers import Tracker

_STAGE_MEANS = ("reward", "reward_overlap", "kl", "zero_spread_share", "valid_share", "entities")

_SHOWN = {
    "reward": "reward",
    "overlap": "reward_overlap",
    "format": "reward_format",
    "KL": "kl",
    "no spread": "zero_spread_share",
    "tok/s": "tokens_per_second",
}
"""Name on the display -> name in the record."""


class TrainingJournal:
    """Writes step and stage records, shows progress, and copies numbers to trackers.

    Args:
        run: the run directory.
        progress: display.
        plan: the stages that are planned.
        settings: options of the training.
        trackers: services that get a copy.
    """

    def __init__(
        self,
        run: RunDirectory,
        progress: Progress,
        plan: Sequence[Stage],
        settings: GrpoSettings,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self._run = run
        self._progress = progress
        self._plan = list(plan)
        self._per_step = settings.num_iterations
        self._num_steps = settings.num_steps
        self._trackers = list(trackers)
        self._records: list[dict[str, Any]] = []
        self._shown = 0
        self._written = 0
        self._fields: dict[str, object] = {}
        self._open()

    def _open(self) -> None:
        self._metrics = self._run.journal("metrics")
        self._stages = self._run.journal("stages")

    def on_resume(self, step: int) -> None:
        """Forget the records after the step that training goes on from."""
        self._close_files()
        self._run.rewind(step)
        self._records = self._run.read_journal("metrics")
        self._open()
        self._progress.advance(step)
        self._shown = step

    def on_step(self, record: dict[str, Any]) -> None:
        """Keep the record of a step, and that of a stage when one ends."""
        self._metrics.append(record)
        self._records.append(record)
        step = int(record["step"])
        self._show(step, record)
        self._track(step, record)
        stopped = {"stopped_by": record["stopped_by"]} if "stopped_by" in record else {}
        for stage in self._plan:
            ends = min(stage.end_step * self._per_step, self._num_steps) == step
            if ends or (stopped and self._is_in(stage, step)):
                self._stages.append({**self._stage_record(stage, step), **stopped})

    def close(self) -> None:
        """Close the journals and trackers; safe to call twice."""
        self._close_files()
        while self._trackers:
            self._trackers.pop().close()

    def _close_files(self) -> None:
        for writer in (self._metrics, self._stages):
            writer.close()

    def _show(self, step: int, record: Mapping[str, Any]) -> None:
        for stage in (stage for stage in self._plan if self._is_in(stage, step)):
            self._fields["stage"] = f"{stage.number}/{len(self._plan)}"
        self._fields["open"] = f"{record['open_share']:.0%}"
        for name, key in _SHOWN.items():
            if record.get(key) is not None:
                value = record[key]
                self._fields[name] = f"{value:.0f}" if value >= 10 else f"{value:.3f}"
        self._progress.advance(step - self._shown, **self._fields)
        self._shown = step

    def _track(self, step: int, record: Mapping[str, Any]) -> None:
        if not self._trackers:
            return
        from ccrl_cli.trainers.trackers import numbers

        for tracker in self._trackers:
            tracker.log(step, numbers(record))

    def _is_in(self, stage: Stage, step: int) -> bool:
        return stage.first_step * self._per_step < step <= stage.end_step * self._per_step

    def _stage_record(self, stage: Stage, step: int) -> dict[str, Any]:
        first = stage.first_step * self._per_step
        inside = [r for r in self._records if first < r["step"] <= step]
        means = {}
        for name in _STAGE_MEANS:
            values = [r[name] for r in inside if r.get(name) is not None]
            if values:
                means[name] = round(sum(values) / len(values), 6)
        return {
            "step": step,
            "stage": stage.number,
            "steps": step - first,
            "num_open": stage.num_open,
            "open_share": inside[-1]["open_share"] if inside else None,
            **means,
        }


@contextmanager
def open_journal(
    run: RunDirectory,
    progress: Progress,
    plan: Sequence[Stage],
    settings: GrpoSettings,
    trackers: Sequence[Tracker],
) -> Iterator[TrainingJournal]:
    """Open the journals of a training; `on_resume` cuts them to where it begins."""
    journal = TrainingJournal(run, progress, plan, settings, trackers)
    try:
        yield journal
    finally:
        journal.close()

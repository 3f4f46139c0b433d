"""The record of a step: the library's numbers, what rollouts earned, where the time went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ccrl_cli.core.curriculum import CurriculumSampler, Schedule
from ccrl_cli.core.telemetry import make_groups, summarise
from ccrl_cli.trainers import ranks
from ccrl_cli.trainers.base import GrpoSettings
from ccrl_cli.trainers.rollouts import Rewards, Rollouts

_FROM_LIBRARY = {
    "loss": "loss",
    "gradient_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "kl_rollouts": "kl",
    "clipped_share": "clip_ratio/region_mean",
}
"""Our name -> the library's, of numbers that are its own."""


class StepRecorder:
    """Makes the record of each step, and tells the sampler how much reward spread there was.

    Args:
        rollouts: what was drawn.
        rewards: what it earned.
        sampler: the curriculum's draws.
        settings: options of the run.
        schedule: what is open when.
    """

    def __init__(
        self,
        rollouts: Rollouts,
        rewards: Rewards,
        sampler: CurriculumSampler,
        settings: GrpoSettings,
        schedule: Schedule,
    ) -> None:
        self._schedule = schedule
        self._rollouts, self._rewards = rollouts, rewards
        self._sampler, self._settings = sampler, settings
        self._clock = time.perf_counter()
        self.totals = {"generate": 0.0, "score": 0.0, "train": 0.0, "probe": 0.0}

    def restart_clock(self) -> None:
        """Begin to time the next step."""
        self._clock = time.perf_counter()

    @contextmanager
    def timed(self, part: str, record: dict[str, Any] | None = None) -> Iterator[None]:
        """Time a part that is no part of a step's own work."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.totals[part] = self.totals.get(part, 0.0) + seconds
        if record is not None:
            record[f"seconds_{part}"] = round(seconds, 4)

    def record(self, step: int, logs: Mapping[str, float]) -> dict[str, Any]:
        """Return the record of a step; the same in every process but for times.

        Args:
            step: optimiser steps done.
            logs: the library's numbers.
        """
        parts = self._split_seconds()
        rows = ranks.gathered(self._rewards.rows)
        self._rewards.rows = []
        groups = make_groups(rows, self._settings.num_generations)
        own = [group for group in groups if not group.replayed]
        for group in own:
            self._sampler.observe(group.input_id, group.spread)
        tokens = sum(ranks.gathered([self._rollouts.tokens]))
        self._rollouts.tokens = 0
        schedule = self._schedule
        opened = schedule.num_open((step - 1) // self._settings.num_iterations)
        record: dict[str, Any] = {
            "step": step,
            "inputs": [group.input_id for group in own],
            "num_open": opened,
            "open_share": opened / schedule.num_inputs,
        }
        for name, theirs in _FROM_LIBRARY.items():
            if theirs in logs or name in ("gradient_norm", "learning_rate", "entropy"):
                record[name] = logs.get(theirs)
        if len(own) < len(groups):
            record["replayed"] = [group.input_id for group in groups if group.replayed]
        seconds = sum(parts.values())
        return {
            **record,
            **summarise(rows, groups),
            **{f"seconds_{name}": round(value, 4) for name, value in parts.items()},
            "tokens_per_second": round(tokens / max(1e-9, seconds), 1),
            "completions_per_second": round(
                sum(not row.off_policy for row in rows) / max(1e-9, seconds), 2
            ),
        }

    def _split_seconds(self) -> dict[str, float]:
        """Split the time since the clock was restarted into generate, score and train."""
        total = time.perf_counter() - self._clock
        parts = {"generate": self._rollouts.seconds, "score": self._rewards.seconds}
        parts["train"] = max(0.0, total - sum(parts.values()))
        self._rollouts.seconds = self._rewards.seconds = 0.0
        for name, value in parts.items():
            self.totals[name] += value
        return parts

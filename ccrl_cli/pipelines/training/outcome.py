"""What a training leaves: its outcome, and the mark of an arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ARM_STEP = "arm"
"""Mark of an arm that is trained and scored, with what a comparison must know of it."""

ROUNDS = "rounds"
"""Folder of a run that holds a folder for each of its rounds."""

ROUNDS_FILE = "rounds.json"
"""What each round of a run was, and why they ended."""


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """What the training did.

    Attributes:
        adapter: folder of the trained adapter.
        steps: optimiser steps.
        resumed_from: step that this call went on from; 0 when it began.
        inputs: inputs of the curriculum.
        left_out: inputs below the threshold, held out, or with a prompt that is too long.
        stages: means by stage.
        seconds: wall seconds by part, of this call.
        reportable: False when the labels came from a mock backend.
        counts: inputs, and completions that did not parse.
        already_done: this call found the training finished.
        kept_step: step whose weights the adapter holds; 0 is the start.
        stopped_by: rule of the collapse guard that ended the training, if one did.
        warning: what the user should know of it.
        backend: trainer.
        processes: processes that trained together.
        rounds: what each round was, where there were several; see docs/training.md.
        ended_by: why rounds ended: ``budget``, ``agreement`` or ``held-out``; None without rounds.
    """

    adapter: str
    steps: int
    resumed_from: int
    inputs: int
    left_out: int
    stages: list[dict[str, Any]]
    seconds: Mapping[str, float]
    reportable: bool
    counts: Mapping[str, int] = field(default_factory=dict)
    already_done: bool = False
    kept_step: int | None = None
    stopped_by: str | None = None
    warning: str | None = None
    backend: str = "trl"
    processes: int = 1
    rounds: list[dict[str, Any]] = field(default_factory=list)
    ended_by: str | None = None

"""What a checkpoint holds beside the library's own files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccrl_cli.files import move

STATE_FILE = "ccrl.json"
"""Sampler and guard; written last, so a checkpoint that has it is whole."""

LIBRARY_FILE = "trainer_state.json"
"""The last file that the library itself writes."""

WHOLE = (STATE_FILE, LIBRARY_FILE)
"""What a checkpoint of GRPO must hold; a supervised one has the library's alone."""


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state into a checkpoint, atomically."""
    place = folder / STATE_FILE
    fresh = place.with_suffix(".new")
    fresh.write_text(json.dumps(state), encoding="utf-8")
    move(fresh, place)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state of a checkpoint."""
    content: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return content


def last_complete_checkpoint(work: Path, needed: Sequence[str] = WHOLE) -> Path | None:
    """Return the newest checkpoint that holds everything a resume needs, else None."""
    whole = [folder for folder in _checkpoints(work) if _holds(folder, needed)]
    return max(whole, key=checkpoint_step, default=None)


def remove_incomplete_checkpoints(work: Path, needed: Sequence[str] = WHOLE) -> None:
    """Remove checkpoints that a kill cut short: the library would count them as the newest."""
    for folder in _checkpoints(work):
        if not _holds(folder, needed):
            shutil.rmtree(folder, ignore_errors=True)


def _checkpoints(work: Path) -> list[Path]:
    return [p for p in work.glob("checkpoint-*") if p.name.split("-")[-1].isdigit()]


def _holds(folder: Path, names: Sequence[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def checkpoint_step(folder: Path) -> int:
    """Return the optimiser step of a checkpoint."""
    return int(folder.name.split("-")[-1])

"""What a checkpoint holds beside the library's own files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATE_FILE = "ccrl.json"
"""Sampler, guard and dynamic curriculum; written last, so a checkpoint that has it is whole."""


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the state into a checkpoint, atomically."""
    place = folder / STATE_FILE
    fresh = place.with_suffix(".new")
    fresh.write_text(json.dumps(state), encoding="utf-8")
    fresh.replace(place)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state of a checkpoint."""
    content: dict[str, Any] = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return content


def last_complete_checkpoint(work: Path) -> Path | None:
    """Return the newest checkpoint that holds everything a resume needs, else None."""
    return max(filter(_is_complete, _checkpoints(work)), key=checkpoint_step, default=None)


def remove_incomplete_checkpoints(work: Path) -> None:
    """Remove checkpoints that a kill cut short: the library would count them as the newest."""
    for folder in _checkpoints(work):
        if not _is_complete(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _checkpoints(work: Path) -> list[Path]:
    return [p for p in work.glob("checkpoint-*") if p.name.split("-")[-1].isdigit()]


def _is_complete(folder: Path) -> bool:
    return (folder / STATE_FILE).is_file() and (folder / "trainer_state.json").is_file()


def checkpoint_step(folder: Path) -> int:
    """Return the optimiser step of a checkpoint."""
    return int(folder.name.split("-")[-1])

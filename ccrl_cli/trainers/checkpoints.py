"""What a checkpoint holds beside the library's own files."""

from __future__ import annotations

import json
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
    found = sorted(
        (p for p in work.glob("checkpoint-*") if p.name.split("-")[-1].isdigit()),
        key=checkpoint_step,
        reverse=True,
    )
    for folder in found:
        if (folder / STATE_FILE).is_file() and (folder / "trainer_state.json").is_file():
            return folder
    return None


def checkpoint_step(folder: Path) -> int:
    """Return the optimiser step of a checkpoint."""
    return int(folder.name.split("-")[-1])

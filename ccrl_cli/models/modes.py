"""Weights for everybody who may read new files: safetensors writes for the owner alone."""

from __future__ import annotations

import os
from pathlib import Path


def open_weights(folder: Path) -> None:
    """Give the weights in a folder the mode that any new file of the process has."""
    mask = os.umask(0)
    os.umask(mask)
    for place in folder.rglob("*.safetensors"):
        if not place.is_symlink():
            place.chmod(0o666 & ~mask)

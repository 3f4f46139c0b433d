"""Unsloth, imported before what it changes.

It replaces parts of transformers, PEFT and TRL while it is imported; what was loaded earlier keeps
the old parts. So nothing here imports any of them.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ccrl_cli.errors import PreconditionError

#: Longest prompt and answer that position tables are made for.
LONGEST = 8192
_BEFORE = ("transformers", "trl", "peft")


def import_unsloth() -> Any:
    """Import Unsloth before what it changes.

    Raises:
        PreconditionError: it is not installed, there is no GPU, or it would come too late.
    """
    if "unsloth" not in sys.modules:
        if find_spec("unsloth") is None:
            raise PreconditionError(
                "the unsloth backend needs the package unsloth, which this Python does not have",
                hint='pip install "ccrl[unsloth]", or choose another --backend',
            )
        if not torch.cuda.is_available():
            raise PreconditionError(
                "the unsloth backend needs a GPU, and PyTorch finds none",
                hint="choose another --backend; see `ccrl doctor`",
            )
        if early := [name for name in _BEFORE if name in sys.modules]:
            raise PreconditionError(
                f"Unsloth must be imported before {', '.join(early)}, which this process loaded",
                hint="call the command again (a conversion that came first is done now), or "
                "choose another --backend",
            )
    import unsloth

    return unsloth


def longest_context(folder: Path) -> int:
    """Return how long prompt and answer may be: what the model was made for, up to `LONGEST`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    return min(LONGEST, int(config.get("max_position_embeddings", LONGEST)))

"""Which weights, and how they are loaded: two values that every step hands on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Weights:
    """A model folder and the adapter on it.

    Attributes:
        folder: model folder.
        adapter: adapter folder in PEFT format, or None for the model alone.
        revision: what identifies the model's weights.
        digest: what identifies the adapter's weights.
    """

    folder: Path
    adapter: Path | None = None
    revision: str | None = None
    digest: str | None = None

    @property
    def identity(self) -> str:
        """Both identifications in one string."""
        return f"{self.revision}+{self.digest}"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How weights are put into memory.

    Attributes:
        dtype: ``auto``, ``bfloat16``, ``float16`` or ``float32``.
        load_in_4bit: NF4 weights through bitsandbytes (needs a GPU).
        attention: attention implementation of transformers.
    """

    dtype: str = "auto"
    load_in_4bit: bool = False
    attention: str = "sdpa"

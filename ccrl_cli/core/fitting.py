"""The smallest change of settings that makes a memory plan fit; pure search over `core.memory`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from ccrl_cli.core.memory import (
    Architecture,
    GenerationLoad,
    TrainingLoad,
    generation_plan,
    training_peak,
    training_plan,
)

FOUR_BIT = "nf4"
_WIDE = frozenset({"float32", "bfloat16", "float16"})


def fit_generation(shape: Architecture, load: GenerationLoad, memory: int) -> GenerationLoad | None:
    """Return the load itself if it fits, else the nearest one that does, or None.

    Fewer inputs in flight are tried before 4-bit weights: they cost time, not quality.
    """
    for fmt in _formats(load.fmt):
        for inputs in _halved(load.inputs):
            tried = replace(load, fmt=fmt, inputs=inputs)
            if sum(generation_plan(shape, tried).values()) <= memory:
                return tried
    return None


def fit_training(shape: Architecture, load: TrainingLoad, memory: int) -> TrainingLoad | None:
    """Return the load itself if it fits, else the nearest one that does, or None.

    In order of preference: smaller micro-batches (slower), recomputed activations (slower), fewer
    prompts in a step (noisier), 4-bit weights (less exact).
    """
    for fmt, prompts, checkpointing in product(
        _formats(load.fmt), _halved(load.prompts), _switched(load.checkpointing)
    ):
        rows = prompts * load.group
        for micro in _halved(min(load.micro_batch, rows)):
            tried = replace(
                load, fmt=fmt, prompts=prompts, checkpointing=checkpointing, micro_batch=micro
            )
            if rows % micro == 0 and training_peak(training_plan(shape, tried)) <= memory:
                return tried
    return None


def _formats(fmt: str) -> tuple[str, ...]:
    return (fmt, FOUR_BIT) if fmt in _WIDE else (fmt,)


def _switched(value: bool) -> tuple[bool, ...]:
    return (True,) if value else (False, True)


def _halved(value: int) -> Iterator[int]:
    while value:
        yield value
        value //= 2

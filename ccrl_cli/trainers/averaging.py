"""The mean of the last weights of a training (LAWA, Kaddour 2209.14981)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ccrl_cli.trainers.probe import adapter_weights, write_adapter

AVERAGE_FILE = "average.safetensors"
"""Mean of the weights so far, inside a checkpoint."""


class WeightAverage:
    """Averages the adapter over the last share of the steps, in float32.

    Args:
        model: the policy.
        num_steps: optimiser steps of the training.
        share: of them, the last, at least one; 0 averages nothing.
    """

    def __init__(self, model: Any, num_steps: int, share: float) -> None:
        self._model = model
        self._first = num_steps - max(1, round(share * num_steps)) + 1 if share else None
        self._count = 0
        self._mean: dict[str, torch.Tensor] = {}

    def after_step(self, step: int) -> None:
        """Take the weights after a step into the mean, if it is among the last."""
        if self._first is None or step < self._first:
            return
        self._count += 1
        for name, value in adapter_weights(self._model):
            now = value.detach().to("cpu", torch.float32, copy=True)
            mean = self._mean.get(name)
            self._mean[name] = now if mean is None else mean.lerp_(now, 1 / self._count)

    def restore(self) -> None:
        """Put the mean into the model, if there is one."""
        if self._mean:
            write_adapter(self._model, self._mean)

    def save(self, folder: Path) -> int:
        """Write the mean into a checkpoint; return how many steps are in it."""
        from safetensors.torch import save_file

        if self._mean:
            save_file(self._mean, str(folder / AVERAGE_FILE))
        return self._count

    def load(self, folder: Path, count: int) -> None:
        """Go on from a checkpoint."""
        from safetensors.torch import load_file

        self._count = count
        self._mean = load_file(str(folder / AVERAGE_FILE)) if count else {}

"""The collapse guard at work: judges each record, keeps the best policy, puts it back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ccrl_cli.core.collapse import Alarm, BestPolicy, CollapseGuard
from ccrl_cli.trainers.base import GrpoSettings
from ccrl_cli.trainers.probe import adapter_weights, write_adapter

BEST_FILE = "best.safetensors"
"""Weights of the best policy so far, inside a checkpoint."""


class Guard:
    """Judges the records of a training and keeps its best policy.

    Policies are compared by the F1 of their answers to the pseudo-labels of the probe, on the same
    inputs each time; not by reward, which a collapse may well raise. Without a probe it is the F1
    of a step's rollouts, of whichever inputs it drew.

    Args:
        model: the policy; its adapter as it is now is the first candidate.
        settings: limits, or none: the best policy is kept in any case.
        has_probe: whether records say ``probe_f1``.
    """

    def __init__(self, model: Any, settings: GrpoSettings, *, has_probe: bool) -> None:
        self._model = model
        self._rules = CollapseGuard(settings.guard) if settings.guard is not None else None
        self._best = BestPolicy()
        self._has_probe = has_probe
        self._weights = _copied(model)
        self._candidate: dict[str, torch.Tensor] = {}
        self.alarm: Alarm | None = None

    @property
    def best_step(self) -> int:
        """The step whose weights are the best so far; 0 is the start."""
        return self._best.step

    def start(self, values: Mapping[str, float]) -> None:
        """Take the probe's values of the starting policy."""
        if self._rules is not None:
            self._rules.start(values)
        if "probe_f1" in values:
            self._best.offer(0, values["probe_f1"], values.get("kl"))

    def before_step(self) -> None:
        """Remember the policy that draws the rollouts of the next step."""
        if not self._has_probe:
            self._candidate = _copied(self._model)

    def observe(self, record: Mapping[str, Any]) -> Alarm | None:
        """Judge the record of a step; return the alarm that ends the training, or None."""
        step = int(record["step"])
        if self._rules is not None and self.alarm is None:
            self.alarm = self._rules.observe(record)
        if self.alarm is not None:
            return self.alarm
        if self._has_probe:
            score = record.get("probe_f1")
            if score is not None and self._best.offer(step, score, record.get("kl")):
                self._weights = _copied(self._model)
        elif "label_f1" in record and self._best.offer(step - 1, record["label_f1"]):
            self._weights = self._candidate
        return None

    def restore(self) -> int:
        """Put the best policy back into the model; return its step."""
        write_adapter(self._model, self._weights)
        return self._best.step

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later judgements depend on but the weights."""
        rules = self._rules.state_dict() if self._rules is not None else None
        return {"rules": rules, "best": self._best.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        if self._rules is not None and state["rules"] is not None:
            self._rules.load_state_dict(state["rules"])
        self._best.load_state_dict(state["best"])

    def save_weights(self, folder: Path) -> None:
        """Write the best policy's weights into a checkpoint."""
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in self._weights.items()}, str(folder / BEST_FILE))

    def load_weights(self, folder: Path) -> None:
        """Read the best policy's weights of a checkpoint."""
        from safetensors.torch import load_file

        self._weights = load_file(str(folder / BEST_FILE))


def _copied(model: Any) -> dict[str, torch.Tensor]:
    """Return a copy of the adapter in the machine's memory."""
    return {name: value.detach().to("cpu", copy=True) for name, value in adapter_weights(model)}

"""Teachers of the dynamic curriculum: who answers when confidence is estimated again.

The live policy is no teacher: it agrees with the labels it is trained on. ``base`` is the policy
with its adapter off, which never moves; ``ema`` is a moving average of the adapter, which follows
slowly (Tarvainen and Valpola, 1703.01780).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch


class Teacher(Protocol):
    """A policy beside the live one, on the same weights."""

    def update(self, model: Any) -> None:
        """Follow the live policy after an optimiser step."""

    def applied(self, model: Any) -> Any:
        """Return a context in which the model answers as the teacher."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the teacher is made of, to be saved with a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""


class BaseTeacher:
    """The starting policy: a PEFT model with its adapter off.

    Right where training starts from a bare base model. If it starts from a warmed-up adapter,
    turning that off would undo the warm-up: use :class:`EmaTeacher` with a decay of 1.
    """

    def update(self, model: Any) -> None:
        """Do nothing: the base does not move."""

    @contextmanager
    def applied(self, model: Any) -> Iterator[Any]:
        """Turn the adapter off inside the context."""
        with model.disable_adapter():
            yield model

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is nothing to save."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""


class EmaTeacher:
    """A moving average of the trainable weights, kept in float32.

    Args:
        model: the policy; its trainable parameters (the adapter) are averaged.
        decay: share of the old average that a step keeps; 1 keeps the start for ever.

    Raises:
        ValueError: the decay is not in [0, 1].
    """

    def __init__(self, model: Any, decay: float) -> None:
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay is {decay}, not in [0, 1]")
        self.decay = decay
        self._average = {
            name: parameter.detach().to(torch.float32).clone()
            for name, parameter in _trainable(model)
        }

    def update(self, model: Any) -> None:
        """Move the average towards the live weights: a + (1 − decay)·(w − a)."""
        with torch.no_grad():
            for name, parameter in _trainable(model):
                average = self._average[name]
                average.lerp_(parameter.detach().to(average), 1.0 - self.decay)

    @contextmanager
    def applied(self, model: Any) -> Iterator[Any]:
        """Put the average in the place of the live weights inside the context."""
        live = {name: parameter.detach().clone() for name, parameter in _trainable(model)}
        try:
            _write(model, self._average)
            yield model
        finally:
            _write(model, live)

    def state_dict(self) -> dict[str, Any]:
        """Return the average by parameter name."""
        return dict(self._average)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved average.

        Raises:
            ValueError: it belongs to other parameters.
        """
        if set(state) != set(self._average):
            raise ValueError("the saved average belongs to other parameters")
        for name, value in state.items():
            self._average[name].copy_(value)


def make_teacher(source: str, model: Any, *, decay: float) -> Teacher | None:
    """Return the teacher of a refresh source; None for ``rollouts``, which need none."""
    if source == "rollouts":
        return None
    return EmaTeacher(model, decay) if source == "ema" else BaseTeacher()


def _trainable(model: Any) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def _write(model: Any, weights: Mapping[str, Any]) -> None:
    with torch.no_grad():
        for name, parameter in _trainable(model):
            parameter.copy_(weights[name])

"""Services that get a copy of each record: TensorBoard, trackio, Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ccrl_cli.errors import PreconditionError

PROJECT = "ccrl"


class Tracker(Protocol):
    """A place that records are copied to."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Copy the numbers of a step."""

    def close(self) -> None:
        """Hand over what is still waiting."""


class TensorBoardTracker:
    """Event files below the run directory: ``tensorboard --logdir runs``."""

    def __init__(self, folder: Path, run_name: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))
        lines = [f"{name} = {value}" for name, value in settings.items()]
        self._writer.add_text(f"{run_name}/settings", "  \n".join(lines))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Copy the numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still waiting."""
        self._writer.close()


class ServiceTracker:
    """trackio or wandb, which share one interface."""

    def __init__(self, module: str, run_name: str, settings: Mapping[str, Any]) -> None:
        from importlib import import_module

        self._service: Any = import_module(module)
        self._service.init(project=PROJECT, name=run_name, config=dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step."""
        self._service.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is still waiting."""
        self._service.finish()


_Maker = Callable[[Path, str, Mapping[str, Any]], Tracker]

TRACKERS: dict[str, _Maker] = {
    "tensorboard": TensorBoardTracker,
    "trackio": lambda _folder, name, settings: ServiceTracker("trackio", name, settings),
    "wandb": lambda _folder, name, settings: ServiceTracker("wandb", name, settings),
}


def require_trackers(names: Sequence[str]) -> None:
    """Check that the packages of trackers are installed, before anything is loaded.

    Raises:
        PreconditionError: one is not.
    """
    for name in names:
        if find_spec(name) is None:
            raise PreconditionError(
                f"training.trackers names {name}, which this Python does not have",
                hint=f"pip install {name}, or leave it out of training.trackers",
            )


def open_trackers(
    names: Sequence[str], folder: Path, run_name: str, settings: Mapping[str, Any]
) -> list[Tracker]:
    """Open trackers by name.

    Args:
        names: which.
        folder: where files go.
        run_name: what the run is called.
        settings: options of the run, shown beside it.

    Raises:
        PreconditionError: a package is missing.
    """
    require_trackers(names)
    return [TRACKERS[name](folder, run_name, settings) for name in names]


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the plain numbers of a record."""
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }

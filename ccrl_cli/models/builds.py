"""Which PyTorch build fits the GPUs and their driver: the table of ``docs/installing.md``.

The install scripts have the same table, because they run before there is a Python. CUDA 12 builds
run on every driver of CUDA 12 (NVIDIA's minor-version compatibility), CUDA 13 needs driver 580; a
build has kernels for the compute capabilities between two limits (``torch.cuda.get_arch_list``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

#: Lowest driver that a CUDA 12 build runs on; in WSL it is the driver of Windows that counts.
LEAST_DRIVER = {"Linux": (525, 60), "Windows": (528, 33)}
#: Lowest compute capability that a build has kernels for.
_LOWEST = {"cu126": (5, 0), "cu128": (7, 5), "cu130": (7, 5)}
_ROW = re.compile(r"\s*(\d[\d.]*),\s*(?:(\d+)\.(\d+)|\[[^\]]*\]),\s*(.*\S)")


@dataclass(frozen=True, slots=True)
class Card:
    """An NVIDIA GPU as its driver names it.

    Attributes:
        name: its name.
        capability: compute capability, such as (8, 9); None where the driver does not say.
        driver: version of the driver.
    """

    name: str
    capability: tuple[int, int] | None
    driver: str

    def __str__(self) -> str:
        """Return name and compute capability."""
        shown = "unknown" if self.capability is None else "{}.{}".format(*self.capability)
        return f"{self.name} (compute capability {shown})"


@dataclass(frozen=True, slots=True)
class Build:
    """The PyTorch build that fits a machine.

    Attributes:
        name: uv's name of the backend (``cu126``, ``cpu``), or ``pypi`` for the package index.
        reason: why this one.
        without: cards that it has no kernels for.
    """

    name: str
    reason: str
    without: tuple[Card, ...] = ()


def parse_cards(text: str) -> tuple[Card, ...]:
    """Read what nvidia-smi says: one line ``driver, compute capability, name`` a card."""
    found = []
    for line in text.splitlines():
        if row := _ROW.match(line):
            capability = (int(row[2]), int(row[3])) if row[2] else None
            found.append(Card(row[4], capability, row[1]))
    return tuple(found)


def pick_build(cards: Sequence[Card], system: str) -> Build:
    """Return the build for the newest card and the driver.

    Args:
        cards: the NVIDIA GPUs, all on one driver.
        system: ``Linux``, ``Windows`` (WSL too, whose driver is that of Windows) or ``Darwin``.
    """
    if system == "Darwin":
        return Build("pypi", "one build serves every Mac")
    if not cards:
        return Build("cpu", "there is no NVIDIA GPU")
    # A card that does not say is taken for one that every build has kernels for.
    newest = max(card.capability or (8, 0) for card in cards)
    numbers = [int(part) for part in cards[0].driver.split(".")[:2]]
    driver = (numbers[0], numbers[1] if len(numbers) > 1 else 0)
    least = LEAST_DRIVER.get(system, LEAST_DRIVER["Linux"])
    if driver < least:
        return Build("cpu", "the CUDA builds need driver {}.{} or newer".format(*least))
    if driver[0] >= 580 and newest >= (7, 5):
        name, reason = "cu130", "the driver runs CUDA 13, which has kernels from 7.5 on"
    elif driver[0] >= 580:
        name, reason = "cu126", "CUDA 13 has no kernels below 7.5"
    elif newest >= (10, 0):
        name, reason = "cu128", "before driver 580 only this one has kernels from 10.0 on"
    else:
        name, reason = "cu126", "drivers before 580 run CUDA 12"
    without = [card for card in cards if (card.capability or (8, 0)) < _LOWEST[name]]
    return Build(name, reason, tuple(without))


def installed_build() -> str | None:
    """Return the build of the PyTorch in place, such as ``cu126`` or ``cpu``; None without it."""
    if find_spec("torch") is None:
        return None
    import torch

    if torch.version.cuda is not None:
        return "cu" + str(torch.version.cuda).replace(".", "")
    local = str(torch.__version__).partition("+")[2]
    return local if local.startswith(("rocm", "xpu")) else "cpu"

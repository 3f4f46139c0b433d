"""What this machine has: GPUs and their memory, main memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec

from ccrl_cli.models.builds import Card, parse_cards

MIB = 1 << 20
_WSL = "/usr/lib/wsl/lib"  # where WSL has nvidia-smi, not always on PATH


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU.

    Attributes:
        name: its name.
        total: bytes of its memory.
        free: bytes that nobody holds.
        seen_by_torch: whether PyTorch can use it.
    """

    name: str
    total: int
    free: int
    seen_by_torch: bool


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that PyTorch sees, else those that the driver reports."""
    if find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            found = []
            for index in range(torch.cuda.device_count()):
                free, total = torch.cuda.mem_get_info(index)
                found.append(Gpu(torch.cuda.get_device_name(index), total, free, True))
            return tuple(found)
    return _driver_gpus()


def count_gpus() -> int:
    """Return how many GPUs PyTorch sees, else the driver; none of them is touched."""
    if find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.device_count())
    return len(_driver_gpus())


def find_cards() -> tuple[Card, ...]:
    """Return the NVIDIA GPUs that the driver reports, whatever PyTorch sees."""
    return parse_cards(_ask_driver("driver_version,compute_cap,name"))


def _driver_gpus() -> tuple[Gpu, ...]:
    return parse_gpus(_ask_driver("name,memory.total,memory.free", "nounits"))


def _ask_driver(fields: str, *formats: str) -> str:
    """Return nvidia-smi's answer; it can be good where the exit code is not (a damaged infoROM)."""
    command = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path=_WSL)
    if command is None:
        return ""
    words = [
        command,
        f"--query-gpu={fields}",
        "--format=" + ",".join(("csv", "noheader", *formats)),
    ]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """Read what nvidia-smi says: one line ``name, total MiB, free MiB`` a GPU."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 2)]
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            found.append(Gpu(parts[0], int(parts[1]) * MIB, int(parts[2]) * MIB, False))
    return tuple(found)


def main_memory() -> int | None:
    """Return the bytes of main memory; None where the system does not say."""
    if find_spec("psutil") is not None:
        import psutil

        return int(psutil.virtual_memory().total)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None

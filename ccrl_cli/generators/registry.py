"""Generation backends by name, and which of them runs here; one is imported when asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ccrl_cli.errors import UsageError
from ccrl_cli.generators.base import Generator

BACKENDS: dict[str, str] = {
    "transformers": "ccrl_cli.generators.transformers:TransformersGenerator",
    "unsloth": "ccrl_cli.generators.unsloth:UnslothGenerator",
    "vllm": "ccrl_cli.generators.vllm:VllmGenerator",
    "openai": "ccrl_cli.generators.openai_compatible:OpenAICompatibleGenerator",
    "ollama": "ccrl_cli.generators.openai_compatible:OllamaGenerator",
    "mock": "ccrl_cli.generators.mock:MockGenerator",
}
#: Backends that ask a server, and load no model.
SERVERS = frozenset({"openai", "ollama"})
#: Backends that can hold answers to a schema.
CONSTRAINED = frozenset({"transformers", "vllm", "openai", "ollama"})
_PACKAGES = ("torch", "transformers", "peft", "vllm", "unsloth", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides which backends run.

    Attributes:
        packages: installed ones, of those that backends need.
        gpu: whether PyTorch finds a GPU.
    """

    packages: frozenset[str]
    gpu: bool


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a backend runs here, and why or why not."""

    name: str
    usable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GeneratorRecipe:
    """How to make a generator, in this process or another one: plain values that can be sent.

    Attributes:
        backend: its name.
        arguments: of its class.
        options: of its class, by name.
    """

    backend: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> Generator:
        """Return the generator, its model loaded."""
        generator: Generator = backend_class(self.backend)(*self.arguments, **self.options)
        return generator


def find_machine() -> Machine:
    """Look at the packages and the GPU of this Python."""
    packages = frozenset(name for name in _PACKAGES if find_spec(name) is not None)
    gpu = False
    if "torch" in packages:
        import torch

        gpu = torch.cuda.is_available()
    return Machine(packages, gpu)


def backend_class(name: str) -> Any:
    """Return the class of a backend.

    Raises:
        UsageError: there is no backend of that name.
    """
    place = BACKENDS.get(name)
    if place is None:
        raise UsageError(
            f"there is no generation backend {name!r}", hint=f"choose from {', '.join(BACKENDS)}"
        )
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def availabilities(machine: Machine) -> tuple[Availability, ...]:
    """Return for each backend whether it runs on a machine, and why or why not."""
    local = {"torch", "transformers"} - machine.packages
    found = {
        "transformers": (not local, f"needs {' and '.join(sorted(local))}" if local else "local"),
        "unsloth": _availability("unsloth", machine, needs_gpu=True),
        "vllm": _availability("vllm", machine, needs_gpu=False),
        "openai": (True, "asks a server, with any model that it serves"),
        "ollama": (True, "asks Ollama, with any model that it has"),
        "mock": (True, "corrupts gold labels; for dry runs"),
    }
    return tuple(Availability(name, *found[name]) for name in BACKENDS)


def how_to_install(package: str) -> str:
    """Return how to come to a backend's package on this system."""
    if package == "vllm" and sys.platform == "win32":
        return "vLLM does not run on Windows, but in WSL 2"
    return f'pip install "ccrl[{package}]"'


def _availability(package: str, machine: Machine, *, needs_gpu: bool) -> tuple[bool, str]:
    if package not in machine.packages:
        return False, f"not installed: {how_to_install(package)}"
    if needs_gpu and not machine.gpu:
        return False, "needs a GPU, and PyTorch finds none"
    return True, "installed, and there is a GPU" if machine.gpu else "installed, on the CPU"


def choose_backend(
    wanted: str,
    *,
    load_in_4bit: bool = False,
    constrained: bool = False,
    machine: Machine | None = None,
) -> tuple[str, str]:
    """Return the backend for a wish, and why.

    ``auto`` never asks a server: which one, and with which model, is for the user to say.

    Args:
        wanted: a backend, or ``auto`` for the fastest local one that runs here.
        load_in_4bit: the weights are to be 4-bit.
        constrained: answers are to be held to a schema.
        machine: what there is; None looks.

    Raises:
        UsageError: the backend that was asked for cannot constrain answers.
    """
    if wanted != "auto":
        if constrained and wanted not in CONSTRAINED:
            raise UsageError(
                f"the {wanted} backend cannot hold answers to a schema (generation.constrained)",
                hint=f"choose from {', '.join(sorted(CONSTRAINED))}, or "
                "--set generation.constrained=false",
            )
        return wanted, "asked for"
    here = machine or find_machine()
    if constrained:
        if "vllm" in here.packages:
            return "vllm", "installed, and it can hold answers to the format"
        return "transformers", "it can hold answers to the format, and vllm is not installed"
    if not here.gpu:
        return "transformers", "there is no GPU"
    if load_in_4bit:
        return "transformers", "the weights are 4-bit, and it is faster there than unsloth"
    if "vllm" in here.packages:
        return "vllm", "installed, and there is a GPU"
    return "transformers", "vllm is not installed"

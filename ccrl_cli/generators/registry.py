"""Generation backends by name; a backend is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ccrl_cli.errors import UsageError

BACKENDS: dict[str, str] = {
    "transformers": "ccrl_cli.generators.transformers:TransformersGenerator",
    "mock": "ccrl_cli.generators.mock:MockGenerator",
}


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


def choose_backend(wanted: str) -> tuple[str, str]:
    """Return the backend for a wish, and why: ``auto`` takes the fastest one that runs here."""
    if wanted != "auto":
        return wanted, "asked for"
    return "transformers", "runs everywhere"

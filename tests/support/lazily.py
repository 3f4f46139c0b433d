"""Packages that take seconds to import, imported when a test first uses them.

Collecting the tests must not wait for PyTorch: ``torch = lazy("torch")`` in place of
``import torch``, and ``load_model = lazy("ccrl_cli.models.loading", "load_model")`` in place of
``from ccrl_cli.models.loading import load_model``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest


class _Lazy:
    """Stands for a module, or for something in one; whatever is done to it is done to that."""

    __slots__ = ("_place",)

    def __init__(self, module: str, name: str | None) -> None:
        object.__setattr__(self, "_place", (module, name))

    def _found(self) -> Any:
        module, name = object.__getattribute__(self, "_place")
        found = import_module(module)
        return found if name is None else getattr(found, name)

    @property
    def __dict__(self) -> Any:  # where monkeypatch looks for what it will put back
        return self._found().__dict__

    def __getattr__(self, name: str) -> Any:
        # These pytest asks of every name in a test module, and no test does.
        if name == "_mock_name" or (name.startswith("__") and name != "__version__"):
            raise AttributeError(name)
        return getattr(self._found(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._found(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._found(), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._found()(*arguments, **options)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._found())


def lazy(module: str, name: str | None = None) -> Any:
    """Return what stands for a module, or for a function or class of it."""
    return _Lazy(module, name)


def needs(*packages: str) -> pytest.MarkDecorator:
    """Return the mark that skips tests, aloud, where a package is not installed."""
    missing = [name for name in packages if find_spec(name.partition(".")[0]) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")

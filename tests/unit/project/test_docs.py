"""docs/methods.md names functions that exist, and every metric, pacing and overlap."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from ccrl_cli.core.combination import METRICS
from ccrl_cli.core.pacing import PACINGS
from ccrl_cli.core.rewards import OVERLAPS

METHODS = Path(__file__).parents[3] / "docs" / "methods.md"
TEXT = METHODS.read_text(encoding="utf-8") if METHODS.exists() else ""
NAMES = sorted(set(re.findall(r"`((?:core|models|trainers|data)\.[a-z_]+\.?\w*)`", TEXT)))


@pytest.mark.skipif(not TEXT, reason="the documentation is not part of an installed package")
def test_the_page_is_about_something():
    assert len(NAMES) > 30


@pytest.mark.parametrize("name", NAMES)
def test_every_name_exists(name):
    layer, module, *attribute = name.split(".")
    found = import_module(f"ccrl_cli.{layer}.{module}") if layer != "trainers" else None
    if found is not None and attribute:
        assert hasattr(found, attribute[0]), name


@pytest.mark.parametrize("name", [*METRICS, *PACINGS, *OVERLAPS])
def test_every_choice_is_explained(name):
    assert f"| `{name}` |" in TEXT

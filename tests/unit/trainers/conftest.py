"""What the tests of trainers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny_chat import write_tiny_chat


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A tiny chat model with random weights."""
    return write_tiny_chat(tmp_path_factory.mktemp("model"))

"""Symbolic links, which Windows grants to few users."""

from __future__ import annotations

from pathlib import Path

import pytest


def link_to(target: Path, link: Path) -> None:
    """Make a symbolic link, or skip the test where the system refuses it."""
    try:
        link.symlink_to(target, target_is_directory=target.is_dir())
    except OSError as error:
        pytest.skip(f"symbolic links are refused here: {error.strerror}")

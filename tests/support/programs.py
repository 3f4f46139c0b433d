"""Programs that stand for others: a Python script under a name that is found on PATH."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def put_on_path(monkeypatch: Any, folder: Path, name: str, code: str) -> None:
    """Write a program that runs Python code, and put its folder first on PATH."""
    script = folder / f"{name}_program.py"
    script.write_text(code, encoding="utf-8")
    if os.name == "nt":
        (folder / f"{name}.bat").write_text(f'@"{sys.executable}" "{script}" %*\n')
    else:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

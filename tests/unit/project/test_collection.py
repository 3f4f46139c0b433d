"""Collecting the tests is quick: what takes seconds to import waits for the tests that use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "ray", "vllm", "sklearn", "scipy")
SCRIPT = f"""
import sys
import pytest

status = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "tests"])
loaded = sorted(set({HEAVY!r}) & set(sys.modules))
print("status", int(status), "loaded", *loaded)
"""


def test_collecting_imports_no_heavy_package():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == "status 0 loaded", done.stdout[-2000:] + done.stderr

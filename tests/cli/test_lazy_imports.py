"""Help, version, completion and errors need no heavy package: checked in a fresh interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ccrl_cli.cli.app import COMMANDS

ML = ("numpy", "torch", "transformers", "trl", "peft", "datasets", "huggingface_hub", "matplotlib")

PROGRAM = """
import json, sys
from ccrl_cli.cli.app import invoke
code = invoke(sys.argv[1:])
print()
print(json.dumps([code, sorted(sys.modules)]))
"""


def loaded(*words: str) -> tuple[int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"]])
def test_root_help_and_version(words):
    code, modules = loaded(*words)
    assert code == 0
    commands = {name for name in modules if name.startswith("ccrl_cli.cli.commands.")}
    assert not commands
    assert not modules.intersection((*ML, "orjson", "ccrl_cli.config.schema"))
    if words:
        # Typer itself imports pydantic once it has an option's value to convert.
        assert "pydantic" not in modules


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nonsense"], 2),
        (["--bogus", "--json"], 2),
        *(([name, "--help"], 0) for name in COMMANDS),
        (["profile", "show", "--help"], 0),
    ],
)
def test_help_and_usage_errors(words, expected):
    code, modules = loaded(*words)
    assert code == expected
    assert not modules.intersection((*ML, "orjson", "ccrl_cli.config.schema"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["profile", "show"], 0),
        (["profile", "list"], 0),
        (["profile", "show", "-p", "nope"], 2),
        (["baselines", "list"], 0),
        (["baselines", "run", "nope"], 2),
        (["profile", "show", "--set", "run.sead=1"], 2),
    ],
)
def test_profiles_import_no_ml_package(words, expected):
    code, modules = loaded(*words)
    assert code == expected
    assert not modules.intersection(ML)

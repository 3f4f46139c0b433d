"""What a release states in several places is the same in all of them."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path

from ccrl_cli import __version__

ROOT = Path(__file__).parents[3]


def stated(file: str, pattern: str) -> list[str]:
    return re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_version_and_its_date_are_one():
    sections = stated("CHANGELOG.md", r"^## (.+)$")
    assert sections[0] == "Unreleased"
    version, date = stated("CHANGELOG.md", r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$")[0]
    assert sections[1] == f"{version} ({date})"
    assert version == __version__
    assert stated("CITATION.cff", r"^version: (.+)$") == [version]
    assert stated("CITATION.cff", r"^date-released: (.+)$") == [date]


def test_types_are_announced():
    assert resources.files("ccrl_cli").joinpath("py.typed").is_file()


def test_hooks_run_the_tools_that_continuous_integration_runs():
    steps = set(stated(".ci/run", r"^(?:ruff check|ruff format|mypy|lint-imports)"))
    hooks = stated(
        ".pre-commit-config.yaml", r"^ +entry: (ruff check|ruff format|mypy|lint-imports)"
    )
    assert sorted(hooks) == sorted(steps)
    assert len(hooks) == 4


def test_what_is_imported_is_declared():
    """Of the plain install; the packages of extras are asked for by name where they are used."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    declared = {name.replace("-", "_") for name in re.findall(r'"([a-z_-]+)', block)}
    optional = {"torch", "transformers", "trl", "peft", "datasets", "matplotlib", "jinja2"}
    optional |= {"accelerate", "backports", "compression"}
    optional |= {"pydantic_core"}  # a part of pydantic, in a version of its choice
    found = set()
    for path in (ROOT / "ccrl_cli").rglob("*.py"):
        for name in re.findall(r"^(?:from|import) (\w+)", path.read_text(encoding="utf-8"), re.M):
            found.add(name)
    foreign = found - set(sys.stdlib_module_names) - {"ccrl_cli"} - optional
    assert foreign - declared == set()

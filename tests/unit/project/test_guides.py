"""The guides: every profile in them loads, every command in them parses, every link leads there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from ccrl_cli.cli.app import COMMANDS, load_command
from ccrl_cli.config.load import load_profile

DOCS = Path(__file__).resolve().parents[3] / "docs"
GUIDES = sorted([*DOCS.glob("guide-*.md"), *DOCS.glob("baselines.md"), *DOCS.glob("results.md")])
if not GUIDES:
    pytest.skip("the guides are in the repository, not in the package", allow_module_level=True)

BLOCKS = [
    (path.name, kind, content)
    for path in GUIDES
    for kind, content in re.findall(r"```(\w+)\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
]
LINES = [
    (name, line)
    for name, kind, content in BLOCKS
    if kind in ("console", "powershell")
    for line in content.replace("\\\n", " ").splitlines()
    if line.startswith("ccrl ")
]
INLINE = [
    (path.name, code)
    for path in GUIDES
    for code in re.findall(r"`(ccrl [^`]+)`", path.read_text("utf-8").replace("\n", " "))
    if "|" not in code
]


def test_there_is_something_to_check():
    assert len(GUIDES) >= 2
    assert len(LINES) > 20


@pytest.mark.parametrize(("name", "line"), [*LINES, *INLINE])
def test_commands_exist_with_their_options(name, line):
    words = shlex.split(line)[1:]
    if words[0].startswith("--"):
        return
    assert words[0] in COMMANDS, line
    command = load_command(words[0])
    rest = words[1:]
    if hasattr(command, "commands") and rest:
        command = command.commands[rest[0]]
        rest = rest[1:]
    command.make_context("ccrl", rest).close()


@pytest.mark.parametrize("block", [(n, c) for n, k, c in BLOCKS if k == "toml"])
def test_profiles_load(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ccrl.toml"
    path.write_text(block[1], encoding="utf-8")
    assert load_profile(str(path)).profile.run.name


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.name)
def test_links_and_settings_exist(path):
    text = path.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (path.parent / target).exists(), target
    for assignment in re.findall(r"--set ([\w.]+=[^` ]+)", text):
        # The 4090's guide speaks of its own profile.
        load_profile("rtx4090-few-nerd" if "4090" in path.name else "quickstart", [assignment])


def test_the_parser_would_see_a_wrong_option():
    from click import ClickException  # Typer bundles it under another name in some versions

    with pytest.raises((ClickException, SystemExit, Exception), match="No such option"):
        load_command("predict").make_context("ccrl", ["--no-such-option"])
    assert get_command

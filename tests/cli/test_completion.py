"""Shell completion: the script that each shell is given completes a command and an option in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("the stand-in of the program is a bash script", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]
BASH = """
print_reply() { echo "${COMPREPLY[@]}"; }
complete_line() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ccrl_completion ccrl; print_reply; }
eval "$(ccrl --show-completion bash)"
complete_line ccrl tr
complete_line ccrl train --ep
"""
ZSH = """
autoload -Uz compinit; compinit -u -D
_arguments() { print -r -- "$@"; }
complete_line() { words=("$@"); CURRENT=$#; _ccrl_completion; }
eval "$(ccrl --show-completion zsh)"
complete_line ccrl tr
complete_line ccrl train --ep
"""
POWERSHELL = """
ccrl --show-completion pwsh | Out-String | Invoke-Expression
foreach ($line in 'ccrl tr', 'ccrl train --ep') {
    (TabExpansion2 $line $line.Length).CompletionMatches.CompletionText -join ' '
}
"""


@pytest.mark.parametrize(
    ("program", "words", "script"),
    [
        ("bash", ["--norc", "-c"], BASH),
        ("zsh", ["-f", "-c"], ZSH),
        ("pwsh", ["-NoProfile", "-Command"], POWERSHELL),
    ],
)
def test_the_script_of_a_shell_completes(tmp_path, program, words, script):
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} on this machine")
    ccrl = tmp_path / "ccrl"
    ccrl.write_text(f'#!/bin/sh\nexec {sys.executable} -m ccrl_cli "$@"\n', encoding="utf-8")
    ccrl.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        # The shell is named, not looked for among the parents of the process: those are pytest's.
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    done = subprocess.run(
        [found, *words, script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    command, option = [line for line in done.stdout.splitlines() if line.strip()]
    assert "train" in command, done.stderr
    assert "warmup" not in command
    assert "--epochs" in option, done.stderr
    assert "--resume" not in option

"""Both install scripts for real: a fresh copy, uv, the package index, an answer of the model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackagePath, distribution
from pathlib import Path

import pytest

from made_machine import ROOT, find_powershell

pytestmark = [pytest.mark.slow, pytest.mark.network]

if sys.platform == "win32":
    pytest.skip("links the folders of a Linux environment", allow_module_level=True)

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "runs", "dist")
TEXT = "Voyager 1 left Cape Canaveral in 1977."


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """One cache of packages for both."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def copy(tmp_path):
    """A copy of the repository, with this environment's PyTorch in its .venv."""
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None:
        pytest.skip("PyTorch's CPU build is wanted here")
    folder = tmp_path / "ccrl [copy]"
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    subprocess.run([sys.executable, "-m", "venv", str(folder / ".venv")], check=True)
    (packages,) = folder.glob(".venv/lib/python*/site-packages")
    files: list[PackagePath] = distribution("torch").files or []
    for file in files:
        source = Path(str(file.locate()))
        if ".." in file.parts or not source.exists():
            continue  # a command in bin, or code compiled on first use
        target = packages / file
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(source)
        except OSError:  # another file system
            shutil.copy(source, target)
    return folder


def install(folder: Path, words: list[str], cache: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"UV_CACHE_DIR": str(cache / "uv"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        words,
        env=environment,
        cwd=folder.parent,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if "there is no network" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    torch = distribution("torch").version
    assert f"\nPyTorch {torch}, no CUDA\n" in done.stderr
    assert "ccrl 0." in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Done. Next: .venv")
    words = [str(folder / ".venv" / "bin" / "ccrl"), "predict", TEXT]
    done = subprocess.run(
        words, env=environment, cwd=folder, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["text"] == TEXT
    assert json.loads(line)["entities"]


def test_install_sh(copy, cache):
    words = ["bash", str(copy / "install.sh"), "--quickstart", "--torch", "pypi"]
    install(copy, words, cache)


def test_install_ps1(copy, cache):
    program = find_powershell()
    if program is None:
        pytest.skip("no PowerShell on this machine")
    (copy / ".venv" / "Scripts").symlink_to("bin")
    words = [program, "-NoProfile", "-File", str(copy / "install.ps1")]
    install(copy, [*words, "-Quickstart", "-Torch", "pypi"], cache)

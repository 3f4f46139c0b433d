"""The install scripts: which PyTorch build for which driver, and that both say the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHELL = (ROOT / "install.sh").read_text(encoding="utf-8")
POWERSHELL = (ROOT / "install.ps1").read_text(encoding="utf-8")
OLD = "| NVIDIA-SMI 552.22    Driver Version: 552.22    CUDA Version: {}     |"
NEW = "| NVIDIA-SMI 610.43    KMD Version: 610.43    CUDA UMD Version: {}    |"
WHEELS = "https://download.pytorch.org/whl/"
DRIVERS = [
    (OLD.format("12.2"), "cpu"),
    (OLD.format("12.6"), "cu126"),
    (OLD.format("12.8"), "cu128"),
    (OLD.format("12.9"), "cu128"),
    (OLD.format("13.0"), "cu130"),
    (NEW.format("13.3"), "cu130"),
    (None, "cpu"),  # a driver that does not answer
]


@pytest.fixture
def run(tmp_path):
    """Run a script with a path that holds nothing but what it needs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "sed", "uname", "cat"):
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not on this machine")
        (tools / name).symlink_to(found)
    (tools / "python3").symlink_to(sys.executable)

    def call(*words: str, driver: str | None = "", python: str = "") -> subprocess.CompletedProcess:
        if driver != "":
            body = f"echo '{driver}'" if driver else "echo 'failed to communicate'; exit 9"
            (tools / "nvidia-smi").write_text(f"#!{tools}/bash\n{body}\n")
            (tools / "nvidia-smi").chmod(0o755)
        environment = {"PATH": str(tools), "HOME": str(tmp_path)}
        if python:
            environment["PYTHON"] = python
        return subprocess.run(
            list(words), env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return call


def script(*switches: str) -> list[str]:
    return ["bash", str(ROOT / "install.sh"), "--dry-run", *switches]


@pytest.mark.skipif(sys.platform != "linux", reason="one PyTorch build serves every Mac")
@pytest.mark.parametrize(("driver", "build"), DRIVERS)
def test_the_build_follows_the_driver(run, driver, build):
    done = run(*script(), driver=driver)
    assert done.returncode == 0, done.stderr
    assert (
        f"-m pip install --upgrade 'torch>=2.11,<2.14' --index-url {WHEELS}{build}\n" in done.stdout
    )
    extras = "quickstart,report" + (",cuda" if build != "cpu" else "")
    assert f"-m pip install -e '.[{extras}]'\n" in done.stdout
    assert ("update the driver" in done.stderr) == (driver is not None and "12.2" in driver)


def test_without_a_gpu_and_with_every_switch(run):
    done = run(*script("--quickstart", "--cpu", "--dev"), driver=OLD.format("13.0"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == ".venv/bin/ccrl --version"
    assert lines[-2].endswith("-m pip install -e '.[quickstart,dev]'")
    assert "cu1" not in done.stdout
    assert "cu1" not in run(*script()[:2], "--dry-run", "--cpu").stdout


def test_no_gpu_program_means_cpu(run):
    done = run(*script())
    assert "no NVIDIA GPU found" in done.stderr
    assert "cu1" not in done.stdout


def test_errors(run, tmp_path):
    assert run("bash", str(ROOT / "install.sh"), "--gpu").returncode == 2
    done = run(*script(), python="/nowhere/python")
    assert done.returncode == 1
    assert "PYTHON=/nowhere/python is not a Python" in done.stderr
    (tmp_path / "bin" / "python3").unlink()
    done = run(*script())
    assert done.returncode == 1
    assert "hint: install one from https://www.python.org" in done.stderr
    assert done.stdout == ""


def test_help_lists_every_switch(run):
    done = run("bash", str(ROOT / "install.sh"), "--help")
    assert done.returncode == 0
    assert set(re.findall(r"--[a-z-]+", done.stdout)) == {
        *("--quickstart", "--cpu", "--dev", "--dry-run")
    }


@pytest.mark.skipif(os.name != "posix", reason="bash")
def test_bash_reads_the_scripts():
    for path in ("install.sh", ".ci/run"):
        subprocess.run(["bash", "-n", str(ROOT / path)], check=True)
        assert os.access(ROOT / path, os.X_OK)


def test_both_scripts_know_the_same():
    parameters = re.findall(r"^    \[switch\]\$(\w+)", POWERSHELL, flags=re.MULTILINE)
    switches = re.findall(r"^    (--[a-z-]+)\)", SHELL, flags=re.MULTILINE)
    as_switch = {"--" + re.sub(r"(?<!^)(?=[A-Z])", "-", p).lower() for p in parameters}
    assert as_switch == set(switches)
    for pattern in (r"https://download\S+?(?=['\"])", r"\bcu\d{3}\b", r"torch>=[\d.]+,<[\d.]+"):
        assert set(re.findall(pattern, POWERSHELL)) == set(re.findall(pattern, SHELL)), pattern
    thresholds = re.findall(r"\[version\]'([\d.]+)'\) { return '(cu\d+)'", POWERSHELL)
    assert thresholds == [("13.0", "cu130"), ("12.8", "cu128"), ("12.6", "cu126")]


def test_the_scripts_follow_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    torch = next(line for line in extras["train"] if line.startswith("torch"))
    for text in (SHELL, POWERSHELL):
        assert torch in text
        assert set(re.findall(r"\b(quickstart|report|cuda|dev)\b", text)) <= set(extras)
        assert "3, 11" in text
    assert project["requires-python"] == ">=3.11"


def test_powershell_stops_at_errors():
    assert "Set-StrictMode -Version Latest" in POWERSHELL
    assert "$ErrorActionPreference = 'Stop'" in POWERSHELL
    calls = re.findall(r"^.*& \$\w+ @\w+.*\n.*$", POWERSHELL, flags=re.MULTILINE)
    assert len(calls) == 2
    for call in calls:
        assert "$LASTEXITCODE -ne 0" in call, call
    POWERSHELL.encode("ascii")  # Windows PowerShell reads a file without a mark as ANSI


def test_powershell_dry_run():
    shell = shutil.which("pwsh") or shutil.which("powershell")
    if shell is None:
        pytest.skip("no PowerShell on this machine")
    command = [
        shell,
        "-NoProfile",
        "-ExecutionPolicy",
        "Bypass",
        "-File",
        str(ROOT / "install.ps1"),
    ]
    done = subprocess.run(
        [*command, "-DryRun", "-Cpu", "-Quickstart"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{WHEELS}cpu" in done.stdout
    assert ".[quickstart]" in done.stdout

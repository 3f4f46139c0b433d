"""The install scripts, run: which build for which machine, and how each broken machine ends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from made_machine import FAILED, NO_VENV, ROOT, STORE, Machine, PowerShell, find_powershell

if sys.platform == "win32":
    pytest.skip("the stand-ins are bash scripts", allow_module_level=True)

GUIDE = (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| `(\w+)` \|$", GUIDE, re.MULTILINE)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    program = find_powershell()
    if program is None:
        yield None
        return
    running = PowerShell(program, tmp_path_factory.mktemp("powershell"))
    yield running
    running.close()


@pytest.fixture(params=["bash", "powershell"])
def make(request, tmp_path, server):
    """Make a machine for one of the two scripts."""
    if request.param == "powershell" and server is None:
        pytest.skip("no PowerShell on this machine")

    def made(name: str = "ccrl", *, uv: bool = True, python: bool = True) -> Machine:
        machine = Machine(tmp_path, request.param, server, name)
        if uv:
            machine.uv()
        if python:
            machine.python("python3", "python")
        return machine

    return made


# --- the build ---


def test_the_guide_has_examples():
    assert len(EXAMPLES) >= 12


@pytest.mark.parametrize(("card", "capability", "driver", "build"), EXAMPLES)
def test_the_build_of_the_guide(make, card, capability, driver, build):
    machine = make()
    machine.nvidia(f"{driver}, {capability}, NVIDIA {card}")
    done = machine.run("--dry-run")
    assert done.code == 0, done.err
    assert done.build() == build
    (line,) = [text for text in done.err.splitlines() if "PyTorch build" in text]
    for part in (f"NVIDIA {card}", capability, f"driver {driver}", f"build {build}, because "):
        assert part in line
    assert ("cuda" in done.out.splitlines()[-3]) == (build != "cpu")
    assert len(done.lines("warning")) == len(done.lines("hint")) == (build == "cpu")


@pytest.mark.parametrize(
    ("driver", "bash", "powershell"),
    [
        ("525.59.99", "cpu", "cpu"),
        ("525.60.13", "cu126", "cpu"),
        ("528.08", "cu126", "cpu"),
        ("528.32", "cu126", "cpu"),
        ("528.33", "cu126", "cu126"),
        ("579.99", "cu126", "cu126"),
        ("580", "cu130", "cu130"),
        ("1000.1", "cu130", "cu130"),
    ],
)
def test_the_oldest_driver(make, driver, bash, powershell):
    machine = make()
    machine.nvidia(f"{driver}, 8.9, NVIDIA GeForce RTX 4090")
    expected = bash if machine.shell == "bash" else powershell
    done = machine.run("--dry-run")
    assert done.build() == expected
    if expected == "cpu":
        least = "525.60" if machine.shell == "bash" else "528.33"
        assert f"driver {driver}" in done.lines("warning")[0]
        assert f"driver {least} or newer" in done.lines("warning")[0]


@pytest.mark.parametrize(
    ("rows", "build", "without"),
    [
        (
            ["580.88, 8.9, NVIDIA GeForce RTX 4090", "580.88, 6.1, NVIDIA GeForce GTX 1080"],
            "cu130",
            "1080",
        ),
        (
            ["580.88, 6.1, NVIDIA GeForce GTX 1080", "580.88, 8.9, NVIDIA GeForce RTX 4090"],
            "cu130",
            "1080",
        ),
        (
            ["552.22, 6.1, NVIDIA GeForce GTX 1080", "552.22, 8.9, NVIDIA GeForce RTX 4090"],
            "cu126",
            "",
        ),
        (["572.16, 7.0, Tesla V100", "572.16, 12.0, NVIDIA GeForce RTX 5090"], "cu128", "V100"),
        (["580.65, 9.0, NVIDIA H100", "580.65, 9.0, NVIDIA H100"], "cu130", ""),
        (["580.65, 10.3, NVIDIA B300", "580.65, 9.0, NVIDIA H100"], "cu130", ""),
    ],
)
def test_several_cards(make, rows, build, without):
    machine = make()
    machine.nvidia(*rows)
    done = machine.run("--dry-run")
    assert done.build() == build
    for row in rows:
        assert row.split(", ")[2] in done.err
    warnings = done.lines("warning")
    assert len(warnings) == bool(without)
    assert all(f"{build} has no kernels for" in line and without in line for line in warnings)
    assert all("4090" not in line and "5090" not in line for line in warnings)


def test_a_damaged_inforom_is_no_reason_for_the_cpu(make):
    machine = make()
    machine.nvidia("535.183.01, 8.0, NVIDIA A100-SXM4-80GB", code=14)
    assert machine.run("--dry-run").build() == "cu126"


def test_a_driver_that_knows_no_compute_capability(make):
    machine = make()
    machine.nvidia("470.82.01, 3.7, Tesla K80", knows=False)
    done = machine.run("--dry-run")
    assert done.build() == "cpu"
    assert "Tesla K80" in done.lines("warning")[0]
    assert "470.82.01" in done.lines("warning")[0]
    machine.nvidia("570.10, [N/A], NVIDIA GRID A100D-20C")
    assert machine.run("--dry-run").build() == "cu126"


@pytest.mark.parametrize(
    "answer", [f"{FAILED}", "No devices were found", "Failed to initialize NVML"]
)
def test_a_driver_that_does_not_answer_is_quoted(make, answer):
    machine = make()
    machine.program("nvidia-smi", f'echo "{answer}"; exit 9')
    done = machine.run("--dry-run")
    assert done.code == 0
    assert done.build() == "cpu"
    assert answer in done.lines("warning")[0]
    assert "no NVIDIA GPU" not in done.err


def test_a_list_of_devices_that_cannot_be_had_ends_nothing(make):
    machine = make()
    machine.program("lspci", "echo 'lspci: Cannot open /proc/bus/pci' >&2; exit 1")
    done = machine.run("--dry-run")
    assert done.code == 0, done.err
    assert "no NVIDIA GPU found" in done.err


def test_a_name_with_commas_and_a_carriage_return(make):
    machine = make()
    machine.program("nvidia-smi", r"printf '580.88, 12.0, NVIDIA RTX PRO 6000, Server\r\n'")
    done = machine.run("--dry-run")
    assert done.build() == "cu130"
    assert "NVIDIA RTX PRO 6000, Server (compute capability 12.0), driver" in done.err


@pytest.mark.parametrize(
    ("lspci", "windows", "said", "hint"),
    [
        (
            "Advanced Micro Devices, Inc. [AMD/ATI] Navi 31",
            "AMD Radeon RX 7900 XTX",
            "untried",
            "rocm7.2",
        ),
        ("Intel Corporation Alder Lake-P [Iris Xe]", "Intel(R) UHD Graphics 770", "untried", "xpu"),
        (
            "NVIDIA Corporation AD102 [GeForce RTX 4090]",
            "NVIDIA GeForce RTX 4090",
            "no driver",
            "driver",
        ),
        ("Cirrus Logic GD 5446", "Microsoft Basic Display Adapter", "no NVIDIA GPU found:", ""),
    ],
)
def test_other_gpus_are_seen_and_said(make, lspci, windows, said, hint):
    machine = make()
    machine.program("lspci", f"echo '00:02.0 VGA compatible controller: {lspci}'")
    machine.gpus = [windows]
    done = machine.run("--dry-run")
    assert done.build() == "cpu"
    assert said in done.err
    assert [hint in line for line in done.lines("hint")] == ([True] if hint else [])
    if hint:
        assert (windows if machine.shell == "powershell" else lspci) in done.err


def test_a_mac_takes_the_package_index(make):
    machine = make()
    if machine.shell == "powershell":
        return  # install.ps1 is for Windows
    machine.program("uname", "echo Darwin")
    assert machine.run("--dry-run").build() == "pypi"
    assert machine.run("--dry-run", "--cpu").build() == "pypi"
    machine.program("uname", "echo MINGW64_NT-10.0")
    done = machine.run("--dry-run")
    assert done.code == 1
    assert "install.ps1" in done.lines("hint")[0]


def test_in_wsl_the_driver_is_that_of_windows(make):
    machine = make()
    machine.nvidia("527.41, 8.9, NVIDIA GeForce RTX 4090")
    machine.environment["WSL_DISTRO_NAME"] = "Debian"
    done = machine.run("--dry-run")
    assert done.build() == "cpu"
    assert "528.33" in done.lines("warning")[0]


# --- switches ---


@pytest.mark.parametrize("name", ["cu126", "cu129", "rocm7.2", "xpu", "auto", "pypi", "cpu"])
def test_a_named_build(make, name):
    machine = make()
    machine.nvidia("580.88, 8.9, NVIDIA GeForce RTX 4090")
    done = machine.run("--dry-run", "--torch", name)
    assert done.code == 0
    assert done.build() == name
    assert (",cuda]" in done.out) == (name not in ("rocm7.2", "xpu", "cpu"))


def test_the_extras(make):
    machine = make()
    machine.nvidia("580.88, 8.9, NVIDIA GeForce RTX 4090")
    assert "-e '.[quickstart,cuda]'" in machine.run("--dry-run").out
    assert "-e '.[quickstart]'" in machine.run("--dry-run", "--quickstart").out
    every = machine.run("--dry-run", "--unsloth", "--dev")
    assert "-e '.[quickstart,cuda,unsloth,dev]'" in every.out
    done = machine.run("--dry-run", "--cpu", "--dev")
    assert done.build() == "cpu"
    assert "-e '.[quickstart,dev]'" in done.out
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(extras["optional-dependencies"]) >= {"quickstart", "cuda", "unsloth", "dev"}


@pytest.mark.parametrize("words", [("--torch", "cu12x"), ("--torch", "cu126", "--cpu")])
def test_wrong_usage_is_exit_2(make, words):
    done = make().run("--dry-run", *words)
    assert done.code == 2
    assert len(done.lines("error")) == 1
    assert done.out == ""


def test_unknown_options_and_help():
    script = str(ROOT / "install.sh")
    for words in (["--gpu"], ["--torch"]):
        done = subprocess.run(
            ["bash", script, *words], capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 2, words
        assert "Usage:" in done.stderr
    done = subprocess.run(
        ["bash", script, "--help"], capture_output=True, encoding="utf-8", check=True
    )
    for name in re.findall(r"^\| `(--[a-z-]+)", GUIDE, re.MULTILINE):
        assert name in done.stdout


def test_a_dry_run_does_nothing(make):
    machine = make()
    before = sorted(machine.folder.rglob("*"))
    done = machine.run("--dry-run")
    assert done.code == 0
    assert done.calls == ()
    assert sorted(machine.folder.rglob("*")) == before
    assert done.out.splitlines()[-1].replace("\\", "/").split("/")[-1] in (
        *("ccrl --version", "ccrl.exe --version"),
    )


# --- whole runs, with stand-ins for uv and PyTorch ---

TORCH = """
class version: cuda = {cuda!r}
class cuda:
    is_available = staticmethod(lambda: {available})
    device_count = staticmethod(lambda: 2)
    get_device_name = staticmethod(lambda i: ('NVIDIA A', 'NVIDIA B')[i])
    @staticmethod
    def init(): raise RuntimeError('Found no NVIDIA driver on your system')
__version__ = {version!r}
"""
CPU = TORCH.format(cuda=None, available=False, version="2.13.0+cpu")
GPU = TORCH.format(cuda="12.6", available=True, version="2.13.0+cu126")
BLIND = TORCH.format(cuda="12.6", available=False, version="2.13.0+cu126")


@pytest.mark.parametrize("name", ["ccrl", "a [b] c", "größe's $HOME"])
def test_a_run_to_the_end(make, name):
    machine = make(name)
    machine.nvidia("552.22, 8.9, NVIDIA GeForce RTX 4090")
    machine.torch(GPU, "2.13.0+cu126")
    done = machine.run()
    assert done.code == 0, done.err
    for text in ("PyTorch 2.13.0+cu126, CUDA 12.6, NVIDIA A, NVIDIA B", "ccrl 0.1.0"):
        assert text in done.err
    last = done.err.splitlines()[-1]
    assert last.endswith(("Next: .venv/bin/ccrl run", r"Next: .venv\Scripts\ccrl run"))
    assert done.calls[0].startswith("uv venv --seed --python ")
    assert "--torch-backend cu126 -e .[quickstart,cuda]" in done.calls[-1]
    again = machine.run()  # what is there is used, and PyTorch stays as it is
    assert again.code == 0, again.err
    assert [call for call in again.calls if "venv .venv" in call or "reinstall" in call] == []


def test_another_build_replaces_the_one_in_place(make):
    machine = make()
    machine.venv()
    machine.torch(CPU, "2.13.0+cpu")
    machine.nvidia("580.88, 8.9, NVIDIA GeForce RTX 4090")
    (line,) = [text for text in machine.run("--dry-run").out.splitlines() if " -e " in text]
    assert "--torch-backend cu130 --reinstall-package torch " in line
    assert "reinstall" not in machine.run("--dry-run", "--torch", "pypi").out
    assert "reinstall" not in machine.run("--dry-run", "--cpu").out


def test_without_uv_python_makes_the_environment_and_uv_lives_in_it(make):
    machine = make(uv=False)
    machine.torch(CPU, "2.13.0+cpu")
    done = machine.run()
    assert done.code == 0, done.err
    assert done.calls[:2] == ("venv .venv", "pip install uv")
    assert done.calls[2].startswith("uv pip install --python .venv/")


@pytest.mark.parametrize("odd", ["old", "new", "32-bit", "free-threaded", "conda"])
def test_uv_fetches_a_python_where_the_one_at_hand_is_of_no_use(make, odd):
    machine = make(python=False)
    machine.python("python3", "python", odd=odd)
    done = machine.run("--dry-run")
    assert done.code == 0
    assert done.out.splitlines()[0] == "uv venv --seed --managed-python --python 3.12 .venv"
    machine.python("python3", "python")
    assert "--managed-python" not in machine.run("--dry-run").out


def test_the_launcher_of_windows(make):
    machine = make(python=False)
    if machine.shell == "bash":
        return
    machine.python("python", says=STORE)
    machine.python("python3.13")
    machine.program(
        "py",
        'case "$1" in\n-0) echo " -V:3.13 *  Python 3.13 (64-bit)" ;;\n'
        f'-3.13) shift; exec "{machine.tools}/python3.13" "$@" ;;\n*) exit 103 ;;\nesac',
    )
    assert machine.run("--dry-run").out.startswith(f"uv venv --seed --python {sys.executable} ")


# --- broken machines ---


def ends(done, *words: str, hint: str) -> None:
    """One error that names the cause, one hint, exit 1, and no .venv that was not there before."""
    assert done.code == 1, done.err
    (error,) = done.lines("error")
    (advice,) = done.lines("hint")
    for word in words:
        assert word in error, error
    assert hint in advice, advice
    assert "thrown" not in done.err
    assert "Done." not in done.err


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("old", "Python 3.10 is not between"),
        ("new", "Python 3.15 is not between"),
        ("32-bit", "32-bit"),
        ("free-threaded", "free-threaded"),
        ("conda", "conda"),
    ],
)
def test_no_uv_and_no_python_of_use(make, odd, said):
    machine = make(uv=False, python=False)
    machine.python("python3", odd=odd)
    command = "winget" if machine.shell == "powershell" else "astral.sh/uv/install.sh"
    ends(machine.run(), "neither uv nor", said, hint=command)
    ends(machine.run("--dry-run"), said, hint=command)
    machine.environment["PYTHON"] = str(machine.tools / "python3")
    ends(machine.run(), f"PYTHON={machine.tools}/python3", said, hint="3.11 to 3.14")


def test_nothing_at_all_and_the_stub_of_the_store(make):
    machine = make(uv=False, python=False)
    ends(machine.run(), "neither uv nor a Python", hint="uv")
    machine.python("python", says=STORE)
    ends(machine.run(), "Microsoft Store", hint="uv")
    machine.environment["PYTHON"] = "/nowhere/python"
    ends(machine.run(), "PYTHON=/nowhere/python", hint="3.11 to 3.14")


def test_debian_without_venv(make):
    machine = make(uv=False, python=False)
    machine.python("python3", venv=NO_VENV)
    ends(machine.run(), "python3-venv", hint="apt install python3-venv")
    assert not (machine.folder / ".venv").exists()
    machine.python("python3")
    machine.torch(CPU, "2.13.0+cpu")
    assert machine.run().code == 0


@pytest.mark.parametrize(
    ("odd", "said"), [("old", "3.10"), ("no pip", "no pip"), ("conda", "conda")]
)
def test_an_environment_of_no_use(make, odd, said):
    machine = make()
    machine.venv(odd)
    for switches in ((), ("--dry-run",)):
        done = machine.run(*switches)
        ends(done, ".venv cannot be used", said, hint=".venv")
        assert done.calls == ()


def test_an_environment_whose_python_is_gone(make):
    machine = make()
    place = machine.folder / ".venv"
    place.mkdir()
    ends(machine.run(), ".venv", "its Python is gone", hint=".venv")
    (place / machine.bin).mkdir()
    (place / machine.bin / machine.exe).symlink_to("/nowhere/python")
    ends(machine.run(), ".venv", "its Python is gone", hint=".venv")


def test_an_environment_of_the_other_system(make):
    machine = make()
    other = "bin" if machine.shell == "powershell" else "Scripts"
    machine.venv(made_by=other)
    maker = "Linux" if machine.shell == "powershell" else "Windows"
    ends(machine.run(), f".venv was made by {maker}", hint="a checkout each")


#: What uv 0.13 and pip say, shortened.
NETWORK = """error: Request failed after 3 retries
  Caused by: Failed to fetch: `https://packages.example/simple/torch/`
  Caused by: error sending request for url (https://packages.example/simple/torch/)
  Caused by: client error (Connect)
  Caused by: dns error"""
PIP = "NewConnectionError('<pip>: Failed to establish a new connection: [Errno -2] Name unknown')"
LONG = "error: failed to open file `C:\\a`: The filename or extension is too long. (os error 206)"
LONG_PIP = (
    "HINT: This error might have occurred since this system does not have Windows Long Path support"
)


@pytest.mark.parametrize(
    ("says", "error", "hint"),
    [
        (NETWORK, "cannot be reached", "HTTPS_PROXY"),
        (PIP, "cannot be reached", "HTTPS_PROXY"),
        ("  Caused by: Could not connect, are you offline?", "cannot be reached", "HTTPS_PROXY"),
        ("  Caused by: invalid peer certificate: UnknownIssuer", "certificate", "UV_SYSTEM_CERTS"),
        ("error: failed to write: No space left on device (os error 28)", "disk is full", "room"),
        (
            "error: invalid value 'cu130' for '--torch-backend <B>'",
            "uv is too old",
            "uv self update",
        ),
        ("Failed to fetch\n  Caused by: HTTP status client error (403)", "failed: uv pip", "above"),
        ("error: something else", "failed: uv pip install", "above"),
    ],
)
def test_a_step_that_fails(make, says, error, hint):
    machine = make()
    machine.uv(fails=says)
    machine.strict = True
    done = machine.run()
    ends(done, error, hint=hint)
    assert says.splitlines()[-1] in done.err  # passed on as it is
    machine.uv()
    machine.torch(CPU, "2.13.0+cpu")
    assert machine.run().code == 0  # the environment was made, and the next try goes on


@pytest.mark.parametrize("says", [LONG, LONG_PIP])
def test_long_paths_of_windows(make, says):
    machine = make()
    if machine.shell == "bash":
        return
    machine.uv(fails=says)
    ends(machine.run(), "longer than Windows allows", hint="long paths")


def test_an_environment_that_cannot_be_made_is_taken_away(make):
    machine = make()
    machine.program(
        "uv", f'[ "$1" = --version ] && exit; mkdir -p .venv/{machine.bin}; echo dns error; exit 2'
    )
    ends(machine.run(), "cannot be reached", hint="HTTPS_PROXY")
    assert not (machine.folder / ".venv").exists()


@pytest.mark.parametrize(
    ("source", "words", "hint"),
    [
        (BLIND, ("does not see the GPU", "Found no NVIDIA driver"), "nvidia-smi"),
        (
            CPU,
            ("2.13.0+cpu", "is a CPU build, not cu126", "pinned asks for torch==2.13.0"),
            "brought",
        ),
        ("raise OSError('[WinError 126] c10.dll')", ("Visual C++ runtime", "126"), "VCRedist"),
        ("raise OSError('[WinError 1114] c10.dll')", ("Visual C++ runtime", "1114"), "VCRedist"),
        ("raise ImportError('libcudnn.so.9')", ("cannot be imported", "libcudnn"), ".venv"),
    ],
)
def test_a_build_that_does_not_see_its_gpu(make, source, words, hint):
    machine = make()
    machine.nvidia("552.22, 8.9, NVIDIA GeForce RTX 4090")
    machine.torch(source, "2.13.0+cpu", requires={"pinned": "torch==2.13.0", "free": "torch>=2"})
    ends(machine.run(), *words, hint=hint)
    if source == CPU:  # as asked, or for want of a GPU: no error
        assert machine.run("--cpu").code == 0


def test_strict_native_errors_are_no_exceptions(make):
    machine = make()
    machine.strict = True
    machine.torch(CPU, "2.13.0+cpu")
    machine.program("nvidia-smi", "exit 9")
    done = machine.run()
    assert done.code == 0, done.err


# --- files ---


def test_bash_reads_the_scripts_and_git_keeps_their_line_ends(tmp_path):
    for path in ("install.sh", ".ci/run"):
        subprocess.run(["bash", "-n", str(ROOT / path)], check=True)
        assert os.access(ROOT / path, os.X_OK)
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    windows = [git, "-c", "core.autocrlf=true", "-c", "core.eol=crlf", "-C", str(ROOT)]
    words = ["checkout-index", f"--prefix={tmp_path}/", "install.sh", ".ci/run", "install.ps1"]
    subprocess.run([*windows, *words], check=True)
    for path in ("install.sh", ".ci/run"):
        assert b"\r" not in (tmp_path / path).read_bytes(), path


def test_powershell_reads_its_script_and_the_documentation(tmp_path):
    program = find_powershell()
    if program is None:
        pytest.skip("no PowerShell on this machine")
    (ROOT / "install.ps1").read_text(encoding="ascii")  # Windows PowerShell reads it as ANSI
    blocks = [str(ROOT / "install.ps1")]
    for page in [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]:
        for block in re.findall(r"```powershell\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            place = tmp_path / f"{len(blocks)}-{page.stem}.ps1"
            place.write_text(block, encoding="utf-8")
            blocks.append(str(place))
    assert len(blocks) > 3
    parse = tmp_path / "parse.ps1"
    parse.write_text(
        "using namespace System.Management.Automation.Language\n"
        "foreach ($file in $args) { $found = $null\n"
        "$null = [Parser]::ParseFile($file, [ref]$null, [ref]$found)\n"
        '$found | ForEach-Object { "${file}: $($_.ErrorId)" } }\n',
        encoding="utf-8",
    )
    wrong = tmp_path / "wrong.ps1"
    wrong.write_text("if (", encoding="utf-8")
    words = [program, "-NoProfile", "-File", str(parse), *blocks, str(wrong)]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=True)
    complaints = done.stdout.splitlines()
    assert complaints
    assert all(line.startswith(f"{wrong}: ") for line in complaints), complaints


def test_powershell_as_a_user_starts_it(tmp_path):
    program = find_powershell()
    if program is None:
        pytest.skip("no PowerShell on this machine")
    script = ["-NoProfile", "-ExecutionPolicy", "Bypass", "-File", str(ROOT / "install.ps1")]
    words = [program, *script, "-DryRun", "-Quickstart", "-Torch", "cu126"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--torch-backend cu126 -e '.[quickstart]'" in done.stdout
    words = [program, *script, "-Torch", "wrong"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 2
    assert not Path(tmp_path, ".venv").exists()

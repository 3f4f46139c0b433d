"""Machines for the install scripts: stand-ins for nvidia-smi, uv and Python on a PATH of their own.

The same machine serves install.sh and install.ps1. Stand-ins of Python hand every `-c` to the real
one; what is odd about them (too old, 32 bits, conda's) is set before that code runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Programs of the system that a script or a stand-in may call.
SYSTEM = ("bash", "cat", "dirname", "ln", "mkdir")

#: What is odd about a Python, as code that runs before any other.
ODD = {
    "": "pass",
    "old": "sys.version_info = (3, 10, 13, 'final', 0)",
    "new": "sys.version_info = (3, 15, 0, 'final', 0)",
    "32-bit": "sys.maxsize = 2**31 - 1",
    "free-threaded": "import sysconfig as s; s.get_config_vars()['Py_GIL_DISABLED'] = 1",
    "conda": "sys.version = '3.12.7 | packaged by conda-forge | (main) [GCC 13.3.0]'",
    "no pip": "sys.path = [p for p in sys.path if not p.endswith('with-pip')]",
}
STORE = "Python was not found; run without arguments to install from the Microsoft Store"
NO_VENV = (
    "The virtual environment was not created: ensurepip is not available. apt install python3-venv"
)
FAILED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a script ended.

    Attributes:
        code: exit code.
        out: stdout; the commands of a dry run.
        err: stderr; every message.
        calls: what the stand-ins of uv and Python were asked to install or make.
        folder: the folder that the script lay in.
    """

    code: int
    out: str
    err: str
    calls: tuple[str, ...]
    folder: Path

    def lines(self, kind: str) -> list[str]:
        """Return the messages that begin with a word and a colon."""
        return [line for line in self.err.splitlines() if line.startswith(f"{kind}: ")]

    def build(self) -> str:
        """Return the backend that the package installation names, or pypi."""
        (line,) = [text for text in self.out.splitlines() if " -e " in text]
        words = line.split()
        if "--torch-backend" not in words:
            return "pypi"
        return words[words.index("--torch-backend") + 1]


class PowerShell:
    """One PowerShell that runs install.ps1 again and again: starting it takes longer than that."""

    SERVER = r"""
$standard = [Console]::Error
while ($line = [Console]::In.ReadLine()) {
    $case = $line | ConvertFrom-Json -AsHashtable
    $before = @{}
    foreach ($name in @($case.env.Keys) + 'PYTHON') {
        $before[$name] = [Environment]::GetEnvironmentVariable($name)
        [Environment]::SetEnvironmentVariable($name, $case.env[$name])
    }
    $errors = [IO.StringWriter]::new()
    [Console]::SetError($errors)
    Set-Location -LiteralPath $case.folder
    $PSNativeCommandUseErrorActionPreference = $case.strict
    if ($case.gpus) { function Get-CimInstance { $case.gpus | ForEach-Object { @{ Name = $_ } } } }
    $switches = $case.switches
    $code = 0
    try {
        $global:LASTEXITCODE = 0
        $out = & $case.script @switches | Out-String
        $code = $global:LASTEXITCODE
    }
    catch {
        $out = ''
        $errors.WriteLine("thrown: $_")
        $code = 99
    }
    if ($case.gpus) { Remove-Item Function:\Get-CimInstance }
    [Console]::SetError($standard)
    foreach ($name in $before.Keys) { [Environment]::SetEnvironmentVariable($name, $before[$name]) }
    [Console]::Out.WriteLine((@{ code = $code; out = $out; err = $errors.ToString() } |
        ConvertTo-Json -Compress))
}
"""

    def __init__(self, program: str, folder: Path) -> None:
        server = folder / "server.ps1"
        server.write_text(self.SERVER, encoding="utf-8")
        self.process = subprocess.Popen(
            [program, "-NoProfile", "-NonInteractive", "-File", str(server)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def call(self, case: Mapping[str, object]) -> dict[str, object]:
        """Run one case."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Machine:
    """A machine with a copy of the scripts, and the programs that a test gives it."""

    def __init__(
        self, base: Path, shell: str, server: PowerShell | None, name: str = "ccrl"
    ) -> None:
        self.shell = shell
        self.server = server
        self.tools, self.folder, self.site = base / "bin", base / name, base / "site"
        self.bin = "Scripts" if shell == "powershell" else "bin"
        self.exe = "python.exe" if shell == "powershell" else "python"
        self.log = base / "calls"
        self.environment: dict[str, str] = {}
        self.gpus: list[str] = []  # what Windows says about its display adapters
        self.strict = False
        for folder in (
            self.tools,
            self.folder,
            self.site,
            base / "home",
            base / "with-pip" / "pip",
        ):
            folder.mkdir(parents=True)
        (base / "with-pip" / "pip" / "__init__.py").touch()
        self.base = base
        for script in ("install.sh", "install.ps1"):
            shutil.copy(ROOT / script, self.folder)
        for program in SYSTEM:
            found = shutil.which(program)
            assert found is not None, program
            (self.tools / program).symlink_to(found)
        self.program("uname", "echo Linux")
        self.program("lspci", "true")  # else the real devices of this machine would be seen

    def program(self, name: str, body: str) -> None:
        """Put a program on PATH, as the body of a bash script."""
        self._write(self.tools / name, body)

    def _write(self, path: Path, body: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{self.tools}/bash\n{body}\n", encoding="utf-8")
        path.chmod(0o755)

    def nvidia(self, *rows: str, code: int = 0, knows: bool = True) -> None:
        """Have cards: rows of driver, compute capability and name."""
        body = 'case "$1" in\n'
        if knows:
            answer = "\n".join(rows)
            body += f"--query-gpu=driver_version,compute_cap,name) echo '{answer}' ;;\n"
        else:
            unknown = 'Field "compute_cap" is not a valid field to query.'
            body += f"*compute_cap*) echo '{unknown}'; exit 2 ;;\n"
            answer = "\n".join(
                ", ".join((row.split(", ")[0], row.split(", ", 2)[2])) for row in rows
            )
            body += f"--query-gpu=driver_version,name) echo '{answer}' ;;\n"
        self.program("nvidia-smi", body + f"*) exit 1 ;;\nesac\nexit {code}")

    def python(self, *names: str, odd: str = "", says: str = "", venv: str = "") -> None:
        """Have a Python on PATH; `venv` is what its `-m venv` fails with, half-way."""
        for name in names:
            self._write(self.tools / name, self._python_body(odd, says, venv))

    def _python_body(self, odd: str = "", says: str = "", venv: str = "") -> str:
        if says:
            return f"echo '{says}' >&2; exit 103"
        start = f"import sys; {ODD[odd]}; code = sys.argv[1]; sys.argv[1:2] = []; exec(code)"
        made = f"{self.base}/made-python"
        make = f'mkdir -p "$3/{self.bin}"; ' + (
            f"echo '{venv}'; exit 1"
            if venv
            else f'ln -s "{made}" "$3/{self.bin}/{self.exe}"; ln -s "{self.base}/made-ccrl" '
            f'"$3/{self.bin}/{self.exe.replace("python", "ccrl")}"'
        )
        return f"""case "$1" in
-c) shift
  export PYTHONPATH="{self.site}:{self.base}/with-pip"
  exec {sys.executable} -S -B -c "{start}" "$@" ;;
-m) printf '%s\\n' "${{*:2}}" >>"{self.log}"
  case "$2" in
    venv) {make} ;;
    uv) shift 2; exec "{self.base}/made-uv" "$@" ;;
  esac ;;
esac"""

    def uv(self, *, fails: str = "", on_path: bool = True) -> None:
        """Have uv; `fails` is what its `pip install` fails with."""
        place = self.tools / "uv" if on_path else self.base / "made-uv"
        fail = f"cat <<'TEXT' >&2\n{fails}\nTEXT\nexit 2" if fails else "true"
        if on_path:
            self._write(self.base / "made-python", self._python_body())
        self._write(
            place,
            f"""case "$1" in
--version) echo 'uv 0.13.9'; exit ;;
esac
printf 'uv %s\\n' "$*" >>"{self.log}"
case "$1" in
venv) "{self.base}/made-python" -m venv "${{@: -1}}" ;;
pip) {fail} ;;
esac""",
        )

    def torch(
        self, source: str, version: str = "", requires: Mapping[str, str] | None = None
    ) -> None:
        """Have a package torch in .venv, and packages that ask for one."""
        (self.site / "torch.py").write_text(source, encoding="utf-8")
        for name, line in {"torch": "", **(requires or {})}.items():
            info = self.site / f"{name}-{version if name == 'torch' else '1.0'}.dist-info"
            info.mkdir(exist_ok=True)
            text = f"Metadata-Version: 2.1\nName: {name}\n"
            text += f"Version: {version if name == 'torch' else '1.0'}\n"
            (info / "METADATA").write_text(text + (f"Requires-Dist: {line}\n" if line else ""))

    def venv(self, odd: str = "", made_by: str = "") -> None:
        """Have a .venv already, of this system or of another (bin or Scripts)."""
        place = self.folder / ".venv" / (made_by or self.bin)
        name = {"": self.exe, "bin": "python", "Scripts": "python.exe"}[made_by]
        self._write(place / name, self._python_body(odd))
        self._write(place / name.replace("python", "ccrl"), "echo 'ccrl 0.1.0'")

    def run(self, *switches: str) -> Outcome:
        """Run the script with switches of install.sh, which install.ps1 has under its own names."""
        if not (self.base / "made-uv").exists():
            self.uv(on_path=False)
        self._write(self.base / "made-python", self._python_body())
        self._write(self.base / "made-ccrl", "echo 'ccrl 0.1.0'")
        self.log.unlink(missing_ok=True)
        environment = {"PATH": str(self.tools), "HOME": str(self.base / "home"), **self.environment}
        if self.shell == "bash":
            words = ["bash", str(self.folder / "install.sh"), *switches]
            done = subprocess.run(
                words,
                env=environment,
                cwd=self.base,
                capture_output=True,
                encoding="utf-8",
                check=False,
            )
            code, out, err = done.returncode, done.stdout, done.stderr
        else:
            assert self.server is not None
            answer = self.server.call(
                {
                    "script": str(self.folder / "install.ps1"),
                    "switches": powershell_switches(switches),
                    "env": environment,
                    "folder": str(self.base),
                    "strict": self.strict,
                    "gpus": self.gpus,
                }
            )
            code, out, err = int(str(answer["code"])), str(answer["out"]), str(answer["err"])
        calls = self.log.read_text().splitlines() if self.log.exists() else []
        return Outcome(code, out, err, tuple(calls), self.folder)


def powershell_switches(switches: Sequence[str]) -> dict[str, object]:
    """Translate switches: ``--dry-run`` is ``-DryRun``, ``--torch NAME`` is ``-Torch NAME``."""
    found: dict[str, object] = {}
    words = list(switches)
    while words:
        name = words.pop(0).removeprefix("--").title().replace("-", "")
        found[name] = words.pop(0) if words and not words[0].startswith("--") else True
    return found


def find_powershell() -> str | None:
    """Return PowerShell's program, or None."""
    return shutil.which("pwsh") or (shutil.which("powershell") if os.name == "nt" else None)

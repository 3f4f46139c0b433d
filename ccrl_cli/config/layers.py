"""Layers of values: a TOML file with the line of each key, and ``--set`` assignments."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_cli.errors import ProfileError

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and where it was written."""

    value: Any
    origin: str


Layer = dict[Key, Setting]

_DATA_SETS = (("data", "source"), ("data", "target"))
_OF_ONE_SET = ("name", "path", "labels", "train_split", "dev_split", "test_split")

TABLES: frozenset[Key] = frozenset(
    {
        ("data", "type_names"),
        ("data", "type_descriptions"),
        ("prompt", "paraphrases"),
        ("confidence", "weights"),
        ("confidence", "type_paraphrases"),
    }
)
"""Keys whose value is a table with names of the user's choice."""


def dotted(key: Key) -> str:
    """Return a key as it is written: ``training.epochs``."""
    return ".".join(key)


def leaves(table: Mapping[str, Any], prefix: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield each value of a nested table with its key; tables themselves are not values."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def read_layer(path: Path, label: str) -> tuple[Layer, str | None]:
    """Read a profile file.

    Args:
        path: the file.
        label: how messages and origins call it.

    Returns:
        The values with origin ``profile LABEL:LINE``, and the name given in ``extends``.

    Raises:
        ProfileError: the file cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(
            f"profile {label} cannot be read: {error}",
            hint="give a file, or a name of `ccrl profile list`",
        ) from error
    try:
        table = _loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column (\d+)\)", str(error))
        where = f"{label}:{place[1]}:{place[2]}" if place else f"{label}, at the end"
        reason = re.sub(r" \(at .*\)$", "", str(error))
        line = text.split("\n")[int(place[1]) - 1] if place else ""
        raise ProfileError(
            f"{where} is not valid TOML: {reason}",
            hint="in double quotes a backslash begins an escape: write a Windows path in single "
            "quotes, or write it with /"
            if '"' in line and "\\" in line
            else "strings need quotes, lists brackets: https://toml.io",
        ) from error
    lines = key_lines(text)
    extends = table.pop("extends", None)
    if extends is not None and not isinstance(extends, str):
        raise ProfileError(
            f"{label}:{lines.get(('extends',), 1)}: extends must be the name of one profile",
            hint='write extends = "quickstart"',
        )
    layer = {
        key: Setting(value, f"profile {label}:{lines.get(key, 1)}") for key, value in leaves(table)
    }
    return layer, extends


def _loads(text: str) -> dict[str, Any]:
    """Parse TOML; values that are nested or written too deep to read are no valid TOML either."""
    try:
        table = tomllib.loads(text)
        if _depth(table) > _DEEPEST:
            raise RecursionError
    except RecursionError:
        raise tomllib.TOMLDecodeError("values are nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # integers of thousands of digits
        raise tomllib.TOMLDecodeError(str(error)) from None
    return table


def _depth(value: Any) -> int:
    """Return how deeply a value is nested, without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [
            item for items in inner for item in items if isinstance(item, dict | list) and item
        ]
    return depth


def key_lines(text: str) -> dict[Key, int]:
    """Return the line (from 1) on which each key of a valid TOML text is written.

    The text is cut into statements: the shortest runs of lines that parse by themselves.
    """
    lines: dict[Key, int] = {}
    section: Key = ()
    pending: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        pending.append(line)
        try:
            if len(pending) > _SHORT_STATEMENT and not line.rstrip().endswith(_CLOSINGS):
                continue  # a long value is not at its end yet
            statement = _loads("\n".join(pending))
        except tomllib.TOMLDecodeError:
            continue
        first = number - len(pending) + 1
        if pending[0].lstrip().startswith("["):
            section = _header(statement)
        else:
            lines.update(dict.fromkeys((section + key for key, _ in leaves(statement)), first))
        pending = []
    return lines


def _header(statement: Mapping[str, Any]) -> Key:
    """Return the path that a ``[section]`` line opens."""
    path: list[str] = []
    inner: Any = statement
    while isinstance(inner, dict) and inner:
        (name,) = inner
        path.append(name)
        inner = inner[name]
    return tuple(path)


def read_assignments(assignments: Sequence[str], kinds: Mapping[Key, type]) -> Layer:
    """Parse ``section.key=value`` assignments; of two for one key the later counts.

    A value is read as TOML; what is not TOML, and anything for a text key, is taken as it stands.
    A list may be written with commas and without brackets.

    Args:
        assignments: what followed each ``--set``.
        kinds: for each key that holds text or a list, ``str`` or ``tuple``.

    Raises:
        ProfileError: an assignment has no ``=`` or no key.
    """
    layer: Layer = {}
    for assignment in assignments:
        name, equals, raw = assignment.partition("=")
        key = tuple(part.strip() for part in name.split("."))
        if not equals or not all(key):
            raise ProfileError(
                f"--set {assignment!r} is not an assignment",
                hint="write --set section.key=value, for example --set training.epochs=2",
            )
        if key[:2] in TABLES and len(key) > 2:
            key = (*key[:2], ".".join(key[2:]))
        value = _parse_value(raw.strip(), kinds.get(key))
        found = leaves(value, key) if isinstance(value, dict) else [(key, value)]
        layer.update((leaf, Setting(part, "--set")) for leaf, part in found)
    return layer


def _parse_value(raw: str, kind: type | None) -> Any:
    value = _parse_toml(raw)
    if kind is str and not isinstance(value, str | list | dict):
        return raw
    if kind is tuple and not isinstance(value, list | dict):
        return [_parse_toml(part.strip()) for part in raw.split(",") if part.strip()]
    return value


_DEEPEST = 32
_SHORT_STATEMENT = 8
_CLOSINGS = ("]", "}", '"', "'")


def _parse_toml(raw: str) -> Any:
    try:
        return _loads(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return raw


def merge(layers: Sequence[Layer]) -> Layer:
    """Lay later layers over earlier ones, key by key, with two exceptions.

    A layer that names another data set (or path) drops the name, path, labels and split names that
    lower layers gave for it. A file that gives a table of names (``TABLES``) replaces that of the
    files it extends.
    """
    merged: Layer = {}
    for layer in layers:
        for key in [key for key in merged if _superseded(key, layer)]:
            del merged[key]
        merged.update(layer)
    return merged


def _superseded(key: Key, layer: Layer) -> bool:
    if key[:2] in _DATA_SETS and key[-1] in _OF_ONE_SET:
        return any((*key[:2], name) in layer for name in ("name", "path"))
    if key[:2] in TABLES:
        return any(
            other[:2] == key[:2] and setting.origin.startswith("profile")
            for other, setting in layer.items()
        )
    return False

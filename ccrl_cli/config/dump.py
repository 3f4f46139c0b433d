"""A profile written back as TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ccrl_cli.config.schema import Profile


def to_toml(profile: Profile) -> str:
    """Return a profile as TOML with every value that is set; loading it gives the same profile."""
    lines: list[str] = []
    _write_table(profile.model_dump(mode="json"), (), lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _write_table(table: Mapping[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    values = {k: v for k, v in table.items() if v is not None and not isinstance(v, dict)}
    if values and path:
        lines += ["", "[" + ".".join(_key(part) for part in path) + "]"]
    lines += [f"{_key(name)} = {_value(value)}" for name, value in values.items()]
    for name, value in table.items():
        if isinstance(value, dict):
            _write_table(value, (*path, name), lines)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)

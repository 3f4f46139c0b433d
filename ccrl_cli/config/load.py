"""From a profile file, ``--set`` assignments and flags to one checked profile with origins."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ccrl_cli.config.base import Section
from ccrl_cli.config.layers import (
    TABLES,
    Key,
    Layer,
    Setting,
    dotted,
    leaves,
    merge,
    read_assignments,
    read_layer,
)
from ccrl_cli.config.schema import Profile
from ccrl_cli.errors import ProfileError

LOCAL_PROFILE = "ccrl.toml"
DEFAULT_PROFILE = "quickstart"


@dataclass(frozen=True, slots=True)
class LoadedProfile:
    """A checked profile and where each of its values was written.

    Attributes:
        profile: the values.
        origins: for each dotted key ``default``, ``profile FILE:LINE``, ``--set`` or ``flag --x``.
        digest: 16 hexadecimal digits that identify the values.
        path: the file it was read from.
    """

    profile: Profile
    origins: Mapping[str, str]
    digest: str
    path: Path


def load_profile(
    name: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    flag_names: Mapping[str, str] | None = None,
) -> LoadedProfile:
    """Load a profile; defaults < profile < ``--set`` < flags.

    Args:
        name: a file, or the name of a profile that is shipped. None: ``./ccrl.toml`` if there is
            one, else the shipped ``quickstart``.
        overrides: ``section.key=value`` assignments, the value in TOML or bare.
        flags: dotted key -> value; None values are flags that were not given.
        flag_names: dotted key -> flag, where it is not ``--`` and the key's last part.

    Raises:
        ProfileError: the profile does not exist, or holds an unknown key or an invalid value.
    """
    path, label = find_profile(name)
    names = flag_names or {}
    given: Layer = {}
    for key, value in (flags or {}).items():
        if value is not None and value != []:
            flag = names.get(key, "--" + key.rpartition(".")[2].replace("_", "-"))
            given[tuple(key.split("."))] = Setting(value, f"flag {flag}")
    merged = merge([*_read_chain(path, label), read_assignments(overrides, _KINDS), given])
    _refuse_unknown(merged)
    profile = _validate(merged, label)
    origins = {
        dotted(key): merged[key].origin if key in merged else "default"
        for key, _ in leaves(profile.model_dump())
    }
    return LoadedProfile(profile, MappingProxyType(origins), digest(profile), path)


def find_profile(name: str | None) -> tuple[Path, str]:
    """Return the file of a profile, and how to call it.

    Raises:
        ProfileError: there is no such file and no shipped profile of that name.
    """
    if name is None:
        local = Path(LOCAL_PROFILE)
        return (local, LOCAL_PROFILE) if local.is_file() else find_profile(DEFAULT_PROFILE)
    shipped = shipped_profiles()
    if name in shipped:
        return shipped[name], f"{name}.toml"
    path = Path(name)
    if path.is_file():
        return path, name
    if path.suffix == ".toml" or len(path.parts) > 1:
        raise ProfileError(f"there is no profile file {name}", hint="see `ccrl profile list`")
    close = difflib.get_close_matches(name, shipped, n=1)
    if path.with_suffix(".toml").is_file():
        hint = f"for the file {name}.toml give --profile {name}.toml"
    elif close:
        hint = f"did you mean {close[0]}? See `ccrl profile list`"
    else:
        hint = "see `ccrl profile list`, or write one with `ccrl profile init`"
    raise ProfileError(f"there is no profile named {name}", hint=hint)


def shipped_profiles() -> dict[str, Path]:
    """Return the profiles that come with the package, by name."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "profiles", package.parent / "profiles"):
        if found := sorted(folder.glob("*.toml")):
            return {path.stem: path for path in found}
    return {}


def describe_profile(path: Path) -> str:
    """Return the first comment line of a profile file, or an empty string."""
    first = path.read_text(encoding="utf-8-sig").partition("\n")[0].strip()
    return first.lstrip("# ") if first.startswith("#") else ""


def digest(profile: Profile) -> str:
    """Return 16 hexadecimal digits that identify all values of a profile."""
    return section_digest(profile, *type(profile).model_fields)


def section_digest(profile: Profile, *keys: str, without: Collection[str] = ()) -> str:
    """Return 16 hexadecimal digits that identify the values of some sections or keys.

    Args:
        profile: the profile.
        keys: dotted names of sections or values, such as ``prompt`` or ``data.target``.
        without: dotted names of values in these sections that are left out.

    Raises:
        KeyError: there is no such section or value.
    """
    values: dict[str, Any] = {}
    tree = profile.model_dump(mode="json")
    for key in keys:
        inner: Any = tree
        for part in key.split("."):
            inner = inner[part]
        values[key] = inner
    for key in without:
        section, _, name = key.rpartition(".")
        values[section] = {k: v for k, v in values[section].items() if k != name}
    text = json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _read_chain(path: Path, label: str) -> list[Layer]:
    """Read a profile and those it extends, the furthest ancestor first."""
    chain: list[Layer] = []
    seen: list[Path] = []
    while True:
        seen.append(path.resolve())
        layer, extends = read_layer(path, label)
        chain.insert(0, layer)
        if extends is None:
            return chain
        beside = path.parent / extends
        path, label = (beside, str(beside)) if beside.is_file() else find_profile(extends)
        if path.resolve() in seen:
            raise ProfileError(
                f"profile {label} extends itself", hint="remove one of the `extends` lines"
            )


def schema_fields(model: type[Section] = Profile, prefix: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield each key of the schema with its pydantic field, sections excluded."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from schema_fields(kind, (*prefix, name))
        else:
            yield (*prefix, name), field


def _kind(field: FieldInfo) -> type | None:
    """Return ``str`` for a text field, ``tuple`` for a list, else None."""
    options = [field.annotation, *get_args(field.annotation)]
    if any(option is tuple or get_origin(option) is tuple for option in options):
        return tuple
    if any(get_origin(part) is tuple for option in options for part in get_args(option)):
        return tuple
    return str if str in options else None


_FIELDS: dict[Key, FieldInfo] = dict(schema_fields())
_KINDS = {key: kind for key, field in _FIELDS.items() if (kind := _kind(field))}
RENAMED: dict[Key, str] = {
    ("confidence", "type_habit"): "confidence.type_prior",
    ("confidence", "type_matching"): "confidence.prior_matching",
}
"""Keys of earlier versions, and what they are called now."""

_ROUNDS = (
    "labels were never made better inside a training: set curriculum.rounds = 2, and the adapted "
    "policy labels again between two trainings"
)
REMOVED: dict[Key, str] = {
    ("curriculum", name): _ROUNDS
    for name in ("refresh_every_steps", "refresh_from", "refresh_window", "ema_decay")
}
"""Keys of earlier versions that are no more, and what replaces them."""

_SECTIONS = {key[:end] for key in _FIELDS for end in range(1, len(key))}


def _refuse_unknown(merged: Layer) -> None:
    for key, setting in merged.items():
        if key in _SECTIONS:
            raise ProfileError(
                f"{dotted(key)} is a section, not a value ({setting.origin})",
                hint=f"set one of its keys, such as {dotted(_first_key(key))}",
            )
        if key in _FIELDS or (key[:2] in TABLES and len(key) == 3):
            continue
        if key in RENAMED:
            raise ProfileError(
                f"{dotted(key)} ({setting.origin}) is called {RENAMED[key]} now",
                hint=f"write {RENAMED[key]}; CHANGELOG.md says what its values are called",
            )
        if key in REMOVED:
            raise ProfileError(f"{dotted(key)} ({setting.origin}) is gone", hint=REMOVED[key])
        near = _nearest(key)
        raise ProfileError(
            f"unknown key {dotted(key)} ({setting.origin})",
            hint=f"did you mean {near}?" if near else "see `ccrl profile show` for all keys",
        )


def _first_key(section: Key) -> Key:
    return next(key for key in _FIELDS if key[: len(section)] == section)


def _nearest(key: Key) -> str | None:
    """Return the valid key that a wrong one probably means: same section, same name, any."""
    beside = {known[-1]: dotted(known) for known in _FIELDS if known[:-1] == key[:-1]}
    if close := difflib.get_close_matches(key[-1], beside, n=1):
        return beside[close[0]]
    elsewhere = [dotted(known) for known in _FIELDS if known[-1] == key[-1]]
    pool = elsewhere or [dotted(known) for known in _FIELDS]
    close = difflib.get_close_matches(dotted(key), pool, n=1, cutoff=0.0 if elsewhere else 0.6)
    return close[0] if close else None


def _validate(merged: Layer, label: str) -> Profile:
    tree: dict[str, Any] = {"model": {}, "data": {"source": {}, "target": {}}}
    for key, setting in merged.items():
        inner = tree
        for part in key[:-1]:
            inner = inner.setdefault(part, {})
        inner[key[-1]] = setting.value
    try:
        return Profile.model_validate(tree)
    except ValidationError as error:
        details = error.errors(include_url=False)
        first = _located(details[0])
        field = _FIELDS.get(first)
        raise ProfileError(
            "; ".join(
                {_located(e): _sentence(e, merged, label) for e in reversed(details)}.values()
            ),
            hint=f"{dotted(first)}: {field.description}"
            if field
            else "see the values and their origins with `ccrl profile show`",
        ) from error


def _located(item: ErrorDetails) -> Key:
    """Return the key of the schema in which an error lies: a value, or a section."""
    place = tuple(str(part) for part in item["loc"])
    while place and place not in _FIELDS and place not in _SECTIONS:
        place = place[:-1]
    return place


def _sentence(item: ErrorDetails, merged: Layer, label: str) -> str:
    key = _located(item)
    reason = str(item.get("ctx", {}).get("error") or item["msg"])
    reason = reason[:1].lower() + reason[1:]
    if item["type"] == "missing":
        return f"{dotted(key)} must be set (profile {label})"
    if key in merged:
        value = json.dumps(merged[key].value, ensure_ascii=False, default=str)
        return f"{dotted(key)} = {value} is not valid: {reason} ({merged[key].origin})"
    origins = dict.fromkeys(s.origin for k, s in merged.items() if key and k[: len(key)] == key)
    written = [origin for origin in origins if not origin.startswith("profile")]
    where = ", ".join(written) or f"profile {label}"
    return f"{dotted(key) + ': ' if key else ''}{reason} ({where})"

"""Records as JSON objects, and the identity that says whether two records may be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from ccrl_cli.records import Completion, Entity, Finish, Record
from ccrl_cli.store.encoding import dump_json

SCHEMA = 1
OVERWRITES = "overwrites"
_MAX_VERSION = 2**31 - 1
_FIELDS = frozenset(
    (
        "schema",
        "input_id",
        "text",
        "model",
        "completions",
        "pseudo_label",
        "confidence",
        "identity",
        "created",
        "seconds",
    )
)
_MEASURED = ("created", "seconds")
_PROVENANCE = ("backend", "versions")
_FINISHES: dict[Any, Finish] = {finish: finish for finish in get_args(Finish)}
ABSENT = "(absent)"


class RecordError(ValueError):
    """A JSON object is no record; the message names the field."""


def record_to_json(record: Record) -> dict[str, Any]:
    """Return the JSON object of a record; an empty ``created`` becomes the present UTC time.

    Raises:
        ValueError: ``extra`` holds the name of a field the schema defines.
    """
    taken = _FIELDS.intersection(record.extra)
    if taken:
        raise ValueError(f"extra fields shadow the schema: {', '.join(sorted(taken))}")
    return {
        "schema": SCHEMA,
        "input_id": record.input_id,
        "text": record.text,
        "model": record.model,
        "completions": [
            {
                "text": completion.text,
                "mean_logprob": completion.mean_logprob,
                "num_tokens": completion.num_tokens,
                "finish": completion.finish,
                **({"reasoning": completion.reasoning} if completion.reasoning else {}),
                **({"reason": completion.reason} if completion.reason else {}),
            }
            for completion in record.completions
        ],
        "pseudo_label": [{"text": e.text, "type": e.type} for e in record.pseudo_label],
        "confidence": record.confidence,
        "identity": dict(record.identity),
        "created": record.created or datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": record.seconds,
        **record.extra,
    }


def record_from_json(value: Mapping[str, Any]) -> Record:
    """Return the record of a JSON object; fields the schema does not define go to ``extra``.

    Raises:
        RecordError: a field is missing or of the wrong type, or the schema is another one.
    """
    check_fields(value)
    return Record(
        input_id=value["input_id"],
        text=_typed(value, "text", str),
        model=value["model"],
        completions=tuple(_completion(item) for item in value["completions"]),
        identity=value["identity"],
        pseudo_label=tuple(_entity(item) for item in value.get("pseudo_label") or ()),
        confidence=float(_typed(value, "confidence", (int, float), 0.0)),
        created=_typed(value, "created", str, ""),
        seconds=float(_typed(value, "seconds", (int, float), 0.0)),
        extra={key: item for key, item in value.items() if key not in _FIELDS},
    )


def check_fields(value: Mapping[str, Any]) -> None:
    """Check what every use of a line relies on: schema, key, completions, identity.

    Raises:
        RecordError: names the field that is missing or of the wrong type.
    """
    schema = value.get("schema")
    if schema != SCHEMA:
        raise RecordError(f"schema {schema!r} is not {SCHEMA}, the one this version reads")
    for name in ("input_id", "model"):
        if not isinstance(value.get(name), str):
            raise RecordError(f"field {name!r} is not a string")
    if not isinstance(value.get("completions"), list):
        raise RecordError("field 'completions' is not a list")
    if not isinstance(value.get("identity"), dict):
        raise RecordError("field 'identity' is not an object")
    version = value.get(OVERWRITES, 0)
    if not isinstance(version, int) or not 0 <= version <= _MAX_VERSION:
        raise RecordError(f"field {OVERWRITES!r} is {version!r}, not a count")


def content_bytes(value: Mapping[str, Any]) -> bytes:
    """Return canonical bytes of all that two equal records share: time and duration left out."""
    content = {key: item for key, item in value.items() if key not in _MEASURED}
    return dump_json(content, sort_keys=True)


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits; equal if and only if ``identity_differences`` is empty.

    Backend and package versions are provenance: kept in every record, and no part of the
    comparison. An upgrade or another machine does not strand a half-filled store.
    """
    return hashlib.sha256(dump_json(_canonical(identity), sort_keys=True)).hexdigest()[:16]


def identity_differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return dotted key -> (stored value, wanted value) where two identities differ."""
    left, right = _flatten(_canonical(stored)), _flatten(_canonical(wanted))
    return {
        key: (left.get(key, ABSENT), right.get(key, ABSENT))
        for key in sorted(left.keys() | right.keys())
        if key not in left or key not in right or left[key] != right[key]
    }


def _completion(value: Any) -> Completion:
    if not isinstance(value, dict):
        raise RecordError(f"a completion is not an object but {type(value).__name__}")
    finish = _FINISHES.get(_typed(value, "finish", str))
    if finish is None:
        raise RecordError(f"a completion has the finish {value['finish']!r}")
    logprob = _typed(value, "mean_logprob", (int, float, type(None)), None)
    return Completion(
        text=_typed(value, "text", str),
        mean_logprob=None if logprob is None else float(logprob),
        num_tokens=_typed(value, "num_tokens", int),
        finish=finish,
        reasoning=_typed(value, "reasoning", (str, type(None)), None),
        reason=_typed(value, "reason", (str, type(None)), None),
    )


def _entity(value: Any) -> Entity:
    if not isinstance(value, dict):
        raise RecordError(f"an entity is not an object but {type(value).__name__}")
    return Entity(_typed(value, "text", str), _typed(value, "type", str))


_REQUIRED = object()


def _typed(
    value: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any = _REQUIRED
) -> Any:
    found = value.get(name, default)
    if found is _REQUIRED:
        raise RecordError(f"field {name!r} is missing")
    if not isinstance(found, kind) or isinstance(found, bool):
        raise RecordError(f"field {name!r} has the type {type(found).__name__}")
    return found


def _canonical(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the compared part, with whole floats as integers: 1 and 1.0 are one setting."""
    return {key: _whole(item) for key, item in identity.items() if key not in _PROVENANCE}


def _whole(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            flat.update(_flatten(item, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = item
    return flat

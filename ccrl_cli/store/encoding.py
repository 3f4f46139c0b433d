"""One JSON encoding for every file the package writes: orjson, with a fallback for surrogates.

orjson refuses lone surrogates, which can reach a text through careless decoding. Such values are
written in ASCII with escapes (backslash, u, d83d) and read back to the same string; only two
halves that stand side by side come back as the one character they make. Non-finite floats become
null, as with orjson.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def dump_json(value: Any, *, indent: bool = False, sort_keys: bool = False) -> bytes:
    """Encode a JSON value as UTF-8 without a final newline.

    Args:
        value: dicts with string keys, lists, tuples, strings, numbers (numpy's too), None.
        indent: two spaces and line breaks instead of one line.
        sort_keys: order keys, so that equal values have equal bytes.

    Raises:
        TypeError: a value has no JSON form.
    """
    options = orjson.OPT_SERIALIZE_NUMPY
    if indent:
        options |= orjson.OPT_INDENT_2
    if sort_keys:
        options |= orjson.OPT_SORT_KEYS
    try:
        return orjson.dumps(value, option=options)
    except TypeError as error:
        if "surrogates" not in str(error):
            raise
    return json.dumps(
        _finite(value),
        ensure_ascii=True,
        allow_nan=False,
        sort_keys=sort_keys,
        indent=2 if indent else None,
        separators=None if indent else (",", ":"),
    ).encode("ascii")


def load_json(data: bytes) -> Any:
    """Decode one JSON value; escaped lone surrogates come back as they were.

    Raises:
        ValueError: the bytes are not UTF-8 or not one JSON value.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if not _SURROGATE_ESCAPE.search(data):
            raise
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def replace_surrogates(text: str) -> tuple[str, int]:
    """Replace each lone surrogate by U+FFFD, for formats that cannot hold it.

    Returns:
        The text, and how many characters were replaced.
    """
    if text.isascii():
        return text, 0
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return re.subn("[\ud800-\udfff]", "\ufffd", text)
    return text, 0


def _finite(value: Any) -> Any:
    """Return the value with non-finite floats as None and numpy scalars and arrays as Python's."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

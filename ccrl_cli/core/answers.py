"""The answer format for engines that can hold a model to one: as a JSON schema, as a pattern."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}/]")
#: A string of JSON that is not empty, without control characters.
_TEXT = r'"([^"\\\r\n\t]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})+"'


def answer_schema(type_names: Iterable[str]) -> dict[str, Any]:
    """Return the JSON schema of mentions whose types are the listed ones, in an object's list.

    Servers of OpenAI's kind refuse a schema whose root is no object. Every text that fits it can
    be read (`core.parsing.parse_completion`), but for a mention of blanks alone.

    Args:
        type_names: names of the types as prompts show them, in any order.

    Raises:
        ValueError: no name is given.
    """
    mention = {
        "type": "object",
        "properties": {
            "text": {"type": "string", "minLength": 1},
            "type": {"type": "string", "enum": _ordered(type_names)},
        },
        "required": ["text", "type"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"entities": {"items": mention, "type": "array"}},
        "required": ["entities"],
        "additionalProperties": False,
    }


def answer_pattern(type_names: Iterable[str]) -> str:
    """Return a regular expression for the same answers, spelled as supervised examples are.

    A schema leaves the width of white space open, and models that may write line breaks do. The
    pattern uses no construct beyond groups, classes and repetition, so engines can compile it.

    Args:
        type_names: names of the types as prompts show them, in any order.

    Raises:
        ValueError: no name is given.
    """
    names = "|".join(
        _SPECIAL.sub(r"\\\g<0>", json.dumps(name, ensure_ascii=False)[1:-1])
        for name in _ordered(type_names)
    )
    mention = rf'\{{"text": {_TEXT}, "type": "({names})"\}}'
    return rf"\[({mention}(, {mention})*)?\]"


def _ordered(type_names: Iterable[str]) -> list[str]:
    """Return the names once each and sorted: the order in a prompt does not matter."""
    names = sorted(set(type_names))
    if not names:
        raise ValueError("an answer needs at least one type")
    return names

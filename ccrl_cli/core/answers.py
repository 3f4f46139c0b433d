"""The answer format as a JSON schema, for engines that can hold a model to one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def answer_schema(type_names: Iterable[str]) -> dict[str, Any]:
    """Return the JSON schema of a list of mentions whose types are the listed ones.

    Every text that fits it parses as ``valid`` (`core.parsing.parse_completion`), but for a mention
    of blanks alone.

    Args:
        type_names: names of the types as prompts show them; sorted, so that the order in which a
            prompt lists them does not matter.

    Raises:
        ValueError: no name is given.
    """
    names = sorted(set(type_names))
    if not names:
        raise ValueError("an answer needs at least one type")
    mention = {
        "type": "object",
        "properties": {
            "text": {"type": "string", "minLength": 1},
            "type": {"type": "string", "enum": names},
        },
        "required": ["text", "type"],
        "additionalProperties": False,
    }
    return {"type": "array", "items": mention}

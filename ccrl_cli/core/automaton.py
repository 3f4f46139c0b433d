"""The answer format as a deterministic automaton over UTF-8 bytes, for decoders that mask tokens.

It accepts exactly what `answers.answer_pattern` matches, but reads bytes, because tokens may end
inside a character.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

_OPEN, _ITEM, _BETWEEN = b"[", b'{"text": "', b'", "type": "'
_AFTER_TYPE, _NEXT = b'"}', b", "
_ESCAPED = frozenset(b'"\\/bfnrt')
_HEX = frozenset(b"0123456789abcdefABCDEF")


class AnswerAutomaton:
    """States are small integers; `start` is the first, `accepting` the only one that ends."""

    def __init__(self, type_names: Iterable[str]) -> None:
        """Build the automaton.

        Args:
            type_names: names of the types as prompts show them.

        Raises:
            ValueError: no name is given.
        """
        self._edges: list[dict[int, int]] = []
        self._default: dict[int, int] = {}
        names = sorted({json.dumps(name, ensure_ascii=False)[1:-1] for name in type_names})
        if not names:
            raise ValueError("an answer needs at least one type")
        self.start = self._state()
        self.accepting = self._state()
        opened = self._path(self.start, _OPEN)
        self._edges[opened][ord("]")] = self.accepting
        item = self._state()
        self._edges[opened][_ITEM[0]] = item
        first_text = self._path(item, _ITEM[1:])
        type_start = self._text(first_text)
        closed = self._state()
        for name in names:
            last = self._path(type_start, name.encode("utf-8"))
            self._edges[last][_AFTER_TYPE[0]] = closed
        done = self._path(closed, _AFTER_TYPE[1:])
        self._edges[done][ord("]")] = self.accepting
        again = self._path(done, _NEXT)
        self._edges[again][_ITEM[0]] = item

    def step(self, state: int, byte: int) -> int | None:
        """Return the state after one more byte, or None where no answer goes on with it."""
        found = self._edges[state].get(byte)
        if found is not None:
            return found
        # A text: everything but quotes, backslashes and control characters stays in it.
        if byte >= 0x20 and byte not in b'"\\':
            return self._default.get(state)
        return None

    def walk(self, state: int, data: bytes) -> int | None:
        """Return the state after some bytes, or None."""
        found: int | None = state
        for byte in data:
            if found is None:
                return None
            found = self.step(found, byte)
        return found

    def first_bytes(self, state: int) -> frozenset[int] | None:
        """Return the bytes that may come next; None where nearly all may (inside a text)."""
        return None if state in self._default else frozenset(self._edges[state])

    def _state(self) -> int:
        self._edges.append({})
        return len(self._edges) - 1

    def _path(self, state: int, data: bytes) -> int:
        """Lead from a state through given bytes, along edges that are there; return the end."""
        for byte in data:
            following = self._edges[state].get(byte)
            if following is None:
                following = self._state()
                self._edges[state][byte] = following
            state = following
        return state

    def _text(self, state: int) -> int:
        """Lead from the opening quote of a non-empty text to the start of its type."""
        inside, escape = self._state(), self._state()
        for origin in (state, inside):
            self._default[origin] = inside
            self._edges[origin][ord("\\")] = escape
        for byte in _ESCAPED:
            self._edges[escape][byte] = inside
        digits = [escape, *(self._state() for _ in range(4))]
        self._edges[escape][ord("u")] = digits[1]
        for place in range(1, 5):
            following = inside if place == 4 else digits[place + 1]
            for byte in _HEX:
                self._edges[digits[place]][byte] = following
        return self._path(inside, _BETWEEN)

"""Readable names of types: what a prompt shows, and the way back to the identifier."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ccrl_cli.errors import DataError

UNLISTABLE = re.compile(r"[,;\"\x00-\x1f\x7f\x85\u2028\u2029]")
"""What a name in a comma-separated list cannot hold."""

_LINE_BREAK = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_SEPARATORS = re.compile(r"[\s_\-/]+")


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON value."""
    content = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode("ascii")).hexdigest()[:16]


@dataclass(frozen=True)
class TypeNames:
    """Reversible map between type identifiers and the names a prompt shows.

    Attributes:
        pairs: (identifier, prompt name), one a type. No two names are equal without regard to
            case, so a name leads back to one identifier. Build it with :meth:`build`.
        aliases: (identifier, further name): paraphrases, under which :meth:`renamed` may list a
            type. They lead back to one identifier as well.
        descriptions: (identifier, what the type covers, in one line), for types that have one.
    """

    pairs: tuple[tuple[str, str], ...]
    aliases: tuple[tuple[str, str], ...] = ()
    descriptions: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        identifiers: set[str] = set()
        for identifier, _ in self.pairs:
            if identifier in identifiers:
                raise DataError(f"type {identifier!r} is listed twice", hint="list each type once")
            identifiers.add(identifier)
        for identifier, text in self.descriptions:
            if not text.strip() or _LINE_BREAK.search(text):
                raise DataError(
                    f"the description of type {identifier!r} is not one line: {text!r}",
                    hint=f'write it in one line: [data.type_descriptions] "{identifier}" = "..."',
                )
        for identifier, name in (*self.pairs, *self.aliases):
            if not name.strip() or UNLISTABLE.search(name):
                raise DataError(
                    f"type {identifier!r} has the prompt name {name!r}, which a comma-separated"
                    " list cannot show",
                    hint=f'give it another name: [data.type_names] "{identifier}" = "..."',
                )
            other = seen.setdefault(fold_name(name), identifier)
            if other != identifier:
                raise DataError(
                    f"types {other!r} and {identifier!r} share the prompt name {name!r}",
                    hint=f'tell them apart: [data.type_names] "{identifier}" = "..."',
                )

    @classmethod
    def build(
        cls,
        types: Iterable[str],
        overrides: Mapping[str, str] | None = None,
        paraphrases: Mapping[str, Sequence[str]] | None = None,
        descriptions: Mapping[str, str] | None = None,
    ) -> TypeNames:
        """Name each type: by an override, else by :func:`readable`.

        Args:
            types: type identifiers.
            overrides: identifier to prompt name; those of other types are left aside, because
                one table serves the source and the target types.
            paraphrases: identifier to further names; those of other types are left aside.
            descriptions: identifier to what it covers; those of other types are left aside.

        Raises:
            DataError: a name is blank, cannot stand in a list, or is shared by two types.
        """
        chosen = overrides or {}
        listed = tuple(types)
        pairs = tuple((t, chosen[t] if t in chosen else readable(t)) for t in listed)
        others = paraphrases or {}
        meant = descriptions or {}
        return cls(
            pairs,
            aliases=tuple((t, name) for t in listed for name in others.get(t, ())),
            descriptions=tuple((t, meant[t]) for t in listed if t in meant),
        )

    @cached_property
    def by_identifier(self) -> Mapping[str, str]:
        """Identifier to prompt name."""
        return dict(self.pairs)

    @cached_property
    def by_name(self) -> Mapping[str, str]:
        """Prompt name (or alias) to identifier, as ``core.parsing.parse_completion`` takes it."""
        return {name: identifier for identifier, name in (*self.aliases, *self.pairs)}

    @cached_property
    def _by_folded_name(self) -> Mapping[str, str]:
        return {fold_name(name): identifier for identifier, name in (*self.aliases, *self.pairs)}

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Type identifiers in the order given."""
        return tuple(identifier for identifier, _ in self.pairs)

    @property
    def digest(self) -> str:
        """16 hex digits over the names; the order of the types does not matter."""
        names: list[object] = [*sorted(self.pairs)]
        further = {"aliases": self.aliases, "descriptions": self.descriptions}
        return digest(names + [[name, *sorted(pairs)] for name, pairs in further.items() if pairs])

    def name(self, identifier: str) -> str:
        """Return the prompt name of a type; KeyError if the type is not listed."""
        return self.by_identifier[identifier]

    def identifier(self, name: str) -> str | None:
        """Return the type that a prompt name stands for (case and spacing apart), or None."""
        return self._by_folded_name.get(fold_name(name))

    def renamed(self, rate: float, seed: int) -> TypeNames:
        """Return the names of one prompt: each type under an alias with the probability `rate`.

        Equal seeds give equal names on every platform and Python version.

        Args:
            rate: probability, in [0, 1]; a type without aliases keeps its name.
            seed: from ``core.seeds.derive_seed``.
        """
        rng = random.Random(seed)  # only random() is promised to stay the same across versions
        pairs = []
        for identifier, name in self.pairs:
            chance, choice = rng.random(), rng.random()
            found = self._aliases_of.get(identifier, [])
            if found and chance < rate:
                name = found[int(choice * len(found))]
            pairs.append((identifier, name))
        return TypeNames(tuple(pairs), descriptions=self.descriptions)

    def replaced(self, names: Mapping[str, str]) -> TypeNames:
        """Return the same types under other prompt names, without aliases.

        Args:
            names: identifier to its new name; types that are not in it keep theirs.

        Raises:
            DataError: a name is blank, cannot stand in a list, or is shared by two types.
        """
        pairs = tuple((t, names.get(t, name)) for t, name in self.pairs)
        return TypeNames(pairs, descriptions=self.descriptions)

    @cached_property
    def _aliases_of(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = {}
        for identifier, name in self.aliases:
            found.setdefault(identifier, []).append(name)
        return found


def readable(identifier: str) -> str:
    """Return an identifier as words: underscores, hyphens and slashes become single spaces."""
    return _SEPARATORS.sub(" ", identifier).strip() or identifier


def fold_name(name: str) -> str:
    """Return a name as names are compared: without regard to case and width of spacing."""
    return " ".join(name.casefold().split())

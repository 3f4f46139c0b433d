"""Data sets by name or path: sample corpora, hub data sets, local files and folders."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from ccrl_cli.data.examples import TAG
from ccrl_cli.data.hub import hub_rows
from ccrl_cli.data.markup import parse_corpus
from ccrl_cli.data.readers import (
    ReadCounts,
    ReadResult,
    assemble,
    count_examples,
    file_format,
    read_examples,
)
from ccrl_cli.errors import DataError, PreconditionError
from ccrl_cli.records import Example

T = TypeVar("T")

SPLITS = ("train", "dev", "test")
_FILE_NAMES = {"dev": ("dev", "valid", "validation", "val")}
_CORPUS = "corpus.toml"


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Which data to load.

    Attributes:
        source: ``sample:NAME``, ``hub:ID[:CONFIG][@REVISION]``, or the path of a file or folder.
        splits: what a split is called in the source where that differs; ``train+dev`` joins two.
        labels: types to keep, in this order; None takes those of the data. If it holds ``O`` it
            lists the tags of integer labels instead, and the types follow from them.
        max_samples: the first so many sentences of a split are kept; None keeps all.
    """

    source: str
    splits: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    max_samples: int | None = None

    def __post_init__(self) -> None:
        if self.max_samples is not None and self.max_samples < 1:
            raise DataError(
                f"{self.source}: at most {self.max_samples} samples leaves nothing to do",
                hint="give a positive number, or leave it out",
            )


@dataclass(frozen=True, slots=True)
class Split:
    """One split, loaded.

    Attributes:
        name: the source, as given.
        split: the split, as asked for.
        examples: inputs in the order of the source, duplicates included.
        labels: types to ask for.
        counts: what was found, left out and repaired.
        digest: SHA-256 of labels, texts, tokens and gold of what was loaded.
        files: (file name, SHA-256 of its bytes) of each file read; none for hub data sets.
        type_names: prompt names that a corpus brings along (identifier to name).
    """

    name: str
    split: str
    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    counts: ReadCounts
    digest: str
    files: tuple[tuple[str, str], ...] = ()
    type_names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Corpus:
    """What ``corpus.toml`` says about a hand-written corpus.

    Attributes:
        splits: splits that have a file.
        type_names: identifier to prompt name, where it differs from the default.
        guidelines: identifier to annotation rule.
    """

    name: str
    description: str
    license: str
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    type_names: Mapping[str, str] = field(default_factory=dict)
    guidelines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Part:
    """One file or hub split, before labels and limits are applied."""

    examples: tuple[Example, ...]
    counts: ReadCounts
    file: tuple[str, str] | None = None


class SplitReader:
    """Reads splits, each file and each split of a hub data set once for as long as it lives.

    A command makes one and hands it on, so that its steps see the same data: what changes on disk
    in between is seen by the next command.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def load(self, spec: DatasetSpec, split: str) -> Split:
        """Return a split; see :func:`load_split`."""
        names = tuple(_split_names(spec, split))
        key = (spec.source, names, tuple(sorted(spec.splits.items())), spec.labels)
        return self.once((*key, spec.max_samples, split), lambda: _load(spec, split, self))

    def once(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return what was read under a key before, or read it."""
        if key not in self._known:
            self._known[key] = read()
        found: T = self._known[key]
        return found


def load_split(spec: DatasetSpec | str | Path, split: str) -> Split:
    """Load one split of a data set.

    A local file is every split of itself; a local folder holds ``train``, ``dev`` (``valid``,
    ``validation``, ``val``) and ``test`` files of any format that ``readers`` knows, or a corpus
    with ``corpus.toml`` and markup. Without labels in the spec, a corpus states its own, and
    other sources are asked for every type that any of their splits has, sorted: none at all if
    nothing is labelled.

    Raises:
        DataError: the source, the split or the labels do not exist in it, or a file is malformed.
        PreconditionError: a file, a package or the connection is missing.
    """
    if not isinstance(spec, DatasetSpec):
        spec = DatasetSpec(str(spec))
    return SplitReader().load(spec, split)


def _load(spec: DatasetSpec, split: str, reader: SplitReader) -> Split:
    parts = [_load_part(spec, name, reader) for name in _split_names(spec, split)]
    corpus = _corpus_of(spec)
    examples = tuple(example for part in parts for example in part.examples)
    labels = _labels(spec, corpus, examples, reader)
    kept = tuple(_with_types(example, frozenset(labels)) for example in examples)
    limited = kept[: spec.max_samples]
    mentions = count_examples(examples)["mentions"]
    counts = ReadCounts(
        empty=sum(part.counts.empty for part in parts),
        converted_tags=sum(part.counts.converted_tags for part in parts),
        repaired_tags=sum(part.counts.repaired_tags for part in parts),
        other_types=mentions - count_examples(kept)["mentions"],
        truncated=len(kept) - len(limited),
        **count_examples(limited),
    )
    if mentions and counts.other_types == mentions:
        seen = sorted({span.type for example in examples for span in example.gold or ()})
        raise DataError(
            f"{spec.source} {split}: no gold mention has one of the labels {', '.join(labels)}",
            hint=f"its types are: {', '.join(seen)}",
        )
    return Split(
        name=spec.source,
        split=split,
        examples=limited,
        labels=labels,
        counts=counts,
        digest=_digest(labels, limited),
        files=tuple(part.file for part in parts if part.file),
        type_names=corpus.type_names if corpus else {},
    )


def available_splits(spec: DatasetSpec | str | Path) -> tuple[str, ...]:
    """Return which of train, dev and test a sample corpus or local source has.

    A single file has all three. Hub data sets are not asked: ``load_split`` says what they have.
    """
    if not isinstance(spec, DatasetSpec):
        spec = DatasetSpec(str(spec))
    if spec.source.startswith("hub:"):
        return SPLITS
    root = _root(spec.source)
    if root.is_file():
        return SPLITS
    return tuple(
        split
        for split in SPLITS
        if all(_candidates(root, name) for name in _split_names(spec, split))
    )


def without_duplicates(
    examples: Iterable[Example], exclude: Iterable[Example] = ()
) -> tuple[tuple[Example, ...], int]:
    """Return inputs whose text is new, and how many were left out.

    For training inputs, never for a published test file.

    Args:
        examples: inputs; the first of equal texts is kept.
        exclude: inputs whose texts must not be among them, for example the test split.
    """
    seen = {example.text for example in exclude}
    kept: list[Example] = []
    total = 0
    for example in examples:
        total += 1
        if example.text not in seen:
            seen.add(example.text)
            kept.append(example)
    return tuple(kept), total - len(kept)


def _split_names(spec: DatasetSpec, split: str) -> list[str]:
    """Return what a split is called in the source; several names are joined."""
    return [name.strip() for name in spec.splits.get(split, split).split("+")]


# --- sources ------------------------------------------------------------------------------------


def _samples() -> Traversable:
    return resources.files("ccrl_cli.data").joinpath("samples")


def _root(source: str) -> Traversable:
    """Return the file or folder of a source that is not on the hub."""
    if not source.startswith("sample:"):
        path = Path(source).expanduser()
        if not path.exists():
            raise PreconditionError(
                f"{source} does not exist",
                hint="give a file, a folder, sample:NAME or hub:OWNER/NAME",
            )
        return path
    name = source.removeprefix("sample:")
    known = [folder.name for folder in _samples().iterdir() if folder.joinpath(_CORPUS).is_file()]
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise DataError(
            f"there is no sample corpus {name!r}",
            hint=f"did you mean sample:{near[0]}?"
            if near
            else "choose one of: " + ", ".join(f"sample:{k}" for k in sorted(known)),
        )
    return _samples().joinpath(name)


def _load_part(spec: DatasetSpec, name: str, reader: SplitReader) -> _Part:
    tags = spec.labels if spec.labels and "O" in spec.labels else None
    if spec.source.startswith("hub:"):
        return reader.once((spec.source, name, tags), lambda: _load_hub(spec.source, name, tags))
    root = _root(spec.source)
    if root.is_file():
        file = root
    elif root.joinpath(_CORPUS).is_file():
        return reader.once((str(root), name, tags), lambda: _load_markup(root, name))
    else:
        file = _find_file(root, name)
    result = _read_file(file, tags, reader)
    return _Part(result.examples, result.counts, (file.name, result.sha256))


def _load_hub(source: str, name: str, tags: tuple[str, ...] | None) -> _Part:
    hub = assemble(hub_rows(source.removeprefix("hub:"), name, tags), sha256="")
    return _Part(hub.examples, hub.counts)


def _read_file(file: Traversable, tags: tuple[str, ...] | None, reader: SplitReader) -> ReadResult:
    path = Path(str(file))
    return reader.once((str(path), tags), lambda: read_examples(path, tags))


def _load_markup(root: Traversable, name: str) -> _Part:
    corpus = _read_corpus(root)
    file = root.joinpath(f"{name}.txt")
    if not file.is_file():
        raise DataError(f"{root} has no split {name!r}", hint=f"it has: {', '.join(corpus.splits)}")
    content = file.read_bytes()
    examples = parse_corpus(content, str(file), corpus.labels)
    counts = ReadCounts(**count_examples(examples))
    return _Part(examples, counts, (file.name, hashlib.sha256(content).hexdigest()))


def _candidates(root: Traversable, name: str) -> list[Traversable]:
    stems = _FILE_NAMES.get(name, (name,))
    return [
        entry
        for entry in sorted(root.iterdir(), key=lambda entry: entry.name)
        if entry.is_file() and file_format(Path(entry.name)) and entry.name.split(".")[0] in stems
    ]


def _find_file(root: Traversable, name: str) -> Traversable:
    found = _candidates(root, name)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{root} has several files for split {name!r}: {', '.join(f.name for f in found)}",
            hint="keep one of them, or name the file itself as path",
        )
    there = sorted(e.name for e in root.iterdir() if e.is_file() and file_format(Path(e.name)))
    raise DataError(
        f"{root} has no file for split {name!r}",
        hint=f"it has: {', '.join(there[:10]) or 'no file to read'}; "
        f"call one {name}.jsonl, or map its name with splits",
    )


def _corpus_of(spec: DatasetSpec) -> Corpus | None:
    if spec.source.startswith("hub:"):
        return None
    root = _root(spec.source)
    return _read_corpus(root) if root.joinpath(_CORPUS).is_file() else None


def _read_corpus(root: Traversable) -> Corpus:
    file = root.joinpath(_CORPUS)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        return Corpus(
            name=str(values["name"]),
            description=str(values["description"]),
            license=str(values["license"]),
            labels=tuple(map(str, values["labels"])),
            splits=tuple(s for s in SPLITS if root.joinpath(f"{s}.txt").is_file()),
            type_names=dict(values.get("type_names", {})),
            guidelines=dict(values.get("guidelines", {})),
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} does not describe a corpus ({error})",
            hint="it needs name, description, license and labels",
        ) from None


# --- labels and digest --------------------------------------------------------------------------


def _labels(
    spec: DatasetSpec, corpus: Corpus | None, examples: Iterable[Example], reader: SplitReader
) -> tuple[str, ...]:
    if spec.labels is not None and "O" in spec.labels:
        matches = ((tag, TAG.fullmatch(tag)) for tag in spec.labels if tag != "O")
        return tuple(dict.fromkeys(match.group(2) if match else tag for tag, match in matches))
    if spec.labels is not None:
        return tuple(dict.fromkeys(spec.labels))
    if corpus is not None:
        return corpus.labels
    seen = {span.type for example in examples for span in example.gold or ()}
    if not spec.source.startswith("hub:"):
        root = _root(spec.source)
        names = [n for split in SPLITS for n in _split_names(spec, split)] if root.is_dir() else []
        for name in dict.fromkeys(names):
            for file in _candidates(root, name)[:1]:
                seen.update(_read_file(file, None, reader).labels)
    return tuple(sorted(seen))


def _with_types(example: Example, types: frozenset[str]) -> Example:
    if all(span.type in types for span in example.gold or ()):
        return example
    gold = tuple(span for span in example.gold or () if span.type in types)
    return replace(example, gold=gold)


def _digest(labels: Sequence[str], examples: Iterable[Example]) -> str:
    digest = hashlib.sha256(json.dumps(list(labels)).encode("ascii"))
    for example in examples:
        gold = None if example.gold is None else [[s.start, s.end, s.type] for s in example.gold]
        row = [example.text, list(example.tokens), gold]
        digest.update(b"\n" + json.dumps(row, separators=(",", ":")).encode("ascii"))
    return digest.hexdigest()

"""Looking over a store: counts, integrity, and repair that moves lines and deletes none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_cli.errors import UsageError
from ccrl_cli.records import content_id
from ccrl_cli.store.atomic import replacing
from ccrl_cli.store.codec import identity_digest, record_from_json
from ccrl_cli.store.compressed import COMPRESSED_SUFFIXES
from ccrl_cli.store.index import StoreIndex
from ccrl_cli.store.jsonl import JsonlReader, append_bytes, cut_torn_line, parse_object
from ccrl_cli.store.locks import WriterLock


@dataclass(frozen=True, slots=True)
class IdentityInfo:
    """Settings that records of a model were made with.

    Attributes:
        digest: 16 hexadecimal digits; backend and package versions are not part of it.
        identity: the settings; backend and versions are those of the first such record.
    """

    digest: str
    records: int
    identity: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a store holds of one model.

    Attributes:
        num_completions: K -> number of records with K completions.
    """

    model: str
    records: int
    completions: int
    num_completions: dict[int, int]
    identities: tuple[IdentityInfo, ...]


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """Counts of a store.

    Attributes:
        bytes: size of the file.
        lines: complete lines.
        records: (input, model) pairs.
        inputs: distinct inputs.
        duplicates: lines equal to an earlier one, time and duration aside.
        replaced: lines that a later overwrite replaced.
        torn_bytes: bytes of a torn last line.
    """

    path: Path
    bytes: int
    lines: int
    records: int
    inputs: int
    duplicates: int
    replaced: int
    torn_bytes: int
    models: tuple[ModelInfo, ...]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no record, or that contradicts an earlier one."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of every line found.

    Attributes:
        bad: lines that stop every other command, in order.
        torn_bytes: bytes of a torn last line; no damage, the next writer cuts it off.
        foreign_ids: records whose input id is not the digest of their text.
        side_file: where bad lines were moved by a repair, or None.
    """

    path: Path
    lines: int
    records: int
    duplicates: int
    replaced: int
    torn_bytes: int
    foreign_ids: int
    bad: tuple[BadLine, ...]
    side_file: Path | None = None

    @property
    def ok(self) -> bool:
        """True if the store can be used as it is now."""
        return not self.bad or self.side_file is not None


def store_info(path: Path, index: StoreIndex) -> StoreInfo:
    """Return the counts of a store that exists and whose index was scanned."""
    inputs: set[str] = set()
    models = []
    for model in index.models:
        inputs.update(index.input_ids(model))
        models.append(_model_info(model, index))
    return StoreInfo(
        path=path,
        bytes=path.stat().st_size,
        lines=index.num_lines,
        records=len(index),
        inputs=len(inputs),
        duplicates=index.num_duplicates,
        replaced=index.num_replaced,
        torn_bytes=index.torn_bytes,
        models=tuple(models),
    )


def verify_store(path: Path, *, repair: bool = False) -> Verification:
    """Check every line of a store in full.

    Args:
        path: the store.
        repair: move bad lines to ``<name>.bad`` and a torn last line to ``<name>.torn``. Of two
            records of a pair that contradict each other the first stays.

    Raises:
        PreconditionError: the store is missing, or has a writer while it should be repaired.
        UsageError: a compressed store should be repaired.
        IntegrityError: a compressed stream is damaged.
    """
    if not repair:
        return _check(path)
    if path.suffix in COMPRESSED_SUFFIXES:
        raise UsageError(f"{path} is compressed and can only be read", hint="uncompress it first")
    if not path.exists():
        return _check(path)
    with WriterLock(path):
        torn_bytes = cut_torn_line(path)
        found = _check(path)
        side_file = None
        if found.bad:
            side_file = path.with_name(path.name + ".bad")
            _move_lines(path, side_file, {bad.number for bad in found.bad})
    return Verification(
        path=path,
        lines=found.lines,
        records=found.records,
        duplicates=found.duplicates,
        replaced=found.replaced,
        torn_bytes=torn_bytes,
        foreign_ids=found.foreign_ids,
        bad=found.bad,
        side_file=side_file,
    )


def _check(path: Path) -> Verification:
    reader = JsonlReader(path)
    index = StoreIndex(path)
    bad = []
    lines = foreign_ids = 0
    for line in reader:
        lines += 1
        try:
            value = parse_object(line.data)
            record = record_from_json(value)
            index.add(line.offset, value)
        except ValueError as error:
            bad.append(BadLine(line.number, str(error)))
        else:
            foreign_ids += record.input_id != content_id(record.text)
    return Verification(
        path=path,
        lines=lines,
        records=len(index),
        duplicates=index.num_duplicates,
        replaced=index.num_replaced,
        torn_bytes=reader.torn_bytes,
        foreign_ids=foreign_ids,
        bad=tuple(bad),
    )


def _move_lines(path: Path, side_file: Path, numbers: Collection[int]) -> None:
    """Move lines to a side file; they are on disk there before they leave the store."""
    moved = (line.data + b"\n" for line in JsonlReader(path) if line.number in numbers)
    append_bytes(side_file, b"".join(moved))
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.writelines(
            line.data + b"\n" for line in JsonlReader(path) if line.number not in numbers
        )


def _model_info(model: str, index: StoreIndex) -> ModelInfo:
    sizes: Counter[int] = Counter()
    records: Counter[str] = Counter()
    identities: dict[str, Mapping[str, Any]] = {}
    digests: dict[int, str] = {}  # by object: an index keeps one object for each identity
    for _, entry in index.entries(model):
        sizes[entry.num_completions] += 1
        digest = digests.get(id(entry.identity))
        if digest is None:
            digest = digests[id(entry.identity)] = identity_digest(entry.identity)
            identities.setdefault(digest, entry.identity)
        records[digest] += 1
    return ModelInfo(
        model=model,
        records=sizes.total(),
        completions=sum(size * count for size, count in sizes.items()),
        num_completions=dict(sorted(sizes.items())),
        identities=tuple(
            IdentityInfo(digest, count, identities[digest])
            for digest, count in records.most_common()
        ),
    )

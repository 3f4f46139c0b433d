"""Store: counts, integrity, merging and export of the completions of a profile."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ccrl_cli.errors import IntegrityError, PreconditionError
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.export import ExportReport, Format
from ccrl_cli.store.inspection import StoreInfo, Verification
from ccrl_cli.store.merge import MergeReport
from ccrl_cli.store.merge import merge as merge_stores
from ccrl_cli.store.shards import shard_paths

if TYPE_CHECKING:
    from ccrl_cli.reporting import Reporter

_MAX_SHOWN = 10


def info(path: Path, *, reporter: Reporter) -> StoreInfo:
    """Return the counts of a store by model and identity.

    Raises:
        PreconditionError: the store does not exist.
        IntegrityError: a line is bad.
    """
    found = CompletionStore(path).info()
    if found.torn_bytes:
        reporter.warn(f"{path}: left out a torn last line of {found.torn_bytes} bytes")
    return found


def verify(path: Path, *, repair: bool, reporter: Reporter) -> Verification:
    """Check every line of a store; with ``repair`` move bad lines to a side file.

    Raises:
        PreconditionError: the store does not exist.
        IntegrityError: lines are bad and were not moved; the first ones are warned about.
    """
    found = CompletionStore(path).verify(repair=repair)
    for bad in found.bad[:_MAX_SHOWN]:
        reporter.warn(f"{path}, line {bad.number}: {bad.reason}")
    if found.torn_bytes:
        what = "cut off" if repair else "left out"
        reporter.warn(f"{path}: {what} a torn last line of {found.torn_bytes} bytes")
    if found.foreign_ids:
        reporter.warn(f"{path}: {found.foreign_ids} input ids are not the digest of their text")
    if not found.ok:
        raise IntegrityError(
            f"{path}: {len(found.bad)} of {found.lines} lines are bad, the first is line "
            f"{found.bad[0].number}: {found.bad[0].reason}",
            hint=f"`ccrl store verify --repair {path}` moves bad lines to a side file",
        )
    return found


def merge(sources: Sequence[Path], store: Path, *, reporter: Reporter) -> MergeReport:
    """Merge shards, or any stores, into a store.

    Args:
        sources: files to merge; none: all shards that lie beside the store.
        store: the file to merge into; what it holds stays.
        reporter: told of torn lines.

    Raises:
        PreconditionError: a source is missing, there are no shards, or the store has a writer.
        IntegrityError: a line is bad, or two records contradict each other.
    """
    paths = list(sources) or shard_paths(store)
    if not paths:
        raise PreconditionError(
            f"no shards of {store} were found",
            hint="`ccrl generate --shard 1/2` writes one, or name the files to merge",
        )
    report = merge_stores(paths, store)
    if report.torn_bytes:
        reporter.warn(f"left out {report.torn_bytes} bytes of torn last lines")
    return report


def export(
    path: Path,
    output: Path | None,
    *,
    format: Format | None,
    models: Collection[str],
    reporter: Reporter,
) -> ExportReport:
    """Write the records of a store, labels included, for other tools.

    Args:
        path: the store.
        output: the file to write; None: ``<store>.export.<format>`` beside it.
        format: ``jsonl`` or ``parquet``; None: by the ending of ``output``, else ``jsonl``.
        models: only records by these; empty: all.
        reporter: told of characters that were replaced.

    Raises:
        PreconditionError: the store does not exist, it has no record of a model, or pyarrow is
            needed and missing.
        IntegrityError: a line is bad.
    """
    store = CompletionStore(path)
    store.require()
    missing = [model for model in models if model not in store.models]
    if missing:
        raise PreconditionError(
            f"{path} has no completions by {missing[0]}",
            hint="`ccrl store info` lists the models of a store",
        )
    if output is None:
        format = format or "jsonl"
        output = path.with_name(f"{path.name.removesuffix('.jsonl')}.export.{format}")
    report = store.export(output, format, models or None)
    if report.replaced_characters:
        reporter.warn(
            f"{output}: {report.replaced_characters} lone surrogates were written as U+FFFD"
        )
    return report

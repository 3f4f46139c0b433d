"""Shards of one job: which inputs are whose, and the file each writes. Counted from 1 to N."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ccrl_cli.errors import UsageError


def parse_shard(text: str) -> tuple[int, int]:
    """Return (I, N) of ``I/N`` with 1 <= I <= N; raises UsageError for anything else."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text, re.ASCII)
    if match:
        number, count = int(match[1]), int(match[2])
        if 1 <= number <= count:
            return number, count
    raise UsageError(
        f"{text!r} does not name a shard",
        hint="write I/N with I from 1 to N: the jobs of `--shard 1/2` and `--shard 2/2` share",
    )


def shard_of(input_id: str, count: int) -> int:
    """Return the shard, 1 to ``count``, that an input belongs to, by a hash of its identifier."""
    digest = hashlib.sha256(input_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def shard_path(store: Path, number: int, count: int) -> Path:
    """Return ``<store>.I-of-N.jsonl``, the store's own ``.jsonl`` not repeated."""
    name = store.name.removesuffix(".jsonl")
    return store.with_name(f"{name}.{number}-of-{count}.jsonl")


def shard_paths(store: Path) -> list[Path]:
    """Return the shard files of a store that exist, sorted by name."""
    pattern = re.compile(re.escape(store.name.removesuffix(".jsonl")) + r"\.\d+-of-\d+\.jsonl")
    if not store.parent.is_dir():
        return []
    return sorted(path for path in store.parent.iterdir() if pattern.fullmatch(path.name))

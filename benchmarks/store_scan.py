"""How fast a store is scanned for owed work and appended to, against plain orjson loops.

    python benchmarks/store_scan.py                     # 1,000,000 records of 2 KB, about 3 minutes
    python benchmarks/store_scan.py --records 100000    # a tenth of it

Prints, from one run on one file:

- scan: seconds in which a store is opened (every record is checked, its key, place and settings are
  kept, duplicates are found) over those of a loop that decodes every line with orjson and throws
  it away (``bare``), and of one that keeps the keys in a set (``keys``).
- owed: seconds in which ``CompletionStore.owed(..., resume=True)`` then decides about every input.
- memory: peak resident memory of a process that does both and nothing else.
- append: seconds of ``CompletionStore.append`` over those of a loop of orjson, write and fsync.

Rounds alternate, and medians are compared, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from ccrl_cli.records import Completion, Entity, Record
from ccrl_cli.store.codec import record_to_json
from ccrl_cli.store.completions import CompletionStore

ROUNDS = 5
BUFFER = 1 << 20
MODEL = "org/name"
IDENTITY: dict[str, Any] = {
    "model_revision": "0123456789abcdef",
    "adapter": None,
    "prompt": "p" * 16,
    "labels": "l" * 16,
    "sampling": {"k": 8, "temperature": 0.8, "top_p": 1.0, "max_tokens": 256, "seed": 0},
    "backend": "transformers",
    "versions": {"torch": "2.13.0", "transformers": "5.16.0", "dtype": "bfloat16"},
}
WORK = """
import resource, sys
from pathlib import Path
from benchmarks.store_scan import IDENTITY, MODEL, input_ids
from ccrl_cli.store.completions import CompletionStore
store = CompletionStore(Path(sys.argv[1]))
owed = store.owed(input_ids(int(sys.argv[2]) + 10), MODEL, IDENTITY, resume=True)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(owed), peak // (1024 if sys.platform == "darwin" else 1))
"""


def input_ids(count: int) -> Iterator[str]:
    """Yield identifiers in no order."""
    for number in range(count):
        yield f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"


def record(number: int, input_id: str) -> Record:
    """Return a record of about 2 KB with eight completions."""
    text = f"In {1900 + number % 150} the probe {number} left its launch site for a far world. " * 4
    answer = (
        f'[{{"text": "probe {number}", "type": "spacecraft"}}, '
        '{"text": "launch site", "type": "place"}]'
    )
    completions = tuple(Completion(answer, -0.125 * k, 31, "stop") for k in range(8))
    label = (Entity(f"probe {number}", "spacecraft"),)
    return Record(
        input_id, text, MODEL, completions, IDENTITY, label, 0.75, "2026-01-01T00:00:00+00:00", 0.5
    )


def write_store(path: Path, count: int) -> None:
    """Write a store of `count` records."""
    with path.open("wb", buffering=BUFFER) as stream:
        for number, input_id in enumerate(input_ids(count)):
            stream.write(orjson.dumps(record_to_json(record(number, input_id))) + b"\n")


def bare_loop(path: Path) -> None:
    """Decode every line."""
    with path.open("rb", buffering=BUFFER) as stream:
        for line in stream:
            orjson.loads(line)


def keys_loop(path: Path) -> None:
    """Decode every line and keep its key."""
    seen = set()
    with path.open("rb", buffering=BUFFER) as stream:
        for line in stream:
            value = orjson.loads(line)
            seen.add((value["input_id"], value["model"]))


def scan(path: Path) -> CompletionStore:
    """Open a store and return it, scanned."""
    store = CompletionStore(path)
    assert store.models == (MODEL,)
    return store


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_memory(path: Path, count: int) -> tuple[int, float]:
    """Return the owed inputs and peak MB of a process that scans the store for owed work."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(path), str(count)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    owed, kilobytes = done.stdout.split()
    return int(owed), int(kilobytes) * 1024 / 1e6


def compare_scan(path: Path, count: int) -> None:
    """Print speed and memory of the scan."""
    megabytes = path.stat().st_size / 1e6
    works: dict[str, Callable[[], object]] = {
        "bare": lambda: bare_loop(path),
        "keys": lambda: keys_loop(path),
        "ccrl": lambda: scan(path),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds(work))
    print(f"scan of {count} records, {megabytes:.0f} MB, median of {ROUNDS} alternating rounds")
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"  {name}: {median:.2f} s, {megabytes / median:.0f} MB/s")
    for peer in ("bare", "keys"):
        ratios = [a / b for a, b in zip(times["ccrl"], times[peer], strict=True)]
        print(f"  ratio ccrl / {peer}: {statistics.median(ratios):.2f}")
    store, ids = scan(path), list(input_ids(count))
    decided = seconds(lambda: store.owed(ids, MODEL, IDENTITY, resume=True))
    print(f"  owed work of {count} inputs: {decided:.2f} s more")
    owed, peak = peak_memory(path, count)
    print(f"  peak memory of a process that finds the {owed} owed inputs: {peak:.0f} MB")


def compare_append(folder: Path, count: int) -> None:
    """Print the ratio of appends that are on disk when they return."""
    records = [record(number, input_id) for number, input_id in enumerate(input_ids(count))]
    values = [record_to_json(item) for item in records]
    taken: dict[str, list[float]] = {"plain": [], "ccrl": []}
    for number in range(ROUNDS):
        with (folder / f"plain-{number}.jsonl").open("ab", buffering=0) as stream:

            def plain(stream: Any = stream) -> None:
                for value in values:
                    stream.write(orjson.dumps(value) + b"\n")
                    os.fsync(stream.fileno())

            taken["plain"].append(seconds(plain))
        with CompletionStore(folder / f"ccrl-{number}.jsonl") as store:

            def ccrl(store: CompletionStore = store) -> None:
                for item in records:
                    store.append(item)

            taken["ccrl"].append(seconds(ccrl))
    median = {name: statistics.median(times) / count * 1e6 for name, times in taken.items()}
    print(f"append of {count} records, each on disk when the call returns")
    print(f"  plain orjson, write, fsync: {median['plain']:.0f} us, ccrl: {median['ccrl']:.0f} us")
    ratios = [a / b for a, b in zip(taken["ccrl"], taken["plain"], strict=True)]
    print(f"  ratio ccrl / plain: {statistics.median(ratios):.2f}")


def main() -> None:
    """Run both comparisons in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000, help="records to scan")
    parser.add_argument("--appends", type=int, default=2_000, help="records to append")
    parser.add_argument("--folder", type=Path, default=None, help="where the files go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        compare_append(folder, arguments.appends)
        write_store(folder / "store.jsonl", arguments.records)
        compare_scan(folder / "store.jsonl", arguments.records)


if __name__ == "__main__":
    main()

"""Several arms at once: worker processes that take one pair after the other from a queue.

A worker keeps Python, its libraries and their compiled code loaded, which can take longer than a
small arm. Pairs reach it as JSON lines on its standard input, results come back as JSON lines on
its standard output; what it says goes to a log. Where there are several GPUs, workers take turns.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.config.dump import to_toml
from ccrl_cli.errors import CcrlError, GpuMemoryError, UsageError
from ccrl_cli.models.hardware import count_gpus
from ccrl_cli.pipelines.comparison.arms import arm_profile, arms_path, chosen_pairs
from ccrl_cli.pipelines.comparison.baselines import ArmRun, failed_pair, prepare, run_arm
from ccrl_cli.store.atomic import write_text

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_STOP = 30.0
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(slots=True)
class _Worker:
    """A worker process, and the pair that it works on."""

    process: subprocess.Popen[bytes]
    log: Path
    lines: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)
    slot: int = 0
    pair: tuple[str, int] | None = None
    began: float = 0.0

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True, name="worker-lines").start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with suppress(OSError, ValueError):
            for line in self.process.stdout:
                self.lines.put(line)

    def give(self, pair: tuple[str, int]) -> None:
        """Send a pair; a worker that is gone is found out when its result is asked for."""
        self.pair, self.began = pair, time.perf_counter()
        line = json.dumps({"arm": pair[0], "seed": pair[1]}) + "\n"
        with suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()

    def take(self) -> dict[str, Any] | None:
        """Return the result of its pair, if it is there."""
        with suppress(queue.Empty):
            while True:
                line = self.lines.get_nowait()
                with suppress(ValueError):
                    found = json.loads(line)
                    if isinstance(found, dict) and "status" in found:
                        return found
        return None


def run_parallel(
    profile: Profile,
    num_workers: int,
    *,
    arms: Sequence[str] = (),
    overwrite: bool = False,
    reporter: Reporter,
) -> tuple[ArmRun, ...]:
    """Run every arm over every seed, some at a time, each in one of a few worker processes.

    What the arms share is made here first. A worker ends by itself when this process is gone, and
    one that dies takes its pair with it: another takes its place. A pair that finds too little GPU
    memory beside others is tried once more at the end, with the GPU to itself.

    Args:
        profile: what all arms are derived from.
        num_workers: processes at a time.
        arms: names; empty: those of ``baselines.arms``.
        overwrite: train again where an arm was trained with other settings.
        reporter: told when an arm ends.

    Raises:
        UsageError: an arm is unknown or cannot be derived.
        CcrlError: what generation, warm-up or the score before training raise.
    """
    pairs = chosen_pairs(profile, arms)
    for arm, seed in pairs:
        arm_profile(profile, arm, seed)
    start = prepare(profile, reporter=reporter)
    if "torch" in sys.modules:
        from ccrl_cli.models.loading import free_memory

        free_memory()
    work = _Queue(profile, pairs[1:], num_workers, overwrite=overwrite, reporter=reporter)
    with reporter.progress(len(pairs), "arms", unit="runs") as progress:
        progress.advance(1)
        try:
            while work.goes_on():
                progress.advance(work.look())
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            work.stop()
    return (start, *(work.found[pair] for pair in pairs[1:]))


class _Queue:
    """Pairs that wait, workers that take them, and what they came to.

    Attributes:
        found: what became of each pair that has ended.
    """

    def __init__(
        self,
        profile: Profile,
        pairs: Sequence[tuple[str, int]],
        num_workers: int,
        *,
        overwrite: bool,
        reporter: Reporter,
    ) -> None:
        self.found: dict[tuple[str, int], ArmRun] = {}
        self._profile, self._reporter = profile, reporter
        self._overwrite, self._num_workers = overwrite, num_workers
        self._recipe = arms_path(profile) / "profile.toml"
        write_text(self._recipe, to_toml(profile))
        self._places = _gpu_places()
        self._waiting = deque(pairs)
        self._crowded: list[tuple[str, int]] = []
        self._workers: list[_Worker] = []

    def goes_on(self) -> bool:
        """Return whether a pair waits or is under way."""
        return bool(self._waiting or self._crowded or self._busy())

    def look(self) -> int:
        """Start workers, hand out pairs and collect results; return how many pairs ended."""
        if self._crowded and not self._waiting and not self._busy():
            self._give_room()
        while len(self._workers) < min(self._num_workers, self._busy() + len(self._waiting)):
            self._hire()
        return sum(self._visit(worker) for worker in list(self._workers))

    def stop(self) -> None:
        """Let idle workers end, ask busy ones to stop."""
        _stop(self._workers)
        self._workers.clear()

    def _busy(self) -> int:
        return sum(worker.pair is not None for worker in self._workers)

    def _give_room(self) -> None:
        """Let pairs that found too little memory wait for a GPU to themselves."""
        self.stop()  # each still holds a little of the GPU
        self._num_workers = max(1, len(self._places))
        self._waiting.extend(self._crowded)
        self._crowded.clear()

    def _hire(self) -> None:
        taken = {worker.slot for worker in self._workers}
        slot = min(set(range(self._num_workers)) - taken)
        log = self._recipe.with_name(f"worker-{slot + 1}.log")
        place = self._places[slot % len(self._places)] if self._places else None
        worker = _start(self._recipe, log, place, overwrite=self._overwrite)
        worker.slot = slot
        self._workers.append(worker)

    def _visit(self, worker: _Worker) -> bool:
        """Collect a result, give the worker another pair; return whether its pair ended."""
        gone = worker.process.poll() is not None
        answer = worker.take()
        ended = False
        if worker.pair and _lacked_room(answer) and self._num_workers > max(1, len(self._places)):
            arm, seed = worker.pair
            self._reporter.warn(
                f"{arm} with seed {seed} found too little GPU memory beside others: "
                "it runs again at the end, with a GPU to itself"
            )
            self._crowded.append(worker.pair)
            worker.pair = answer = None
        if worker.pair and (answer or gone):
            self.found[worker.pair] = _ended(self._profile, worker, answer or {}, self._reporter)
            worker.pair = None
            ended = True
        if gone:
            self._workers.remove(worker)
        elif worker.pair is None and self._waiting:
            worker.give(self._waiting.popleft())
        return ended


def _lacked_room(answer: dict[str, Any] | None) -> bool:
    return answer is not None and answer.get("cause") == GpuMemoryError.kind


def _gpu_places() -> list[str]:
    """Return the names of the GPUs that workers take turns on; none where there is no choice."""
    stated = os.environ.get(VISIBLE)
    if stated is None:
        names = [str(index) for index in range(count_gpus())]
    else:
        names = [name for name in stated.split(",") if name]
    return names if len(names) > 1 else []


def _start(recipe: Path, log: Path, place: str | None, *, overwrite: bool) -> _Worker:
    words = [sys.executable, "-m", "ccrl_cli", "baselines", "worker", "--profile", str(recipe)]
    words += ["--overwrite"] * overwrite
    environment = {**os.environ, VISIBLE: place} if place is not None else None
    with log.open("ab") as stream:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            env=environment,
        )
    return _Worker(process, log)


def _ended(profile: Profile, worker: _Worker, answer: dict[str, Any], reporter: Reporter) -> ArmRun:
    """Return what a pair came to; a log says why a worker died."""
    assert worker.pair is not None
    arm, seed = worker.pair
    seconds = round(time.perf_counter() - worker.began, 1)
    run = ArmRun(**answer) if answer else None
    if run is not None and run.status != "failed":
        return run
    told = run.message if run else f"its process ended with {worker.process.returncode}"
    reporter.warn(f"{arm} with seed {seed} failed: {told}")
    if run is not None:
        return run
    return failed_pair(profile, arm, seed, seconds, CcrlError(str(told), hint=f"see {worker.log}"))


def _stop(workers: Sequence[_Worker]) -> None:
    """Close the input of workers: idle ones end, busy ones stop at a safe place; kill the others.

    Windows has no gentler way: there, to terminate a process is to kill it.
    """
    for worker in workers:
        with suppress(OSError):
            if worker.process.stdin is not None:
                worker.process.stdin.close()
    end = time.monotonic() + SECONDS_TO_STOP
    for worker in workers:
        try:
            worker.process.wait(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def serve(profile: Profile, *, overwrite: bool, reporter: Reporter) -> int:
    """Work off pairs from standard input, one JSON line each; return how many there were.

    Ends with the input. When it ends while a pair is under way, the parent is gone: this process
    then interrupts itself, and what is finished is safe.

    Args:
        profile: what all arms are derived from; what they share is there.
        overwrite: train again where an arm was trained with other settings.
        reporter: told of progress.

    Raises:
        UsageError: a line is no pair.
    """
    from ccrl_cli.models.loading import free_memory, require_training_packages

    require_training_packages()
    served = 0
    busy = threading.Event()
    for arm, seed in _pairs_from_stdin(busy):
        began = time.perf_counter()
        try:
            run = run_arm(profile, arm, seed, overwrite=overwrite, reporter=reporter)
        except CcrlError as error:
            reporter.warn(f"{arm} with seed {seed} failed: {error.message}")
            run = failed_pair(profile, arm, seed, time.perf_counter() - began, error)
        free_memory()  # the next arm, or another worker on the same GPU, may want it
        busy.clear()
        sys.stdout.write(json.dumps(asdict(run)) + "\n")
        sys.stdout.flush()
        served += 1
    return served


def _pairs_from_stdin(busy: threading.Event) -> Iterator[tuple[str, int]]:
    """Yield the pairs of standard input; interrupt the process if it ends while one is busy.

    Args:
        busy: set here before a pair is handed out, cleared by whoever has done it.
    """
    ended = threading.Event()
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    # What this process starts must not inherit the pipe: on Windows it would hang as it starts,
    # because a thread waits here to read.
    source, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def read() -> None:
        rest = b""
        with suppress(OSError, ValueError):
            while chunk := os.read(source, 4096):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    lines.put(line)
        lines.put(None)
        ended.set()
        if busy.is_set():
            _interrupt_myself()

    threading.Thread(target=read, daemon=True, name="pairs").start()
    while True:
        try:
            line = lines.get(timeout=0.5)  # so that a signal is not kept waiting
        except queue.Empty:
            continue
        if line is None:
            return
        pair = _pair(line)
        busy.set()
        if ended.is_set():  # nobody waits for it any more
            return
        yield pair


def _interrupt_myself() -> None:
    """Have the main thread stop as at SIGTERM; on Windows `os.kill` would end the process."""
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def _pair(line: bytes) -> tuple[str, int]:
    """Return the arm and the seed of a line."""
    try:
        value = json.loads(line)
        return str(value["arm"]), int(value["seed"])
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"standard input holds {line[:80].decode(errors='replace').strip()!r}, no arm and seed",
            hint="this command is started by `ccrl baselines run-all --parallel N`",
        ) from error

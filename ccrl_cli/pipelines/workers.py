"""Several arms at once: each a process of its own, for small jobs that share one GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.config.dump import to_toml
from ccrl_cli.errors import CcrlError
from ccrl_cli.pipelines.arms import arm_profile, arms_path, chosen_pairs, pair_name
from ccrl_cli.pipelines.baselines import ArmRun, failed_pair, prepare
from ccrl_cli.store.atomic import write_text

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_TO_STOP = 30.0
LOG = "worker.log"


@dataclass(slots=True)
class _Job:
    """A running worker."""

    arm: str
    seed: int
    process: subprocess.Popen[bytes]
    log: Path
    began: float


def run_parallel(
    profile: Profile,
    num_workers: int,
    *,
    arms: Sequence[str] = (),
    overwrite: bool = False,
    reporter: Reporter,
) -> tuple[ArmRun, ...]:
    """Run every arm over every seed, some at a time, each in a process of its own.

    What the arms share is made here first. A worker ends by itself when this process is gone.

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
    recipe = arms_path(profile) / "profile.toml"
    write_text(recipe, to_toml(profile))
    waiting = deque(pairs[1:])
    running: list[_Job] = []
    found: dict[tuple[str, int], ArmRun] = {pairs[0]: start}
    with reporter.progress(len(pairs), "arms", unit="runs") as progress:
        progress.advance(1)
        try:
            while waiting or running:
                while waiting and len(running) < num_workers:
                    running.append(_start(profile, recipe, *waiting.popleft(), overwrite))
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    found[job.arm, job.seed] = _ended(profile, job, reporter)
                    progress.advance(1)
                time.sleep(SECONDS_BETWEEN_LOOKS)
        finally:
            _stop(running)
    return tuple(found[pair] for pair in pairs)


def _start(profile: Profile, recipe: Path, arm: str, seed: int, overwrite: bool) -> _Job:
    folder = arms_path(profile) / pair_name(arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "ccrl_cli", "baselines", "run", arm, "--seed", str(seed)]
    words += ["--profile", str(recipe), "--worker", "--json"]
    words += ["--overwrite"] * overwrite
    log = folder / LOG
    with log.open("wb") as stream:
        # The pipe to stdin closes when this process dies, whatever it dies of.
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT
        )
    return _Job(arm, seed, process, log, time.perf_counter())


def _ended(profile: Profile, job: _Job, reporter: Reporter) -> ArmRun:
    """Return what a worker came to; its log says why it failed."""
    if job.process.stdin:
        job.process.stdin.close()
    seconds = round(time.perf_counter() - job.began, 1)
    answer = _document(job.log)
    result = answer.get("result") or {}
    if job.process.returncode == 0 and result:
        return ArmRun(job.arm, job.seed, result["run_dir"], result["status"], seconds)
    told = (answer.get("error") or {}).get("message")
    error = CcrlError(
        told or f"its process ended with {job.process.returncode}", hint=f"see {job.log}"
    )
    reporter.warn(f"{job.arm} with seed {job.seed} failed: {error.message}")
    return failed_pair(profile, job.arm, job.seed, seconds, error)


def _document(log: Path) -> dict[str, Any]:
    """Return the JSON document that a worker ended with, or nothing."""
    import json

    for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()):
        if line.startswith("{"):
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and "status" in found:
                    return found
    return {}


def _stop(jobs: Sequence[_Job]) -> None:
    """Ask workers to stop at a safe place, and wait; those that do not are killed."""
    for job in jobs:
        job.process.terminate()
    end = time.monotonic() + SECONDS_TO_STOP
    for job in jobs:
        try:
            job.process.wait(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            job.process.kill()
            job.process.wait()


def end_with_parent() -> None:
    """Interrupt this process when the one that started it is gone: its end of stdin closes."""

    def watch() -> None:
        with suppress(OSError, ValueError):
            while os.read(0, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()

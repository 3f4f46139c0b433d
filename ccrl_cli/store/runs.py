"""The directory of one run: manifest, journals, and which steps are done with which inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ccrl_cli.errors import IntegrityError, PreconditionError
from ccrl_cli.store.atomic import replacing, write_json
from ccrl_cli.store.encoding import load_json
from ccrl_cli.store.jsonl import JsonlReader, JsonlWriter, cut_torn_line
from ccrl_cli.store.locks import WriterLock

JOURNALS = ("metrics", "stages")


@dataclass(frozen=True, slots=True)
class StepMark:
    """A finished step of a run.

    Attributes:
        digest: digest of everything the step's result depends on.
        finished: UTC time, ISO 8601.
        seconds: how long it took.
        result: what the step handed on (JSON).
    """

    digest: str
    finished: str
    seconds: float
    result: Any = None


class RunDirectory:
    """Paths and files of ``runs/<name>/``. As a context manager: locked against other writers.

    Args:
        path: the directory; it is made when the lock is taken or something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = WriterLock(self.path / "run")

    def __enter__(self) -> RunDirectory:
        """Make the directory and lock it.

        Raises:
            PreconditionError: another process works on this run.
        """
        self._lock.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    @property
    def manifest_path(self) -> Path:
        """What was run: resolved profile, versions, hardware, seeds, data hashes, arm."""
        return self.path / "manifest.json"

    @property
    def state_path(self) -> Path:
        """Marks of finished steps."""
        return self.path / "state.json"

    @property
    def evaluation_path(self) -> Path:
        """Scores."""
        return self.path / "evaluation.json"

    @property
    def checkpoints_path(self) -> Path:
        """Folder of training checkpoints."""
        return self.path / "checkpoints"

    @property
    def adapter_path(self) -> Path:
        """Folder of the trained adapter, in PEFT format."""
        return self.path / "adapter"

    @property
    def report_path(self) -> Path:
        """The self-contained page."""
        return self.path / "report.html"

    @property
    def log_path(self) -> Path:
        """Plain text log."""
        return self.path / "log.txt"

    def journal_path(self, name: str) -> Path:
        """Return the file of a journal: ``metrics`` or ``stages``."""
        if name not in JOURNALS:
            raise ValueError(f"{name!r} is not one of {', '.join(JOURNALS)}")
        return self.path / f"{name}.jsonl"

    def predictions_path(self, name: str) -> Path:
        """Return the file of a set of predictions, ``predictions-<name>.jsonl``."""
        return self.path / f"predictions-{name}.jsonl"

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest atomically."""
        write_json(self.manifest_path, dict(manifest))

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest; raises PreconditionError if this is no run directory."""
        if not self.manifest_path.exists():
            raise PreconditionError(
                f"{self.path} is no run: it has no manifest.json",
                hint="`ccrl run` and `ccrl train` make run directories",
            )
        return _read_object(self.manifest_path)

    def write_evaluation(self, evaluation: Mapping[str, Any]) -> None:
        """Write the scores atomically."""
        write_json(self.evaluation_path, dict(evaluation))

    def read_evaluation(self) -> dict[str, Any]:
        """Return the scores; raises PreconditionError if the run was not evaluated."""
        if not self.evaluation_path.exists():
            raise PreconditionError(
                f"{self.path} has no evaluation.json", hint="`ccrl evaluate` writes it"
            )
        return _read_object(self.evaluation_path)

    def steps(self) -> dict[str, StepMark]:
        """Return the marks of finished steps by name, in the order they were first finished.

        Raises:
            IntegrityError: the state file is damaged.
        """
        if not self.state_path.exists():
            return {}
        try:
            return {
                name: StepMark(
                    mark["digest"], mark["finished"], mark["seconds"], mark.get("result")
                )
                for name, mark in _read_object(self.state_path).items()
            }
        except (KeyError, TypeError) as error:
            raise IntegrityError(
                f"{self.state_path} is damaged: {error!r}",
                hint="remove it to do every step of the run again",
            ) from error

    def done(self, name: str, digest: str) -> StepMark | None:
        """Return the mark of a step that finished with the same inputs, else None."""
        mark = self.steps().get(name)
        return mark if mark is not None and mark.digest == digest else None

    def mark_done(
        self, name: str, digest: str, *, seconds: float = 0.0, result: Any = None
    ) -> StepMark:
        """Record that a step finished; on disk when this returns."""
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        marks = {**self.steps(), name: StepMark(digest, finished, seconds, result)}
        write_json(self.state_path, {key: asdict(mark) for key, mark in marks.items()})
        return marks[name]

    def forget(self, name: str) -> None:
        """Remove the mark of a step, so that it is done again."""
        marks = self.steps()
        if marks.pop(name, None) is not None:
            write_json(self.state_path, {key: asdict(mark) for key, mark in marks.items()})

    def journal(self, name: str) -> JsonlWriter:
        """Open a journal to append to; ``metrics`` does not wait for the disk at each record.

        Raises:
            PreconditionError: another writer has it open.
        """
        return JsonlWriter(self.journal_path(name), fsync=name != "metrics")

    def read_journal(self, name: str) -> list[dict[str, Any]]:
        """Return the complete records of a journal; none if it was never written."""
        path = self.journal_path(name)
        if not path.exists():
            return []
        return [value for _, value in JsonlReader(path).objects()]

    def rewind(self, step: int) -> dict[str, int]:
        """Cut the journals back to the state after a step, for a resume that repeats the rest.

        A record with a ``step`` above the given one is dropped, and so is a record without a
        step that follows such a one. A torn last line is cut off.

        Returns:
            Number of records dropped by journal.

        Raises:
            IntegrityError: a journal has a bad line.
            PreconditionError: a journal is open for writing.
        """
        return {name: _rewind(self.journal_path(name), step) for name in JOURNALS}

    def log(self, message: str) -> None:
        """Append a line with the UTC time to ``log.txt``."""
        self.path.mkdir(parents=True, exist_ok=True)
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        with self.log_path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{moment} {message}\n")


def _rewind(path: Path, step: int) -> int:
    if not path.exists():
        return 0
    with WriterLock(path):
        cut_torn_line(path)
        kept, dropped = [], 0
        for line, value in JsonlReader(path).objects():
            number = value.get("step")
            later = number > step if isinstance(number, int | float) else dropped > 0
            if later:
                dropped += 1
            else:
                kept.append(line.data + b"\n")
        if dropped:
            with replacing(path) as temporary, temporary.open("wb") as stream:
                stream.writelines(kept)
    return dropped


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = load_json(path.read_bytes())
    except ValueError as error:
        raise IntegrityError(f"{path} is not JSON: {error}") from error
    if isinstance(value, dict):
        return value
    raise IntegrityError(f"{path} does not hold a JSON object")

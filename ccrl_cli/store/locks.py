"""One writer a file, on every system the package runs on.

The lock is a file beside the one it guards. It names its owner (host, pid, start time), and its
owner also holds the operating system's lock on it. The kernel frees that lock when a process
dies, so who gets it is the owner, whatever process has the number of the last one by now. The
written owner decides where the kernel's lock does not reach: on another host of a shared file
system, and on file systems without locks.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from ccrl_cli.errors import PreconditionError
from ccrl_cli.store.encoding import dump_json, load_json

_GUARD_OFFSET = 1 << 30  # Windows locks bytes against reading too: lock one beyond the content
_MAX_OWNER_BYTES = 4096
_ATTEMPTS = 50
_SECONDS_BETWEEN = 0.02


@dataclass(frozen=True, slots=True)
class LockOwner:
    """Who holds, or held, a lock.

    Attributes:
        started: kernel start time of the process in clock ticks since boot, or None where the
            system does not tell; it separates a process from a later one with the same pid.
    """

    host: str
    pid: int
    started: int | None

    @classmethod
    def this_process(cls) -> LockOwner:
        """Describe the running process."""
        return cls(socket.gethostname(), os.getpid(), _start_time(os.getpid()))

    @property
    def is_here(self) -> bool:
        """True if the owner ran, or runs, on this host."""
        return self.host == socket.gethostname()

    @property
    def is_gone(self) -> bool:
        """True if the owner ran on this host and its process is known to have ended."""
        if not self.is_here:
            return False
        if not _is_alive(self.pid) or _is_zombie(self.pid):
            return True
        return self.started is not None and _start_time(self.pid) != self.started


class WriterLock:
    """Lock of one file, as a context manager.

    Args:
        path: the file to guard; the lock is ``<path>.lock`` beside it.

    Attributes:
        taken_over: owner of the stale lock that was taken over, or None.
    """

    def __init__(self, path: Path) -> None:
        self.guarded = Path(path)
        self.path = self.guarded.with_name(self.guarded.name + ".lock")
        self.taken_over: LockOwner | None = None
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or take it over from a process of this host that is gone.

        Raises:
            PreconditionError: another writer holds it (its pid and host are named), or the lock
                file cannot be written.
        """
        if self._descriptor is not None:
            raise RuntimeError(f"{self.path} is already held by this object")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, by_kernel = self._open_locked()
        except OSError as error:  # no permission, read-only, full, a file in place of the folder
            raise PreconditionError(
                f"cannot write the lock file {self.path}: {error.strerror or error}",
                hint="check permissions and free space of the folder, or name another file",
            ) from error
        try:
            owner = _read_owner(descriptor)
            if owner is not None and not (by_kernel and owner.is_here) and not owner.is_gone:
                raise self._held_by(owner, by_kernel=False)
            _write_owner(descriptor, LockOwner.this_process())
        except BaseException:
            os.close(descriptor)
            raise
        self.taken_over = owner
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Give the lock back and remove its file; does nothing if it is not held."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        try:
            os.ftruncate(descriptor, 0)
            if sys.platform != "win32":  # while the kernel's lock is held: nobody else's is removed
                self.path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        if sys.platform == "win32":
            try:
                self.path.unlink(missing_ok=True)
            except PermissionError:  # the next owner has opened it already
                return

    def __enter__(self) -> WriterLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _open_locked(self) -> tuple[int, bool]:
        """Return a descriptor of the lock file, and whether the kernel's lock on it is ours.

        It is not where the file system knows no locks.
        """
        for _ in range(_ATTEMPTS):
            descriptor = self._open()
            try:
                locked = _try_lock(descriptor)
                if locked is False:
                    raise self._held_by(_read_owner(descriptor), by_kernel=True)
                if _is_same_file(descriptor, self.path):
                    return descriptor, locked is True
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # removed by its owner between open and lock: start again
        raise self._held_by(None, by_kernel=True)

    def _open(self) -> int:
        """Open the lock file; on Windows a name is refused for as long as it is being deleted."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        for _ in range(_ATTEMPTS if sys.platform == "win32" else 0):
            try:
                return os.open(self.path, flags)
            except PermissionError:
                time.sleep(_SECONDS_BETWEEN)
        return os.open(self.path, flags)

    def _held_by(self, owner: LockOwner | None, *, by_kernel: bool) -> PreconditionError:
        who = "another process"
        hint = "wait until it has finished, or write to another file"
        if owner is not None:
            who = f"process {owner.pid} on host {owner.host}"
            if not by_kernel or not owner.is_here:
                hint = f"if that process has ended, remove {self.path} and repeat the command"
        return PreconditionError(f"{self.guarded} is being written by {who}", hint=hint)

    def _forget(self) -> None:
        """Close the descriptor in a forked child, so that the lock ends with its owner."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _read_owner(descriptor: int) -> LockOwner | None:
    """Return the owner a lock file names; None if it is empty or was cut short."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        fields = load_json(os.read(descriptor, _MAX_OWNER_BYTES))
        return LockOwner(str(fields["host"]), int(fields["pid"]), fields.get("started"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_owner(descriptor: int, owner: LockOwner) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, dump_json(asdict(owner)) + b"\n")
    os.fsync(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, PermissionError):  # removed, or on Windows being removed
        return False


def _start_time(pid: int) -> int | None:
    """Return field 22 of /proc/PID/stat (clock ticks since boot); None where it does not exist."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def _is_zombie(pid: int) -> bool:
    """Return whether a process is dead and only waits for its parent: usual in containers."""
    fields = _stat(pid)
    return bool(fields) and fields[0] in (b"Z", b"X")


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third, the state, on; [] without /proc."""
    if sys.platform == "win32":
        return []
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool | None:
        """Take the kernel's lock; None where the file system knows none."""
        os.lseek(descriptor, _GUARD_OFFSET, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        except OSError:
            return None
        return True

    def _is_alive(pid: int) -> bool:  # noqa: ARG001
        """Return True: that a process has this number says nothing, Windows gives it anew soon."""
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool | None:
        """Take the kernel's lock; None where the file system knows none."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True

    def _is_alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

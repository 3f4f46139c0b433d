"""stdout and stderr as the system gives them: encodings, readers that leave, terminals."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO


def prepare_streams() -> None:
    """Make stdout and stderr unable to fail: on a character, a reader that left, a full disk.

    What cannot be said must not stop the work: a stream that is closed goes nowhere, and one that
    fails goes nowhere from then on (`stdout_failure` tells of a result that was lost so). Where
    Windows would choose an encoding, and the user has not, it is utf-8.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
            continue
        if (stream := getattr(sys, name)) is not None and stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _lasting(stream))
        reconfigure = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            encoding = "utf-8" if os.name == "nt" and not encoding_is_chosen() else None
            reconfigure(encoding=encoding, errors="backslashreplace")


def encoding_is_chosen() -> bool:
    """Return whether the user has named the encoding of the standard streams."""
    return bool(os.environ.get("PYTHONIOENCODING", "").partition(":")[0])


def stdout_failure() -> OSError | None:
    """Return why stdout could not be written, if it could not, a reader that left apart."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Lasting) else None


class _Lasting(io.FileIO):
    """A stream that may fail, or whose reader may leave: what is written after goes nowhere.

    Attributes:
        failure: what it failed of, a reader that left apart.
    """

    _put = io.FileIO.write
    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return self._put(data)
        except OSError as error:
            # Windows calls a pipe that nobody reads an invalid argument.
            if error.errno not in (errno.EPIPE, errno.EINVAL):
                self.failure = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data).cast("B"))


def _lasting(stream: TextIO) -> TextIO:
    """Return a standard stream that outlasts its reader; a terminal as it is."""
    if stream.isatty():
        return stream
    try:
        raw = _Lasting(stream.fileno(), "wb", closefd=False)
    except OSError:  # a stream without a descriptor
        return stream
    buffered = getattr(stream, "line_buffering", False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=buffered
    )


def may_be_misread(stream: TextIO) -> bool:
    """Return whether who reads a stream may take it for another encoding: a Windows shell does."""
    return os.name == "nt" and not encoding_is_chosen() and not stream.isatty()


def takes_escapes(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that obeys escape sequences.

    A console of Windows is told to, by the handle of this very stream: another may be redirected.
    """
    return stream.isatty() and (sys.platform != "win32" or _switch_on_escapes(stream))


if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _OBEY_ESCAPES = 0x4  # ENABLE_VIRTUAL_TERMINAL_PROCESSING

    def _switch_on_escapes(stream: TextIO) -> bool:
        kernel = ctypes.WinDLL("kernel32")
        mode = wintypes.DWORD()
        try:
            handle = wintypes.HANDLE(msvcrt.get_osfhandle(stream.fileno()))
        except OSError:  # none of the system's: whoever made it knows
            return True
        if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):
            return False
        obeys = mode.value & _OBEY_ESCAPES
        return bool(obeys or kernel.SetConsoleMode(handle, mode.value | _OBEY_ESCAPES))

"""Ctrl-C and its relatives: each of them stops work at a safe place, with its state flushed."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_FIRST_CLOSING_EVENT = 2  # below: Ctrl-C and Ctrl-Break, which Python hands out as signals
_SECONDS_TO_END = 30.0  # Windows itself waits for five


@contextmanager
def stopping_at_signals() -> Iterator[None]:
    """Treat SIGTERM, and on Windows Ctrl-Break and the closed window, as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = ("SIGTERM", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        with _closed_window_interrupts():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: Any) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def _on_console_event(event: int) -> bool:
    """Interrupt the main thread when the window is closed, and wait for it to end the process.

    Windows calls this in a thread of its own and ends the process as soon as it returns.
    """
    if event < _FIRST_CLOSING_EVENT:
        return False
    _thread.interrupt_main()
    threading.Event().wait(_SECONDS_TO_END)
    return True


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    @contextmanager
    def _closed_window_interrupts() -> Iterator[None]:
        handler = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)(_on_console_event)
        kernel = ctypes.WinDLL("kernel32")
        kernel.SetConsoleCtrlHandler(handler, True)
        try:
            yield
        finally:
            kernel.SetConsoleCtrlHandler(handler, False)

else:

    @contextmanager
    def _closed_window_interrupts() -> Iterator[None]:
        yield

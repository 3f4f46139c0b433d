"""What stops a command: SIGTERM, Ctrl-Break, the closed window."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from ccrl_cli.cli import signals
from ccrl_cli.cli.signals import stopping_at_signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGBREAK"])
def test_signals_interrupt(name):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"no {name} on this system")
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stopping_at_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_closed_window_interrupts_and_waits_for_the_end(monkeypatch):
    monkeypatch.setattr(signals, "_SECONDS_TO_END", 0.05)
    answers = []
    window = threading.Thread(target=lambda: answers.append(signals._on_console_event(2)))

    def work():
        window.start()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        work()
    window.join()
    assert answers == [True]


@pytest.mark.parametrize("event", [0, 1])
def test_ctrl_c_and_ctrl_break_are_left_to_python(event):
    assert signals._on_console_event(event) is False


def test_in_another_thread_nothing_is_changed():
    seen = []

    def look():
        with stopping_at_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]

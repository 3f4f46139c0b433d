"""Settings of every test."""

from __future__ import annotations

import signal

from hypothesis import settings

# A busy machine must not fail a property test: what they check is never a time.
settings.register_profile("ccrl", deadline=None)
settings.load_profile("ccrl")

# What a shell starts in the background ignores Ctrl-C, and so would every command under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

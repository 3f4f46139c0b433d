"""Settings of every test."""

from __future__ import annotations

from hypothesis import settings

# A busy machine must not fail a property test: what they check is never a time.
settings.register_profile("ccrl", deadline=None)
settings.load_profile("ccrl")

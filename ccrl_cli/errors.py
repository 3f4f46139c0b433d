"""Exception tree of ccrl; each class owns its exit code and the word that names it in JSON.

A message is one sentence: what is wrong, and where. The hint says what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class CcrlError(Exception):
    """Base of every expected failure.

    Args:
        message: what is wrong and where, in one sentence.
        hint: what the user can do about it, usually a command.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CcrlError):
    """A flag or argument cannot be used as given (exit 2)."""

    exit_code = 2
    kind = "usage"


class ProfileError(UsageError):
    """A profile does not exist, does not parse, or holds an invalid value (exit 2)."""

    kind = "profile"


class DataError(UsageError):
    """An input file cannot be read as the format it claims to be (exit 2)."""

    kind = "data"


class PreconditionError(CcrlError):
    """Something that must exist first is missing: package, model, GPU, file, server (exit 3)."""

    exit_code = 3
    kind = "precondition"


class GpuMemoryError(PreconditionError):
    """The GPU has too little memory for what was asked for (exit 3)."""

    kind = "memory"


class HeldError(PreconditionError):
    """A file or folder cannot be replaced while another program has it open (exit 3)."""

    kind = "held"


class PartialError(CcrlError):
    """Work stopped part-way, and what is finished is safe and can be resumed (exit 4)."""

    exit_code = 4
    kind = "partial"


class IntegrityError(CcrlError):
    """Stored data contradicts itself or what was asked for (exit 5)."""

    exit_code = 5
    kind = "integrity"


class InterruptedRunError(CcrlError):
    """The user or the system asked to stop; state is flushed (exit 130)."""

    exit_code = 130
    kind = "interrupted"

"""Whether a run's answers can be read at all: said at the end, and early when none can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ccrl_cli.errors import PartialError
from ccrl_cli.records import Completion, Parse

if TYPE_CHECKING:
    from ccrl_cli.reporting import Reporter

#: Share of answers that cannot be read from which a run is warned about.
WARNED_SHARE = 0.5
#: Share from which it is stopped, and answers that it takes to know.
STOPPED_SHARE = 0.98
STOPPED_AFTER = 64


class AnswerWatch:
    """Counts the answers of a run that cannot be read, and why.

    Args:
        reporter: told of them.
        max_tokens: limit of an answer, for the advice.
        needs_logprobs: whether the confidence is that of log-probabilities.
    """

    def __init__(self, reporter: Reporter, max_tokens: int, *, needs_logprobs: bool) -> None:
        self._needs_logprobs = needs_logprobs
        self._reporter = reporter
        self._max_tokens = max_tokens
        self._answers = 0
        self._unread = 0
        self._length = 0
        self._unknown = 0
        self._why: Counter[str] = Counter()

    def add(self, completions: Sequence[Completion], parses: Sequence[Parse]) -> None:
        """Take the answers to one input.

        Raises:
            PartialError: nearly none of many answers can be read.
        """
        for completion, parse in zip(completions, parses, strict=True):
            self._answers += 1
            self._length += completion.finish == "length"
            self._unknown += completion.mean_logprob is None
            if parse.outcome == "invalid":
                self._unread += 1
                self._why[_why(completion, parse)] += 1
        if self._answers >= STOPPED_AFTER and self._unread >= STOPPED_SHARE * self._answers:
            raise PartialError(
                f"stopped: {self._summary()}",
                hint=f"{self._advice()}; what is stored is kept (--overwrite asks again)",
            )

    def end(self) -> None:
        """Say what could not be read, if it is much, and what the server reported."""
        if self._needs_logprobs and self._unknown > self._unread:
            self._reporter.warn(
                f"{self._unknown} of {self._answers} answers have no log-probability: the "
                "confidence `logprob` takes them as the least sure"
            )
        if self._unread and self._unread >= WARNED_SHARE * self._answers:
            self._reporter.warn(f"{self._summary()}; {self._advice()}")
        elif self._why:
            broken = {why: n for why, n in self._why.items() if why.startswith("error: ")}
            if broken:
                listed = ", ".join(f"{n} {why}" for why, n in broken.items())
                self._reporter.warn(f"some answers have no vote: {listed[:300]}")

    def _summary(self) -> str:
        listed = ", ".join(f"{n} {why}" for why, n in self._why.most_common(4))
        ended = f"; {self._length} ended by length" if self._length else ""
        return (
            f"{self._unread} of {self._answers} answers cannot be read and count as no label "
            f"({listed[:300]}{ended})"
        )

    def _advice(self) -> str:
        if self._length >= self._unread / 2:
            return (
                f"raise generation.max_tokens (it is {self._max_tokens}), or choose a model that "
                "does not think and ends its turns"
            )
        return "look at one with `ccrl store export`, then change model, prompt or server"


def _why(completion: Completion, parse: Parse) -> str:
    """Return in a few words why an answer cannot be read."""
    if completion.finish == "error":
        return f"error: {completion.reason or 'no reason given'}"[:120]
    if not completion.text.strip():
        return "reasoning alone" if completion.reasoning else "empty"
    return parse.reason or "invalid"

"""What every generation backend offers, and what it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ccrl_cli.records import Completion

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How completions are sampled.

    Attributes:
        temperature: sampling temperature; 0 is greedy.
        top_p: nucleus; 1 keeps every token.
        max_tokens: longest completion in tokens.
        batch_size: inputs in flight.
        max_batch_tokens: prompt and answer tokens of all samples in flight; None: no limit but
            memory.
        answer_types: names of the types that answers are held to, with their format; None: free
            text.
    """

    temperature: float
    top_p: float
    max_tokens: int
    batch_size: int
    max_batch_tokens: int | None = None
    answer_types: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """K completions of one input are wanted.

    Attributes:
        input_id: identifier of the input.
        prompts: K chat prompts; equal ones share their prefill.
        seeds: K seeds, one a completion.
    """

    input_id: str
    prompts: tuple[tuple[Message, ...], ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Generated:
    """The K completions of one input, and the seconds from its batch's start to its end."""

    input_id: str
    completions: tuple[Completion, ...]
    seconds: float


class Generator(Protocol):
    """A backend with a model loaded.

    Attributes:
        name: name of the backend in records.
        special_tokens: strings that must not appear as such in a prompt's text.
        details: what identifies the computation besides the model (number format, versions).
    """

    name: str
    special_tokens: tuple[str, ...]
    details: Mapping[str, str]

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generated]:
        """Yield each input as soon as its K completions are done, in any order."""

    def close(self) -> None:
        """Free the model."""


class Gathering:
    """The completions of one input that a backend samples one by one.

    Args:
        request: the input.
        started: when its first sample was asked for, in seconds of a monotonic clock.
    """

    def __init__(self, request: GenerationRequest, started: float) -> None:
        self._request = request
        self._started = started
        self._found: dict[int, Completion] = {}

    def add(self, k: int, completion: Completion, now: float) -> Generated | None:
        """Note sample k; return the input when all of its samples are there."""
        self._found[k] = completion
        count = len(self._request.seeds)
        if len(self._found) < count:
            return None
        completions = tuple(self._found[k] for k in range(count))
        return Generated(self._request.input_id, completions, now - self._started)

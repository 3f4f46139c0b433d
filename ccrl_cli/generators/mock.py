"""A stand-in for a model: gold answers with seeded mistakes, for dry runs. Never reportable."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence

from ccrl_cli.generators.base import Generated, GenerationRequest
from ccrl_cli.records import Completion, Entity

#: Probability that one mention is dropped, retyped or cut in a mock answer.
DEFAULT_NOISE = 0.3


class MockGenerator:
    """Deterministic corruption of given answers.

    Args:
        answers: input id -> mentions under the names that prompts show.
        type_names: names that a wrong type is drawn from.
        noise: probability of a mistake at each mention.
        seconds_per_input: pause before each input, to make interruptions testable.
    """

    name = "mock"
    special_tokens: tuple[str, ...] = ()

    def __init__(
        self,
        answers: Mapping[str, Sequence[Entity]],
        type_names: Sequence[str],
        *,
        noise: float = DEFAULT_NOISE,
        seconds_per_input: float = 0.0,
    ) -> None:
        self._answers = answers
        self._type_names = list(type_names)
        self._noise = noise
        self._pause = seconds_per_input
        self.details: Mapping[str, str] = {"noise": f"{noise:g}"}

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generated]:
        """Yield the inputs in the order given."""
        for request in requests:
            if self._pause:
                time.sleep(self._pause)
            yield Generated(
                request.input_id,
                tuple(self._complete(request.input_id, seed) for seed in request.seeds),
                self._pause,
            )

    def close(self) -> None:
        """Do nothing: there is no model."""

    def _complete(self, input_id: str, seed: int) -> Completion:
        rng = random.Random(seed)
        kept = []
        for entity in self._answers.get(input_id, ()):
            if rng.random() >= self._noise:
                kept.append(entity)
                continue
            mistake = rng.choice(("drop", "retype", "cut"))
            if mistake == "retype":
                kept.append(Entity(entity.text, rng.choice(self._type_names)))
            elif mistake == "cut":
                kept.append(Entity(entity.text.split(" ")[0], entity.type))
        text = json.dumps([{"text": e.text, "type": e.type} for e in kept], ensure_ascii=False)
        return Completion(text, -0.05 - 0.5 * rng.random(), max(2, len(text) // 4), "stop")

"""Curriculum: an order of inputs, a pacing of it, and the stateful sampler that draws from both.

Self-paced order by confidence with competence-based pacing (Platanios et al., 1903.09848).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccrl_cli.core.pacing import Pacing

ORDERS = ("confidence", "random", "anti")
"""Orders of the inputs: surest first, and the two controls."""

GATE_FLOOR = 0.2
"""Smallest relative rate at which the learning-signal gate still draws an input."""

_PASSES_TRIED = 50
"""Attempts at a pass with something new for the step, before every input with a rate is let in."""

GATE_VISITS = 2
"""Visits without reward spread after which the gate draws an input at its floor."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many of the ordered inputs are open at each step.

    Attributes:
        num_inputs: N, inputs in the order.
        num_steps: S, generation steps of the training.
        prompts_per_step: inputs drawn in one step.
        pacing: open share by progress.
        begin: progress t at the first step; above 0 in a round that is paced with those before it.
        end: progress t at the last step.
    """

    num_inputs: int
    num_steps: int
    prompts_per_step: int
    pacing: Pacing
    begin: float = 0.0
    end: float = 1.0

    def progress(self, step: int) -> float:
        """Return t of a step: `begin` at the first, `end` at the last and in a single one."""
        done = min(1.0, step / (self.num_steps - 1)) if self.num_steps > 1 else 1.0
        return self.end if done == 1.0 else self.begin + (self.end - self.begin) * done

    def num_open(self, step: int) -> int:
        """Return how many inputs are open at a step; at least one."""
        return self.pacing.num_open(self.progress(step), self.num_inputs)


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of steps ``[first_step, end_step)`` over one open set."""

    number: int
    first_step: int
    end_step: int
    num_open: int


def stages(schedule: Schedule) -> Iterator[Stage]:
    """Yield the stages of a schedule, numbered from 1."""
    first, number = 0, 1
    for step in range(1, schedule.num_steps + 1):
        count = schedule.num_open(step - 1)
        if step == schedule.num_steps or schedule.num_open(step) != count:
            yield Stage(number, first, step, count)
            first, number = step, number + 1


def order_inputs(
    confidence: Mapping[str, float],
    order: str,
    *,
    threshold: float = 0.0,
    ranks: Mapping[str, float] | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[str, ...]:
    """Return the inputs in the order in which they open; ties are broken by input id.

    Args:
        confidence: confidence of each input, in [0, 1].
        order: ``confidence`` (surest first), ``anti`` (least sure first) or ``random``.
        threshold: inputs with less confidence are left out.
        ranks: what is ordered by in place of the confidence, see ``core.balance``.
        rng: needed by ``random`` alone.

    Raises:
        ValueError: the order is unknown, or ``random`` was given no generator.
    """
    kept = sorted(key for key, value in confidence.items() if value >= threshold)
    sure = confidence if ranks is None else ranks
    if order == "confidence":
        return tuple(sorted(kept, key=lambda key: -sure[key]))
    if order == "anti":
        return tuple(sorted(kept, key=lambda key: sure[key]))
    if order != "random":
        raise ValueError(f"order is {order!r}, not one of {', '.join(ORDERS)}")
    if rng is None:
        raise ValueError("random order needs a generator")
    return tuple(kept[i] for i in rng.permutation(len(kept)))


class CurriculumSampler:
    """Draws inputs without replacement inside a pass over what is open; what opens joins the pass.

    Draw i belongs to step ``i // prompts_per_step``. Draws are remembered, so asking again for an
    earlier one gives the same input: a data loader may prefetch, skip or repeat.

    Args:
        order: input ids, first to open first.
        schedule: how many are open when.
        rng: source of the draws.
        gate: draw inputs less often whose groups had no reward spread in their last visits.
        rates: how often inputs are drawn, relative to the largest; an input is let into a pass
            with that probability, and one with rate 0 is not drawn unless nothing else is open.
            None: all alike.

    Raises:
        ValueError: order and schedule differ in length, or no rate is above 0.
    """

    def __init__(
        self,
        order: Sequence[str],
        schedule: Schedule,
        rng: np.random.Generator,
        *,
        gate: bool = False,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        if len(order) != schedule.num_inputs:
            raise ValueError(f"{len(order)} inputs, but a schedule for {schedule.num_inputs}")
        self._order = tuple(order)
        self._place = {key: place for place, key in enumerate(self._order)}
        self._schedule = schedule
        self._rng = rng
        self._gate = gate
        self._draws: list[int] = []
        self._pool: list[int] = []
        self._num_joined = 0
        self._flat_visits: dict[int, int] = {}
        self._rates = _relative(rates, self._order) if rates is not None else None

    def __len__(self) -> int:
        """Return the number of draws of the whole run."""
        return self._schedule.num_steps * self._schedule.prompts_per_step

    @property
    def schedule(self) -> Schedule:
        """The schedule that is followed."""
        return self._schedule

    @property
    def order(self) -> tuple[str, ...]:
        """The inputs, first to open first."""
        return self._order

    def draw(self, index: int) -> str:
        """Return draw number `index`, making all draws before it first.

        Raises:
            IndexError: the index is negative.
        """
        if index < 0:
            raise IndexError(f"draw {index}")
        while len(self._draws) <= index:
            self._draws.append(self._next())
        return self._order[self._draws[index]]

    def observe(self, input_id: str, spread: float) -> None:
        """Note the reward spread of a group of an input, see ``core.advantages.reward_spread``."""
        place = self._place[input_id]
        self._flat_visits[place] = 0 if spread > 0 else self._flat_visits.get(place, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next draws depend on, as plain JSON values."""
        return {
            "order": list(self._order),
            "draws": list(self._draws),
            "pool": list(self._pool),
            "num_joined": self._num_joined,
            "flat_visits": sorted(self._flat_visits.items()),
            "rng": _plain(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            ValueError: the state belongs to other inputs or another order.
        """
        if tuple(state["order"]) != self._order:
            raise ValueError("the saved state belongs to another order of inputs")
        self._draws = [int(i) for i in state["draws"]]
        self._pool = [int(i) for i in state["pool"]]
        self._num_joined = int(state["num_joined"])
        self._flat_visits = {int(k): int(v) for k, v in state["flat_visits"]}
        self._rng.bit_generator.state = _restored(state["rng"])

    def _next(self) -> int:
        """Make the next draw."""
        position = len(self._draws)
        in_step = position % self._schedule.prompts_per_step
        step = min(position // self._schedule.prompts_per_step, self._schedule.num_steps - 1)
        count = self._schedule.num_open(step)
        self._pool.extend(self._admitted(range(self._num_joined, count)))
        self._num_joined = max(self._num_joined, count)
        taken = set(self._draws[position - in_step :]) if in_step else set()
        if all(place in taken for place in self._pool):
            self._pool = self._new_pass(taken)
        choices = len(self._pool)
        repeats = all(place in taken for place in self._pool)
        for _ in range(20 * choices + 20):
            slot = int(self._rng.integers(choices))
            place = self._pool[slot]
            if place in taken and not repeats:
                continue
            if self._is_held_back(place):
                continue
            break
        self._pool[slot] = self._pool[-1]
        self._pool.pop()
        return place

    def _admitted(self, places: Iterable[int]) -> list[int]:
        """Return those of the inputs that are let into a pass, each with its rate."""
        if self._rates is None:
            return list(places)
        return [place for place in places if self._rng.random() < self._rates[self._order[place]]]

    def _new_pass(self, taken: set[int]) -> list[int]:
        """Return the inputs of a new pass, one at least that this step has not drawn if it can."""
        opened = range(self._num_joined)
        if self._rates is None:
            return list(opened)
        for _ in range(_PASSES_TRIED):
            pool = self._admitted(opened)
            if any(place not in taken for place in pool):
                return pool
        wanted = [place for place in opened if self._rates[self._order[place]] > 0]
        return wanted or list(opened)

    def _is_held_back(self, place: int) -> bool:
        """Return whether the gate refuses an input this time."""
        if not self._gate or self._flat_visits.get(place, 0) < GATE_VISITS:
            return False
        return bool(self._rng.random() >= GATE_FLOOR)


def _relative(rates: Mapping[str, float], order: Sequence[str]) -> dict[str, float]:
    """Return the rates of inputs as shares of the largest."""
    largest = max((rates[key] for key in order), default=0.0)
    if not largest > 0:
        raise ValueError("no input has a rate above 0")
    return {key: rates[key] / largest for key in order}


def _plain(value: Any) -> Any:
    """Return a generator state without numpy values."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return {"uint64": [int(part) for part in value]}
    return int(value) if isinstance(value, np.integer) else value


def _restored(value: Any) -> Any:
    """Undo `_plain`."""
    if isinstance(value, Mapping):
        if set(value) == {"uint64"}:
            return np.array(value["uint64"], dtype=np.uint64)
        return {key: _restored(part) for key, part in value.items()}
    return value

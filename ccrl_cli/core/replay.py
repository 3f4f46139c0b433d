"""Replay: a few labelled source inputs in every step, so that what was known is not unlearnt.

Rehearsal of old examples (Robins, Connection Science 1995) with the gold labels of the source.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccrl_cli.core.seeds import derive_seed


def replay_prompts(share: float, prompts_per_step: int) -> int:
    """Return how many prompts of each step are replayed: the share, rounded to whole prompts.

    Any share above 0 replays at least one, and one prompt at least is left to the target.

    Raises:
        ValueError: a share above 0 of a step with a single prompt.
    """
    if share <= 0:
        return 0
    if prompts_per_step < 2:
        raise ValueError("a step with a single prompt has no room for replay")
    return min(prompts_per_step - 1, max(1, round(share * prompts_per_step)))


class ReplayDraws:
    """Draw number i of the source inputs: in passes, each in an order of its own.

    A draw depends on its number and the seed alone, so there is nothing to save.

    Args:
        ids: source inputs.
        seed: seed of the run.
    """

    def __init__(self, ids: Sequence[str], seed: int) -> None:
        self._ids = tuple(ids)
        self._seed = seed
        self._orders: dict[int, np.ndarray] = {}

    def draw(self, index: int) -> str:
        """Return draw number `index`.

        Raises:
            IndexError: there are no inputs, or the index is negative.
        """
        if index < 0 or not self._ids:
            raise IndexError(f"draw {index} of {len(self._ids)} source inputs")
        number, place = divmod(index, len(self._ids))
        if number not in self._orders:
            seed = derive_seed(self._seed, "replay", number)
            self._orders[number] = np.random.default_rng(seed).permutation(len(self._ids))
        return self._ids[int(self._orders[number][place])]


def place_in_step(row: int, prompts_per_step: int, replayed: int) -> tuple[bool, int]:
    """Return whether row `row` of a run is a replay, and its number among its kind.

    The last `replayed` rows of each step are replays.
    """
    step, place = divmod(row, prompts_per_step)
    own = prompts_per_step - replayed
    if place < own:
        return False, step * own + place
    return True, step * replayed + place - own

"""The private surface of TRL that is relied on, in one place: a test fails when TRL moves it.

Everything else goes through public arguments: reward functions, data set, `rollout_func`,
callbacks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrivateMethod:
    """A private method of ``trl.GRPOTrainer``.

    Attributes:
        name: its name.
        parameters: those that we pass or take by name or first, without ``self``.
        use: ``overridden`` or ``called``.
        reason: why no public argument does.
    """

    name: str
    parameters: tuple[str, ...]
    use: str
    reason: str


PRIVATE_METHODS = (
    PrivateMethod(
        "_generate_and_score_completions",
        ("inputs",),
        "overridden",
        "weights belong on advantages, and no argument changes these",
    ),
    PrivateMethod(
        "_load_from_checkpoint",
        ("resume_from_checkpoint", "model"),
        "overridden",
        "beside a reference adapter the library restores that one alone",
    ),
    PrivateMethod(
        "_get_per_token_logps_and_entropies",
        ("model", "batch_size"),
        "called",
        "before the first update, trainer and decoder are compared on the loss's probabilities",
    ),
)

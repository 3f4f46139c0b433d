"""Arms: training recipes that are compared, each derived from one profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ccrl_cli.config.comparison import ARMS, Arm
from ccrl_cli.config.schema import Profile
from ccrl_cli.errors import UsageError
from ccrl_cli.pipelines.common.weights import warmup_path

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = Literal["baseline", "method", "control", "bound"]
Trainer = Literal["none", "grpo", "sft"]
Changes = Mapping[str, Any]

_PLAIN: Changes = {
    "curriculum.pacing": "constant",
    "curriculum.unit": "sentence",
    "curriculum.order": "confidence",
    "curriculum.balance": "none",
    "curriculum.threshold": 0.0,
    "curriculum.gate": False,
    "curriculum.rounds": 1,
    "training.confidence_weight": "none",
}
"""Every label at once, made once, and confidence used nowhere."""

_BLIND: Changes = {**_PLAIN, "training.label_answers": 0}
"""The same where labels must not be seen: no label answers in its own group."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One arm.

    Attributes:
        name: how it is called.
        kind: ``baseline``, ``method``, ``control`` (the same with one thing broken) or ``bound``.
        trainer: ``none``, ``grpo`` or ``sft``.
        description: what it does, in a sentence.
        changes: profile keys that it sets, from the profile it is derived from.
        random_reward: overlap with the label is replaced by noise.
        replays: supervised training replays source sentences too.
        uses_gold: trains on gold labels.
        decode: how the start is decoded, where that is all that the arm does; None: greedily.
    """

    name: Arm
    kind: Kind
    trainer: Trainer
    description: str
    changes: Callable[[Profile], Changes] = lambda _: {}
    random_reward: bool = False
    replays: bool = False
    uses_gold: bool = False
    decode: Literal["vote", "majority"] | None = None

    @property
    def trained(self) -> bool:
        """Whether it updates weights."""
        return self.trainer in ("grpo", "sft")


def threshold(profile: Profile) -> float:
    """Return the confidence from which ``threshold-only`` takes labels."""
    return profile.curriculum.threshold or profile.baselines.threshold


def _format_only(profile: Profile) -> Changes:
    weight = profile.reward.format_weight or 1.0
    return {**_BLIND, "reward.overlap_weight": 0.0, "reward.format_weight": weight}


def _in_rounds(profile: Profile) -> Changes:
    return {**_PLAIN, "curriculum.rounds": max(2, profile.curriculum.rounds)}


def _weighted(profile: Profile) -> Changes:
    weight = profile.training.confidence_weight
    return {**_PLAIN, "training.confidence_weight": "advantage" if weight == "none" else weight}


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "zero-shot", "baseline", "none",
            "The starting policy as it is, decoded as every arm is; no training.",
        ),
        Recipe(
            "labeller", "baseline", "none",
            "The starting policy decoded as labels are made: K answers, spans by votes, types by "
            "evidence; no training.",
            decode="vote",
        ),
        Recipe(
            "majority-vote", "control", "none",
            "What K answers of the starting policy agree on, types by votes too; no training.",
            decode="majority",
        ),
        Recipe(
            "naive-sft", "baseline", "sft",
            "Supervised on all pseudo-labels at once; as many updates of as many inputs.",
            lambda _: _PLAIN,
        ),
        Recipe(
            "sft-replay", "baseline", "sft",
            "naive-sft with the replay and the shape of the learning rate of GRPO.",
            lambda _: _PLAIN,
            replays=True,
        ),
        Recipe(
            "naive-rl", "baseline", "grpo",
            "GRPO on all pseudo-labels from the first step; confidence plays no part.",
            lambda _: _PLAIN,
        ),
        Recipe(
            "naive-rl-rounds", "baseline", "grpo",
            "naive-rl in rounds: the adapted policy labels again; as many updates in all.",
            _in_rounds,
        ),
        Recipe(
            "naive-rl-weighted", "control", "grpo",
            "naive-rl with the confidence weights of the curriculum.",
            _weighted,
        ),
        Recipe(
            "threshold-only", "baseline", "grpo",
            "GRPO on the labels of confidence tau and above, all from the first step.",
            lambda profile: {**_PLAIN, "curriculum.threshold": threshold(profile)},
        ),
        Recipe(
            "curriculum", "method", "grpo",
            "GRPO as the profile says: the surest labels first, the rest step by step.",
            lambda _: {"curriculum.order": "confidence"},
        ),
        Recipe(
            "curriculum-unweighted", "control", "grpo",
            "The curriculum without confidence weights.",
            lambda _: {"curriculum.order": "confidence", "training.confidence_weight": "none"},
        ),
        Recipe(
            "curriculum-sentences", "control", "grpo",
            "The curriculum with sentences as its unit: what is not open is not drawn.",
            lambda _: {"curriculum.order": "confidence", "curriculum.unit": "sentence"},
        ),
        Recipe(
            "random-order", "control", "grpo",
            "The curriculum's pacing over inputs in random order.",
            lambda _: {"curriculum.order": "random"},
        ),
        Recipe(
            "anti-curriculum", "control", "grpo",
            "The curriculum's pacing, the least sure inputs first.",
            lambda _: {"curriculum.order": "anti"},
        ),
        Recipe(
            "random-reward", "control", "grpo",
            "naive-rl with noise in place of the agreement with the label.",
            lambda _: _BLIND,
            random_reward=True,
        ),
        Recipe(
            "format-only", "control", "grpo",
            "naive-rl rewarded for well-formed answers alone, whatever they say.",
            _format_only,
        ),
        Recipe(
            "oracle", "bound", "grpo",
            "naive-rl on the GOLD labels of the same inputs: an upper bound, no method.",
            lambda _: _PLAIN,
            uses_gold=True,
        ),
    )
}  # fmt: skip
"""Every arm by name, in the order of reports."""

OURS: Arm = "curriculum"
NAIVE: Arm = "naive-rl"
LABELLER = "labeller"
"""The arm without training that answers as labels are made."""

assert tuple(RECIPES) == ARMS


def find_recipe(arm: str) -> Recipe:
    """Return an arm by name.

    Raises:
        UsageError: there is no such arm.
    """
    recipe = RECIPES.get(arm)
    if recipe is None:
        from difflib import get_close_matches

        near = get_close_matches(arm, RECIPES, n=1)
        raise UsageError(
            f"there is no arm named {arm!r}",
            hint=(f"did you mean {near[0]}? " if near else "") + "See `ccrl baselines list`",
        )
    return recipe


def arms_path(profile: Profile) -> Path:
    """Return the folder of the arms of a profile: one run directory each."""
    return profile.run_path / "arms"


def pair_name(arm: str, seed: int) -> str:
    """Return the name of the run of an arm and a seed."""
    return f"{arm}-seed{seed}"


def arm_profile(profile: Profile, arm: str, seed: int) -> Profile:
    """Return the profile of one arm and seed, derived from the one they all share.

    All arms and seeds have the same completions, so the same pseudo-labels, and the same starting
    weights. A seed changes what is drawn in training: new adapter weights, the order of draws,
    rollouts, the order of types in training prompts, the random order and the random reward of
    these controls, and the samples of ``majority-vote``.

    Raises:
        UsageError: the profile's curriculum is none.
    """
    recipe = find_recipe(arm)
    if arm == OURS and profile.curriculum.pacing == "constant":
        raise UsageError(
            "curriculum.pacing is constant, so the arm curriculum would be naive-rl again",
            hint="choose a pacing with --pacing or --set curriculum.pacing=step",
        )
    warmup = profile.warmup
    folder = warmup.folder or (str(warmup_path(profile)) if warmup.enabled else None)
    return profile.with_values(
        {
            **recipe.changes(profile),
            "run.dir": str(arms_path(profile)),
            "run.name": pair_name(arm, seed),
            "run.seed": seed,
            "generation.store": str(profile.store_path),
            "warmup.folder": folder,
        }
    )


def chosen_arms(profile: Profile, arms: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the arms to run in the order of the table, ``zero-shot`` always among them.

    Every other arm is compared with it, and it costs nothing: it is the others' score before
    training.

    Args:
        profile: lists arms in ``baselines.arms``.
        arms: names that take the place of the profile's.

    Raises:
        UsageError: an arm is unknown.
    """
    wanted = {find_recipe(arm).name for arm in arms or profile.baselines.arms}
    return tuple(name for name in RECIPES if name in wanted or name == "zero-shot")


def chosen_pairs(profile: Profile, arms: Sequence[str] = ()) -> tuple[tuple[str, int], ...]:
    """Return the (arm, seed) pairs to run, one seed after the other.

    ``zero-shot`` draws nothing, so it has one run for all seeds.
    """
    first = profile.run.seed
    return tuple(
        (arm, seed)
        for seed in range(first, first + profile.baselines.seeds)
        for arm in chosen_arms(profile, arms)
        if seed == first or arm != "zero-shot"
    )

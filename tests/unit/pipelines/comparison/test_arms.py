"""Arms: what each recipe changes, what it leaves alone, and equal update budgets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_cli.config.comparison import ARMS
from ccrl_cli.config.dump import to_toml
from ccrl_cli.config.load import load_profile
from ccrl_cli.errors import UsageError
from ccrl_cli.pipelines.comparison.arms import (
    RECIPES,
    arm_profile,
    arms_path,
    chosen_arms,
    chosen_pairs,
    find_recipe,
)
from ccrl_cli.pipelines.curriculum.plan import plan_schedule, planned_steps, training_order

TRAINED = [name for name, recipe in RECIPES.items() if recipe.trained]
GRPO = [name for name, recipe in RECIPES.items() if recipe.trainer == "grpo"]
PLAIN = {
    "curriculum.pacing": "constant",
    "curriculum.balance": "none",
    "training.confidence_weight": "none",
}
BLIND = {**PLAIN, "training.label_answers": 0}
CONFIDENCE = {f"{i:02d}": i / 19 for i in range(20)}


def profile(*overrides):
    return load_profile("quickstart", ["training.replay_share=0", *overrides]).profile


def test_every_arm_of_the_schema_has_a_recipe():
    assert tuple(RECIPES) == ARMS
    assert all(recipe.description.endswith(".") for recipe in RECIPES.values())


def changed(arm, *overrides):
    """Return which values of training an arm has other than the profile's."""
    base = profile(*overrides)
    one = arm_profile(base, arm, 0)
    skipped = ("run", "generation")
    found = {}
    for section, values in one.model_dump().items():
        if section in skipped:
            continue
        for key, value in values.items():
            before = base.model_dump()[section][key]
            if value != before:
                found[f"{section}.{key}"] = value
    return found


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("zero-shot", {}),
        ("majority-vote", {}),
        ("curriculum", {}),
        ("naive-rl", PLAIN),
        ("naive-sft", PLAIN),
        ("oracle", PLAIN),
        ("random-reward", BLIND),
        ("threshold-only", {**PLAIN, "curriculum.threshold": 0.5}),
        ("random-order", {"curriculum.order": "random"}),
        ("anti-curriculum", {"curriculum.order": "anti"}),
        ("format-only", {**BLIND, "reward.overlap_weight": 0.0}),
    ],
)
def test_an_arm_changes_what_it_is_named_after_and_nothing_else(arm, expected):
    assert changed(arm) == expected


def test_naive_arms_use_confidence_nowhere():
    given = ("curriculum.gate=true", "training.confidence_weight=advantage",
             "curriculum.threshold=0.3")  # fmt: skip
    expected = {"curriculum.pacing": "constant", "curriculum.balance": "none",
                "curriculum.gate": False,
                "curriculum.threshold": 0.0, "training.confidence_weight": "none"}  # fmt: skip
    assert changed("naive-rl", *given) == expected
    assert changed("curriculum", *given) == {}
    # A control differs from the curriculum in its order alone.
    assert changed("random-order", *given) == {"curriculum.order": "random"}


def test_tau_is_the_curriculums_threshold_where_it_has_one():
    tau = arm_profile(profile("curriculum.threshold=0.3"), "threshold-only", 0).curriculum.threshold
    assert tau == 0.3
    tau = arm_profile(profile("baselines.threshold=0.8"), "threshold-only", 0).curriculum.threshold
    assert tau == 0.8


def test_only_the_oracle_uses_gold_and_it_is_a_bound():
    assert [name for name, recipe in RECIPES.items() if recipe.uses_gold] == ["oracle"]
    assert [name for name, recipe in RECIPES.items() if recipe.kind == "bound"] == ["oracle"]


def test_all_arms_share_completions_and_differ_in_directory_and_seed():
    base = profile("run.name=demo")
    found = [arm_profile(base, arm, seed) for arm, seed in chosen_pairs(base)]
    assert {one.store_path for one in found} == {base.store_path}
    assert len({one.run_path for one in found}) == len(found)
    assert all(one.run_path.parent == arms_path(base) for one in found)
    assert arm_profile(base, "naive-rl", 7).run.seed == 7


def test_arms_start_from_the_warm_up_of_the_run():
    base = profile("model.adapter=", "warmup.enabled=true", "run.name=demo")
    folder = arm_profile(base, "naive-rl", 3).warmup.folder
    assert folder == str(base.run_path / "warmup")
    named = profile("model.adapter=", "warmup.enabled=true", "warmup.folder=elsewhere")
    assert arm_profile(named, "naive-rl", 3).warmup.folder == "elsewhere"


def test_an_arms_profile_survives_being_written(tmp_path):
    for arm in RECIPES:
        one = arm_profile(profile(), arm, 2)
        place = tmp_path / f"{arm}.toml"
        place.write_text(to_toml(one), encoding="utf-8")
        assert load_profile(str(place)).profile == one


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 3),
    st.floats(0.1, 3),
    st.sampled_from(["linear", "root", "log", "exponential", "step"]),
    st.floats(0, 1),
)
def test_every_trained_arm_has_the_same_budget(prompts, iterations, epochs, pacing, threshold):
    base = profile("training.max_steps=").with_values(
        {
            "training.prompts_per_step": prompts,
            "training.micro_batch_size": 1,
            "training.num_iterations": iterations,
            "training.epochs": epochs,
            "curriculum.pacing": pacing,
            "curriculum.threshold": threshold,
        },
    )
    arms = {arm: arm_profile(base, arm, 1) for arm in TRAINED}
    assert len({planned_steps(one, len(CONFIDENCE)) for one in arms.values()}) == 1
    rollouts = set()
    for arm in GRPO:
        one = arms[arm]
        order = training_order(one, CONFIDENCE)
        if order:
            plan = plan_schedule(one, len(order), len(CONFIDENCE))
            rollouts.add(plan.num_steps * plan.prompts_per_step * one.training.num_generations)
    assert len(rollouts) == 1


def test_orders_of_the_arms():
    base = profile("baselines.threshold=0.5")
    order = {arm: training_order(arm_profile(base, arm, 1), CONFIDENCE) for arm in GRPO}
    assert order["curriculum"] == tuple(sorted(CONFIDENCE, reverse=True))
    assert order["anti-curriculum"] == tuple(sorted(CONFIDENCE))
    assert sorted(order["random-order"]) == sorted(CONFIDENCE)
    assert order["random-order"] not in (order["curriculum"], order["anti-curriculum"])
    # i/19 >= 0.5 from i = 10 on.
    assert sorted(order["threshold-only"]) == [f"{i:02d}" for i in range(10, 20)]
    other = training_order(arm_profile(base, "random-order", 2), CONFIDENCE)
    assert other != order["random-order"]


def test_zero_shot_is_always_there_and_runs_once():
    base = profile("baselines.seeds=3", "run.seed=5")
    pairs = chosen_pairs(base, ["curriculum", "naive-rl"])
    assert pairs[0] == ("zero-shot", 5)
    assert [pair for pair in pairs if pair[0] == "zero-shot"] == [("zero-shot", 5)]
    assert [seed for arm, seed in pairs if arm == "curriculum"] == [5, 6, 7]
    assert chosen_arms(base, ["curriculum", "naive-rl"]) == ("zero-shot", "naive-rl", "curriculum")


def test_unknown_arms_name_the_nearest():
    with pytest.raises(UsageError, match="no arm named 'curiculum'") as error:
        find_recipe("curiculum")
    assert "did you mean curriculum?" in error.value.hint
    with pytest.raises(UsageError):
        chosen_pairs(profile(), ["naive"])


def test_a_curriculum_of_constant_pacing_is_refused():
    base = profile("curriculum.pacing=constant")
    with pytest.raises(UsageError, match="would be naive-rl again"):
        arm_profile(base, "curriculum", 0)
    assert arm_profile(base, "naive-rl", 0).curriculum.pacing == "constant"


def test_with_values_checks_the_whole_profile_again():
    with pytest.raises(ValueError, match="shares must end"):
        profile().with_values({"curriculum.shares": (0.5,)})
    with pytest.raises(KeyError):
        profile().with_values({"curriculum.shears": 1})

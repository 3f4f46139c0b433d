"""Comparison of arms: numbers worked out by hand, against scipy, and what is refused."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from ccrl_cli.core.statistics import holm, micro_f1
from ccrl_cli.errors import IntegrityError, PreconditionError
from ccrl_cli.pipelines.comparison.arm_runs import finished_arms
from ccrl_cli.pipelines.comparison.compare import answer_of, compare, compare_all, compared_names
from ccrl_cli.reporting import NullReporter
from made_arms import arms_of, write_arm


def rows(seed, rate, number=60):
    """Return counts of sentences, right with a given rate."""
    rng = np.random.default_rng(seed)
    right = rng.random(number) < rate
    return [(1, 0, 1) if ok else (0, 1, 2) for ok in right]


def compared(profile):
    reporter = NullReporter()
    return compare(profile, reporter=reporter), reporter


def test_numbers_of_the_table(tmp_path):
    profile = arms_of(tmp_path)
    before = {"source": [(4, 0, 0), (0, 0, 0)], "target": [(1, 1, 1), (0, 0, 2)]}
    write_arm(profile, "zero-shot", 0, before["target"], before["source"])
    # Target: 2*2/(2*2+1+1) = 4/6 and 2*3/(2*3+0+1) = 6/7. Source: 6/(6+1+1) = 3/4 and 8/8 = 1.
    write_arm(profile, "naive-rl", 0, [(1, 1, 0), (1, 0, 1)], [(3, 1, 1), (0, 0, 0)],
              before=before, kl=0.2)  # fmt: skip
    write_arm(profile, "naive-rl", 1, [(1, 0, 0), (2, 0, 1)], [(4, 0, 0), (0, 0, 0)],
              before=before, kl=0.4)  # fmt: skip
    found, _ = compared(profile)
    start, naive = found.rows
    assert (start.arm, naive.arm, naive.seeds) == ("zero-shot", "naive-rl", (0, 1))
    # 2*1/(2*1 + 1 + 3) = 2/6
    assert start.target_f1.mean == pytest.approx(2 / 6)
    assert start.target_f1.deviation is None
    assert naive.target_f1.mean == pytest.approx((4 / 6 + 6 / 7) / 2)
    assert naive.target_f1.deviation == pytest.approx(statistics.stdev([4 / 6, 6 / 7]))
    assert naive.source_f1.mean == pytest.approx((3 / 4 + 1) / 2)
    assert naive.forgetting.mean == pytest.approx((1 / 4 + 0) / 2)
    assert naive.kl.mean == pytest.approx(0.3)
    # 8 steps of 0.5 + 1.0 seconds
    assert (naive.updates, naive.rollouts, naive.seconds) == (8, 64, 12.0)
    # Both seeds added, sentence by sentence: naive 5 right of 2*5/(2*5 + 1 + 2) = 10/13, and the
    # start twice 2/6.
    comparison = next(d for d in found.comparisons if d.domain == "target")
    assert (comparison.first, comparison.second, comparison.seeds) == (
        "zero-shot",
        "naive-rl",
        (0, 1),
    )
    assert comparison.difference.value == pytest.approx(2 / 6 - 10 / 13)
    assert comparison.ahead == 0


def test_the_interval_is_that_of_scipy(tmp_path):
    stats = pytest.importorskip("scipy.stats")
    profile = arms_of(tmp_path)
    ours, naive = rows(1, 0.6, 200), rows(2, 0.4, 200)
    write_arm(profile, "curriculum", 0, ours, ours)
    write_arm(profile, "naive-rl", 0, naive, naive)
    found, _ = compared(profile)
    comparison = next(d for d in found.comparisons if d.domain == "target")
    a, b = np.array(ours, float), np.array(naive, float)

    def gap(places):
        places = np.atleast_2d(places).astype(int)
        return micro_f1(a[places].sum(axis=1)) - micro_f1(b[places].sum(axis=1))

    theirs = stats.bootstrap(
        (np.arange(200),), lambda p, axis=-1: gap(p) if p.ndim > 1 else gap(p)[0], vectorized=True,
        n_resamples=5000, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert comparison.difference.value == pytest.approx(gap(np.arange(200))[0])
    # A standard error is about 0.05; two bootstraps of 5000 differ by far less.
    assert comparison.difference.low == pytest.approx(theirs.low, abs=0.01)
    assert comparison.difference.high == pytest.approx(theirs.high, abs=0.01)


def test_p_values_are_corrected_over_all_rows(tmp_path):
    profile = arms_of(tmp_path)
    for number, arm in enumerate(["naive-rl", "curriculum", "random-order", "oracle"]):
        write_arm(profile, arm, 0, rows(number, 0.3 + 0.1 * number), rows(9 - number, 0.5))
    found, _ = compared(profile)
    # curriculum against 3 others, and 2 others against naive-rl, in two domains.
    assert len(found.comparisons) == 10
    assert [d.p_holm for d in found.comparisons] == holm([d.p_value for d in found.comparisons])
    assert all(d.p_holm >= d.p_value for d in found.comparisons)


def test_who_is_compared_with_whom():
    arms = ["zero-shot", "naive-rl", "curriculum", "oracle"]
    assert compared_names(arms) == (
        ("curriculum", "zero-shot"), ("curriculum", "naive-rl"), ("curriculum", "oracle"),
        ("zero-shot", "naive-rl"), ("oracle", "naive-rl"),
    )  # fmt: skip
    assert compared_names(["zero-shot", "majority-vote"]) == ()


def test_pairwise_comparisons_are_over_common_seeds_alone(tmp_path):
    profile = arms_of(tmp_path)
    for arm, seeds in (("curriculum", (0, 1, 2)), ("naive-rl", (1, 2, 3))):
        for seed in seeds:
            write_arm(profile, arm, seed, rows(seed, 0.5), rows(seed, 0.5))
    comparisons = compare_all(finished_arms(profile), 0)
    assert {comparison.seeds for comparison in comparisons} == {(1, 2)}
    # The arms are alike in each common seed.
    assert [comparison.difference.value for comparison in comparisons] == [0, 0]
    assert [comparison.p_value for comparison in comparisons] == [1, 1]


def test_the_headline_says_who_won(tmp_path):
    profile = arms_of(tmp_path)
    good, bad = [(2, 0, 0)] * 350, [(0, 1, 2)] * 330 + [(2, 0, 0)] * 20
    write_arm(profile, "curriculum", 0, good, good)
    write_arm(profile, "naive-rl", 0, bad, bad)
    found, _ = compared(profile)
    assert found.headline.startswith("The curriculum won over naive RL here, in both domains")
    assert not any("proves little" in text for text in found.caveats)
    assert any(text.startswith("One seed") for text in found.caveats)
    assert found.reportable


def test_some_runs_are_compared_as_all_arms_are(tmp_path):
    profile = arms_of(tmp_path)
    good, bad = [(2, 0, 0)] * 350, [(0, 1, 2)] * 330 + [(2, 0, 0)] * 20
    write_arm(profile, "curriculum", 0, good, good)
    write_arm(profile, "naive-rl", 0, bad, bad)
    ours, other = (item.run_dir for item in reversed(finished_arms(profile)))
    assert answer_of([ours, other]) == (
        compared(profile)[0].headline, compared(profile)[0].caveats
    )  # fmt: skip
    assert answer_of([ours]) is None
    assert answer_of([ours, tmp_path]) is None
    write_arm(profile, "naive-rl", 1, bad[1:], bad, digest="other")
    assert answer_of([ours, other, other.with_name("naive-rl-seed1")]) is None


def test_the_oracle_is_not_in_the_headline(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "oracle", 0, [(2, 0, 0)] * 9, [(2, 0, 0)] * 9)
    write_arm(profile, "naive-rl", 0, [(0, 1, 2)] * 9, [(0, 1, 2)] * 9)
    found, _ = compared(profile)
    assert found.headline == (
        "Whether the curriculum beats naive RL was not tested: one of the two did not run."
    )
    assert "oracle" not in " ".join([found.headline, *found.caveats])
    assert [row.kind for row in found.rows] == ["baseline", "bound"]


def test_nothing_to_compare(tmp_path):
    with pytest.raises(PreconditionError, match="nothing to compare") as error:
        compared(arms_of(tmp_path))
    assert "ccrl baselines run-all" in error.value.hint


def test_missing_runs_are_named(tmp_path):
    profile = arms_of(tmp_path, "baselines.arms=['naive-rl', 'curriculum']", "baselines.seeds=2")
    write_arm(profile, "naive-rl", 0, [(1, 0, 0)], [(1, 0, 0)])
    found, reporter = compared(profile)
    assert found.missing == ("zero-shot-seed0", "curriculum-seed0", "naive-rl-seed1",
                             "curriculum-seed1")  # fmt: skip
    assert any("4 runs are not finished" in text for text in reporter.warnings)


def test_a_run_that_is_not_finished_is_left_out(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "naive-rl", 0, [(1, 0, 0)], [(1, 0, 0)])
    path = write_arm(profile, "curriculum", 0, [(1, 0, 0)], [(1, 0, 0)])
    (path / "state.json").unlink()
    assert [item.arm for item in finished_arms(profile)] == ["naive-rl"]


@pytest.mark.parametrize("key", ["planned_updates", "planned_rollouts"])
def test_unequal_budgets_are_refused(tmp_path, key):
    profile = arms_of(tmp_path)
    write_arm(profile, "naive-rl", 0, [(1, 0, 0)], [(1, 0, 0)])
    write_arm(profile, "curriculum", 0, [(1, 0, 0)], [(1, 0, 0)], facts={key: 99})
    with pytest.raises(IntegrityError, match="unequal budgets"):
        finished_arms(profile)


def test_sft_has_the_updates_of_the_others_and_no_rollouts(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "naive-rl", 0, [(1, 0, 0)], [(1, 0, 0)])
    write_arm(profile, "naive-sft", 0, [(1, 0, 0)], [(1, 0, 0)])
    assert {row.rollouts for row in compared(profile)[0].rows} == {0, 64}
    write_arm(profile, "naive-sft", 0, [(1, 0, 0)], [(1, 0, 0)], facts={"planned_updates": 9})
    with pytest.raises(IntegrityError, match="unequal budgets"):
        finished_arms(profile)


def test_an_arm_that_stopped_early_is_named(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "naive-rl", 0, [(1, 0, 0)], [(1, 0, 0)], facts={"updates": 3})
    _, reporter = compared(profile)
    assert any("stopped after 3 of 8 updates" in text for text in reporter.warnings)


def test_other_sentences_are_refused(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "naive-rl", 0, [(1, 0, 0)], [(1, 0, 0)])
    write_arm(profile, "curriculum", 0, [(1, 0, 0)], [(1, 0, 0)], digest="other")
    with pytest.raises(IntegrityError, match="scored other target sentences"):
        finished_arms(profile)


def test_scores_that_do_not_fit_the_predictions_are_refused(tmp_path):
    profile = arms_of(tmp_path)
    path = write_arm(profile, "naive-rl", 0, [(1, 0, 0)] * 2, [(1, 0, 0)] * 2)
    place = path / "predictions-target-after.jsonl"
    lines = place.read_text(encoding="utf-8").splitlines()
    place.write_text(lines[0].replace('"predicted":[{', '"predicted":[],"x":[{') + "\n"
                     + lines[1] + "\n", encoding="utf-8")  # fmt: skip
    with pytest.raises(IntegrityError, match="disagree on F1"):
        finished_arms(profile)


def test_smoke_runs_are_not_reportable(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "naive-rl", 0, [(1, 0, 0)], [(1, 0, 0)], reportable=False)
    found, _ = compared(profile)
    assert not found.reportable
    assert found.caveats[0].startswith("Not reportable")

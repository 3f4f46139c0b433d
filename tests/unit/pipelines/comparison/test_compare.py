"""Comparison of arms: numbers worked out by hand, against scipy, and what is refused."""

from __future__ import annotations

import json
import statistics

import numpy as np
import pytest

from ccrl_cli.core.statistics import holm, micro_f1
from ccrl_cli.errors import IntegrityError, PreconditionError
from ccrl_cli.findings import CaveatKind
from ccrl_cli.pipelines.comparison.arm_runs import finished_arms as read_folders
from ccrl_cli.pipelines.comparison.arms import arms_path
from ccrl_cli.pipelines.comparison.compare import compare, compare_folders, compare_runs
from ccrl_cli.pipelines.comparison.pairwise import compare_all, compared_names
from ccrl_cli.reporting import NullReporter
from made_arms import arms_of, write_arm


def rows(seed, rate, number=60):
    """Return counts of sentences, right with a given rate."""
    rng = np.random.default_rng(seed)
    right = rng.random(number) < rate
    return [(1, 0, 1) if ok else (0, 1, 2) for ok in right]


def finished_arms(profile):
    return read_folders([arms_path(profile)])


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
    # Each seed by itself; the start's one run stands for both.
    comparison = next(d for d in found.comparisons if d.domain == "target")
    assert (comparison.first, comparison.second) == ("zero-shot", "naive-rl")
    assert [pair.seed for pair in comparison.pairs] == [0, 1]
    assert comparison.trainings.differences == pytest.approx((2 / 6 - 4 / 6, 2 / 6 - 6 / 7))
    assert comparison.sentences.value == pytest.approx(comparison.trainings.mean)
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
    assert comparison.sentences.value == pytest.approx(gap(np.arange(200))[0])
    # A standard error is about 0.05; two bootstraps of 5000 differ by far less.
    assert comparison.sentences.low == pytest.approx(theirs.low, abs=0.01)
    assert comparison.sentences.high == pytest.approx(theirs.high, abs=0.01)
    width = comparison.sentences.high - comparison.sentences.low
    assert comparison.trainings.sentence_error == pytest.approx(width / 3.92, rel=0.05)


def test_the_labeller_is_a_way_of_decoding_and_has_no_greedy_score(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "labeller", 0, rows(3, 0.6), rows(3, 0.6), decoded=("typed", rows(4, 0.9)))
    for arm in ("curriculum", "naive-rl"):
        write_arm(profile, arm, 0, rows(1, 0.3), rows(1, 0.3), decoded=("typed", rows(2, 0.8)))
    found, _ = compared(profile)
    labeller = next(row for row in found.rows if row.arm == "labeller")
    total = np.sum(rows(3, 0.6), axis=0).astype(float)
    assert labeller.target_f1.mean == pytest.approx(float(micro_f1(total)))
    assert labeller.target_greedy is None
    # Its source is voted, that of the others typed: not held against each other.
    against = {c.domain for c in found.comparisons if "labeller" in (c.first, c.second)}
    assert against == {"target"}
    assert "Whether the curriculum adds to what the untrained labeller gives" in found.finding.text


def test_a_source_that_is_scored_greedily_alone_is_compared_greedily(tmp_path):
    profile = arms_of(tmp_path)
    for arm in ("curriculum", "naive-rl"):
        path = write_arm(profile, arm, 0, rows(1, 0.3), rows(1, 0.3),
                         decoded=("typed", rows(2, 0.8)))  # fmt: skip
        evaluation = json.loads((path / "evaluation.json").read_text(encoding="utf-8"))
        del evaluation["domains"]["source"]["decoded"]
        (path / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    found, _ = compared(profile)
    assert found.decodes == {"target": "typed", "source": "greedy"}
    row = found.rows[0]
    assert row.source_f1 == row.source_greedy
    assert row.target_f1 != row.target_greedy


def test_p_values_are_corrected_over_all_tests(tmp_path):
    profile = arms_of(tmp_path)
    for number, arm in enumerate(["naive-rl", "curriculum", "random-order", "oracle"]):
        for seed in range(5 if arm != "oracle" else 4):  # too few to be tested
            write_arm(profile, arm, seed, rows(10 * number + seed, 0.3 + 0.1 * number),
                      rows(90 - 10 * number - seed, 0.5))  # fmt: skip
    found, _ = compared(profile)
    # curriculum against 3 others, and 2 others against naive-rl, in two domains.
    assert len(found.comparisons) == 10
    tested = [d for d in found.comparisons if "oracle" not in (d.first, d.second)]
    assert len(tested) == 6
    assert [d.p_holm for d in tested] == holm([d.trainings.p_value for d in tested])
    assert all(d.p_holm is None for d in found.comparisons if d not in tested)


def test_a_pair_shares_seed_and_warm_up(tmp_path):
    profile = arms_of(tmp_path)
    for arm, rate in (("curriculum", 0.6), ("naive-rl", 0.4)):
        for seed in range(3):
            write_arm(profile, arm, seed, rows(seed, rate), rows(seed, 0.5),
                      facts={"start": "w1" if arm == "curriculum" or seed else "w0"})  # fmt: skip
    comparisons = compare_all(finished_arms(profile), 0, num_resamples=50)
    pairs = [(pair.seed, pair.start) for pair in comparisons[0].pairs]
    assert pairs == [(1, "w1"), (2, "w1")]  # seed 0 began elsewhere


def test_folders_of_one_target_are_pooled_over_warm_ups(tmp_path):
    folders = []
    for name, start, seeds in (("a", "w0", range(3)), ("b", "w1", range(3))):
        profile = arms_of(tmp_path / name)
        for arm, rate in (("curriculum", 0.7), ("naive-rl", 0.4)):
            for seed in seeds:
                write_arm(profile, arm, seed, rows(seed, rate), rows(seed, 0.5),
                          facts={"start": start})  # fmt: skip
        folders.append(arms_path(profile))
    found = compare_folders(folders, reporter=NullReporter())
    (only,) = found.domains
    assert {row.starts for row in only.rows} == {2}
    target = next(c for c in only.comparisons if c.domain == "target")
    assert [(p.seed, p.start) for p in target.pairs] == [
        (0, "w0"), (1, "w0"), (2, "w0"), (0, "w1"), (1, "w1"), (2, "w1")
    ]  # fmt: skip
    assert found.finding == only.finding
    assert CaveatKind.one_start not in {caveat.kind for caveat in only.finding.caveats}
    assert target.p_holm is not None
    with pytest.raises(IntegrityError, match="are the same pair: naive-rl, seed 0"):
        compare_folders([folders[0], folders[0]], reporter=NullReporter())


def test_over_domains_the_domain_is_the_unit(tmp_path):
    folders = []
    for number in range(6):
        profile = arms_of(tmp_path / f"d{number}")
        for arm, rate in (("curriculum", 0.7), ("naive-rl", 0.4)):
            write_arm(profile, arm, 0, rows(number, rate), rows(number, 0.5),
                      digest=f"data{number}")  # fmt: skip
        folders.append(arms_path(profile))
    found = compare_folders(folders, reporter=NullReporter())
    assert len(found.domains) == 6
    target = next(c for c in found.comparisons if c.domain == "target")
    means = [next(c for c in d.comparisons if c.domain == "target").trainings.mean
             for d in found.domains]  # fmt: skip
    assert target.domains.differences == pytest.approx(means)
    assert target.domains.p_value == pytest.approx(2 / 64)  # ahead in all six
    assert found.finding.text.startswith("The curriculum won over naive RL in the target domain")


def test_both_ways_to_decode_stand_side_by_side(tmp_path):
    profile = arms_of(tmp_path)
    greedy, voted = rows(1, 0.3), rows(2, 0.8)
    for arm in ("curriculum", "naive-rl"):
        write_arm(profile, arm, 0, greedy, greedy, decoded=("vote", voted))
    found, _ = compared(profile)
    assert found.decodes == {"target": "vote", "source": "vote"}
    row = found.rows[0]
    total = np.sum(voted, axis=0), np.sum(greedy, axis=0)
    assert row.target_f1.mean == pytest.approx(float(micro_f1(total[0].astype(float))))
    assert row.target_greedy.mean == pytest.approx(float(micro_f1(total[1].astype(float))))
    write_arm(profile, "random-order", 0, greedy, greedy)
    with pytest.raises(IntegrityError, match="decodes by greedy"):
        compared(profile)


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
    assert {tuple(pair.seed for pair in c.pairs) for c in comparisons} == {(1, 2)}
    # The arms are alike in each common seed.
    assert [comparison.trainings.mean for comparison in comparisons] == [0, 0]


def write_clear_case(profile, seeds):
    good, bad = [(2, 0, 0)] * 350, [(0, 1, 2)] * 330 + [(2, 0, 0)] * 20
    for seed in range(seeds):
        write_arm(profile, "curriculum", seed, good, good)
        write_arm(profile, "naive-rl", seed, bad, bad)


def test_the_finding_says_who_won(tmp_path):
    profile = arms_of(tmp_path)
    write_clear_case(profile, 5)
    found, _ = compared(profile)
    text = found.finding.text
    assert text.startswith("The curriculum won over naive RL here, in both domains")
    assert [c.kind for c in found.finding.caveats] == [CaveatKind.one_start]
    assert found.reportable


def test_however_clear_four_pairs_tell_nothing(tmp_path):
    profile = arms_of(tmp_path)
    write_clear_case(profile, 4)
    found, _ = compared(profile)
    assert "cannot be told with 4 pairs of trainings" in found.finding.text
    assert "won" not in found.finding.text


def test_some_runs_are_compared_as_all_arms_are(tmp_path):
    profile = arms_of(tmp_path)
    write_clear_case(profile, 1)
    ours, other = (item.run_dir for item in reversed(finished_arms(profile)))
    found = compare_runs([ours, other])
    assert found.finding == compared(profile)[0].finding
    assert {c.domain for c in found.comparisons} == {"target", "source"}
    assert compare_runs([ours]) is None
    assert compare_runs([ours, tmp_path]) is None
    write_arm(profile, "naive-rl", 1, [(2, 0, 0)] * 9, [(2, 0, 0)] * 9, digest="other")
    told = compare_runs([ours, other, other.with_name("naive-rl-seed1")]).finding.text
    assert told.startswith("Whether the curriculum beats naive RL cannot be told from these runs: ")
    assert "scored other target sentences" in told


def test_the_oracle_is_not_in_the_headline(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "oracle", 0, [(2, 0, 0)] * 9, [(2, 0, 0)] * 9)
    write_arm(profile, "naive-rl", 0, [(0, 1, 2)] * 9, [(0, 1, 2)] * 9)
    found, _ = compared(profile)
    assert found.finding.text == (
        "Whether the curriculum beats naive RL was not tested: one of the two did not run."
    )
    assert "oracle" not in found.finding.text
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
        compared(profile)


def test_sft_has_the_updates_of_the_others_and_no_rollouts(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "naive-rl", 0, [(1, 0, 0)], [(1, 0, 0)])
    write_arm(profile, "naive-sft", 0, [(1, 0, 0)], [(1, 0, 0)])
    assert {row.rollouts for row in compared(profile)[0].rows} == {0, 64}
    write_arm(profile, "naive-sft", 0, [(1, 0, 0)], [(1, 0, 0)], facts={"planned_updates": 9})
    with pytest.raises(IntegrityError, match="unequal budgets"):
        compared(profile)


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
        compared(profile)


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
    assert found.finding.caveats[0].kind == CaveatKind.not_reportable

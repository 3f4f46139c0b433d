"""The answer in a sentence: every combination of the two domains, and its caveats."""

from __future__ import annotations

import itertools

import pytest

from ccrl_cli.core.statistics import Interval, paired_trainings, sign_flip
from ccrl_cli.findings import CaveatKind
from ccrl_cli.findings.comparisons import (
    DomainComparison,
    PairwiseComparison,
    TrainingPair,
    comparison_finding,
    domains_finding,
    outcome,
    untested_finding,
)

MEANS = {"higher": 0.03, "lower": -0.03, "open": 0.001}


def comparison(kind, domain="target", *, pairs=5, starts=1, second="naive-rl", p=None):
    """Differences of a sure gain, a sure loss or neither, over so many pairs."""
    differences = [MEANS[kind] + 0.004 * (place - (pairs - 1) / 2) for place in range(pairs)]
    trainings = paired_trainings(differences, 0.003, 500)
    return PairwiseComparison(
        domain, "greedy", "curriculum", second,
        tuple(TrainingPair(seed, f"w{seed % starts}") for seed in range(pairs)), trainings,
        Interval(MEANS[kind], MEANS[kind] - 0.006, MEANS[kind] + 0.006, 0.95, 100),
        trainings.p_value if p is None else p,
    )  # fmt: skip


def said(target, source, *, pairs=5, starts=2, over=None, **options):
    sizes = {"target": 500, "source": 500, **options.pop("sizes", {})}
    given = {"reportable": True, "mode": "held-out", **options}
    found = [comparison(target, pairs=pairs, starts=starts),
             comparison(source, "source", pairs=pairs, starts=starts)]  # fmt: skip
    return comparison_finding(found, sizes, over_labeller=over, **given)


@pytest.mark.parametrize("kind", ["higher", "lower", "open"])
def test_outcomes(kind):
    assert outcome(comparison(kind)) == kind


def test_an_outcome_needs_its_p_after_holm_and_five_pairs():
    assert outcome(comparison("higher", p=0.06)) == "open"
    assert outcome(comparison("higher", pairs=4)) == "open"


def test_every_combination_has_its_own_words():
    found = {pair: said(*pair) for pair in itertools.product(MEANS, repeat=2)}
    texts = {pair: finding.text for pair, finding in found.items()}
    assert len({text.partition(":")[0] for text in texts.values()}) == 9
    assert texts["higher", "higher"].startswith("The curriculum won")
    assert texts["lower", "lower"].startswith("The curriculum lost")
    assert texts["open", "open"].startswith("It cannot be told")
    assert "neither won" in texts["higher", "lower"]
    for (target, source), text in texts.items():
        won = " won over" in text
        assert won == (target == "higher" and source != "lower")
        assert (found[target, source].tone == "good") == won
        assert ("lost" in text) == (
            "lower" in (target, source) and "higher" not in (target, source)
        )


def test_numbers_are_in_points_and_over_trainings():
    text = said("higher", "open").text
    # Differences 2.2, 2.6, 3.0, 3.4, 3.8: V = 0.4/5 + 0.3^2 = 0.17, root 0.412.
    assert "target F1 +3.0 points (95 % interval over trainings +2.1 to +3.9, p = 0.00" in text
    assert "after Holm, ahead in 5 of 5 pairs)" in text


@pytest.mark.parametrize("pairs", [1, 2, 4])
def test_below_five_pairs_nothing_is_told_however_large_the_gap(pairs):
    found = said("higher", "higher", pairs=pairs)
    counted = "one pair" if pairs == 1 else f"{pairs} pairs"
    assert found.text.startswith(
        f"Whether the curriculum beats naive RL cannot be told with {counted} of trainings:"
    )
    assert found.tone == "open"
    assert "these weights on other sentences: +2.4 to +3.6" in found.text
    assert ("pairs +" in found.text) == (pairs > 1)
    assert CaveatKind.few_pairs in {caveat.kind for caveat in found.caveats}
    assert "won" not in found.text


def test_caveats():
    assert said("open", "open").caveats == ()
    found = said(
        "open", "open", sizes={"source": 80}, reportable=False, mode="transductive"
    ).caveats
    assert [caveat.kind for caveat in found] == [
        CaveatKind.not_reportable, CaveatKind.few_sentences, CaveatKind.transductive
    ]  # fmt: skip
    assert "80 sentences" in found[1].text
    (alone,) = said("open", "open", starts=1).caveats
    assert alone.kind == CaveatKind.one_start
    assert "another warm-up" in alone.text


def test_what_training_adds_to_the_labeller_is_said():
    over = comparison("higher", second="labeller")
    assert "The curriculum adds to what the untrained labeller gives: target F1 +3.0" in said(
        "open", "open", over=over
    ).text  # fmt: skip
    over = comparison("lower", second="labeller")
    assert "The untrained labeller alone is better" in said("open", "open", over=over).text
    over = comparison("higher", second="labeller", pairs=3)
    assert "Whether the curriculum adds to what" in said("open", "open", pairs=3, over=over).text


def test_an_arm_that_did_not_run_is_no_defeat():
    found = comparison_finding([], {"target": 9, "source": 9}, reportable=True, mode="held-out")
    assert "was not tested" in found.text
    assert found.tone == "open"


def test_runs_that_cannot_be_compared_say_why():
    assert untested_finding("the budgets differ").text == (
        "Whether the curriculum beats naive RL cannot be told from these runs: the budgets differ."
    )


def over_domains(target, source):
    return [
        DomainComparison(role, "greedy", "curriculum", "naive-rl",
                         tuple(f"d{n}" for n in range(len(gaps))), sign_flip(gaps))
        for role, gaps in (("target", target), ("source", source))
    ]  # fmt: skip


def test_domains():
    up, mixed = [0.01, 0.02, 0.03, 0.01, 0.02, 0.01], [0.01, -0.02, 0.03, -0.01, 0.0, -0.01]
    found = domains_finding(over_domains(up, mixed))
    assert found.text.startswith(
        "The curriculum won over naive RL in the target domain over 6 domains; whether it forgets"
    )
    assert "p = 0.031 by sign-flip" in found.text
    assert found.tone == "good"
    few = domains_finding(over_domains(up[:4], up[:4]))
    assert "on other domains cannot be told with 4 domains: target F1 +1.8 points" in few.text
    assert "was not tested" in domains_finding([]).text

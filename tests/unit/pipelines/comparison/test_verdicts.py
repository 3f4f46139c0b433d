"""The answer in a sentence: every combination of the two domains, and its caveats."""

from __future__ import annotations

import itertools

import pytest

from ccrl_cli.core.statistics import Interval
from ccrl_cli.pipelines.comparison.verdicts import PairwiseComparison, outcome, verdict

RANGES = {"higher": (0.01, 0.05), "lower": (-0.05, -0.01), "open": (-0.01, 0.02)}


def comparison(kind, domain="target", *, seeds=(0, 1, 2), ahead=None, p=None):
    low, high = RANGES[kind]
    default = {"higher": len(seeds), "lower": 0, "open": 1}[kind]
    p = p if p is not None else (0.4 if kind == "open" else 0.01)
    return PairwiseComparison(domain, "curriculum", "naive-rl", seeds,
                Interval((low + high) / 2, low, high, 0.95, 100), p, p,
                default if ahead is None else ahead)  # fmt: skip


def said(target, source, **options):
    sizes = {"target": 500, "source": 500, **options.pop("sizes", {})}
    given = {"reportable": True, "mode": "held-out", **options}
    return verdict([comparison(target), comparison(source, "source")], sizes, **given)


@pytest.mark.parametrize("kind", ["higher", "lower", "open"])
def test_outcomes(kind):
    assert outcome(comparison(kind)) == kind


def test_an_outcome_needs_more_than_its_interval():
    assert outcome(comparison("higher", p=0.06)) == "open"  # not after Holm
    assert outcome(comparison("higher", ahead=1)) == "open"  # ahead in 1 of 3 seeds
    assert outcome(comparison("lower", ahead=2)) == "open"
    assert outcome(comparison("higher", seeds=(0,), ahead=1)) == "higher"


def test_every_combination_has_its_own_words():
    found = {pair: said(*pair)[0] for pair in itertools.product(RANGES, repeat=2)}
    assert len({text.partition(":")[0] for text in found.values()}) == 9
    assert found["higher", "higher"].startswith("The curriculum won")
    assert found["lower", "lower"].startswith("The curriculum lost")
    assert found["open", "open"].startswith("It cannot be told")
    assert "neither won" in found["higher", "lower"]
    for (target, source), text in found.items():
        won = " won over" in text
        assert won == (target == "higher" and source != "lower")
        assert ("lost" in text) == (
            "lower" in (target, source) and "higher" not in (target, source)
        )


def test_numbers_are_in_points():
    text, _ = said("higher", "open")
    assert "target F1 +3.0 points (95 % interval +1.0 to +5.0, p = 0.010 after Holm" in text
    assert "ahead in 3 of 3 seeds" in text


def test_caveats():
    assert said("open", "open")[1] == ()
    _, few = said("open", "open", sizes={"source": 80}, reportable=False, mode="transductive")
    assert [text.split()[0] for text in few] == ["Not", "Only", "Transductive:"]
    assert "80 sentences" in few[1]
    assert "proves little" in few[1]
    _, one = verdict(
        [comparison("open", seeds=(0,)), comparison("open", "source", seeds=(0,))],
        {"target": 500, "source": 500}, reportable=True, mode="held-out",
    )  # fmt: skip
    assert one[0].startswith("One seed")


def test_an_arm_that_did_not_run_is_no_defeat():
    text, _ = verdict([], {"target": 9, "source": 9}, reportable=True, mode="held-out")
    assert "was not tested" in text

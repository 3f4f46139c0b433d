"""Sentences about labels say what was shown, and that nothing was where nothing was."""

from __future__ import annotations

import pytest

from ccrl_cli.core.statistics import Interval
from ccrl_cli.findings.labels import (
    confidence_finding,
    confident_labels,
    mix_finding,
    trusted_labels,
)
from ccrl_cli.records import Score


def auroc(low, value, high):
    return Interval(value, low, high, 0.95, 1000)


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (auroc(0.6, 0.7, 0.8), "confidence ranks labels better than chance"),
        (auroc(0.2, 0.3, 0.4), "confidence misleads here"),
        (auroc(0.46, 0.51, 0.56), "confidence knows next to nothing here"),
        # 0.70 (0.39 to 0.95) is no evidence of absence.
        (auroc(0.39, 0.70, 0.95), "cannot be told with 160 inputs, 40 of them right"),
        (auroc(0.35, 0.48, 0.6), "cannot be told with 160 inputs"),
    ],
)
def test_what_confidence_is_worth(interval, words):
    told = confidence_finding(interval, 40, 160)
    assert words in told
    assert f"{interval.value:.2f} (95% interval {interval.low:.2f} to {interval.high:.2f}" in told
    assert "weak evidence" not in told


def test_few_labels_on_one_side_are_weak_evidence():
    assert confidence_finding(auroc(0.6, 0.7, 0.8), 9, 160).endswith(
        "only 9 of 160 labels are on one side"
    )
    assert "every label equals gold" in confidence_finding(None, 5, 5)
    assert "no label equals gold" in confidence_finding(None, 0, 5)


def test_the_largest_surest_set_of_an_f1():
    right, wrong = Score(1, 0, 0), Score(0, 1, 1)
    # 12 right and w wrong ones: F1 = 24 / (24 + 2w) >= 0.8 up to w = 3.
    scores = [right] * 12 + [wrong] * 8
    assert trusted_labels(scores, 0.8) == "the surest 15 labels (75%) have an F1 of at least 80%"
    assert trusted_labels([wrong] * 20, 0.5).startswith("no set of surest labels has an F1 of 50%")
    assert trusted_labels([right, None] * 10, 1.0).startswith("the surest 20 labels")


def test_confidence_alone_is_no_accuracy():
    told = confident_labels([0.9, 0.6, 0.2], 0.5, calibrated=False)
    assert told.startswith("2 of 3 labels (67%) are sure to 50% or more; that is agreement")
    told = confident_labels([0.9, 0.6, 0.2], 0.5, calibrated=True)
    assert told.endswith("about 2 of all labels are expected to be right")


def test_another_mix_is_said_with_what_is_too_much_and_too_little():
    whole = {"p": 0.3, None: 0.2, "q": 0.5}
    told = mix_finding({"p": 1.0}, whole, balanced=False)
    assert told.startswith("the labels that open first hold another mix than all, by 70% ")
    assert "(p 100% instead of 30%, q 0% instead of 50%)" in told
    assert told.endswith('curriculum.balance = "types" opens all types alike')
    assert mix_finding({"p": 1.0}, whole, balanced=True).endswith("of 50%)")
    assert "no entity 100% instead of 20%" in mix_finding({None: 1.0}, whole, balanced=True)
    assert mix_finding(whole, whole, balanced=False) is None

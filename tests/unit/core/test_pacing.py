from __future__ import annotations

import math

import pytest

from ccrl_cli.core.pacing import PACINGS, Pacing


@pytest.mark.parametrize(
    ("pacing", "t", "expected"),
    [
        # c0 = 0.25 throughout.
        ("linear", 0.0, 0.25),
        ("linear", 0.5, 0.625),  # 0.25 + 0.75 * 0.5
        # c0^2 = 0.0625; 0.0625 + 0.9375 * 0.2 = 0.25; its square root is 0.5
        ("root", 0.2, 0.5),
        ("root", 0.0, 0.25),
        # alpha = 3 below: ln(1 + 3/3) / ln 4 = ln 2 / (2 ln 2) = 0.5; 0.25 + 0.75 * 0.5
        ("log", 1 / 3, 0.625),
        ("log", 0.0, 0.25),
        ("exponential", 0.0, 0.25),
        ("exponential", 0.5, 0.5),  # the square root of 0.25
        ("constant", 0.0, 1.0),
    ],
)
def test_open_share_equals_the_formula(pacing, t, expected):
    assert Pacing(pacing, start=0.25, alpha=3.0).share(t) == pytest.approx(expected, abs=1e-15)


def test_root_uses_its_power():
    # p = 3: c0^3 = 0.125; 0.125 + 0.875 * t = 0.729 at t = 0.604 / 0.875; its cube root is 0.9
    assert Pacing("root", start=0.5, power=3.0).share(0.604 / 0.875) == pytest.approx(0.9)


def test_log_tends_to_linear_as_alpha_vanishes():
    near_zero = Pacing("log", start=0.1, alpha=1e-9).share(0.3)
    assert near_zero == pytest.approx(Pacing("linear", start=0.1).share(0.3))


def test_root_of_power_one_is_linear():
    assert Pacing("root", start=0.1, power=1.0).share(0.3) == pytest.approx(0.1 + 0.9 * 0.3)


def test_step_gives_each_share_an_equal_part_of_training():
    # Four shares over 8 steps: two steps each; t = 1 stays on the last one.
    shares = (0.1, 0.3, 0.7, 1.0)
    seen = [Pacing("step", start=0.5, shares=shares).share(step / 8) for step in range(9)]
    assert seen == [0.1, 0.1, 0.3, 0.3, 0.7, 0.7, 1.0, 1.0, 1.0]


def test_step_boundaries_survive_rounding():
    # 29/100 * 100 is 28.999999999999996 in floating point, yet step 29 begins there.
    shares = tuple(number / 100 for number in range(1, 101))
    seen = [Pacing("step", start=0.1, shares=shares).share(step / 100) for step in range(100)]
    assert seen == list(shares)


def test_step_takes_a_single_share():
    assert Pacing("step", start=0.1, shares=(1.0,)).share(0.0) == 1.0


@pytest.mark.parametrize("pacing", PACINGS)
def test_everything_is_open_at_the_end(pacing):
    for start in (0.1, 0.3, 0.7, 1e-9, 1.0):
        assert Pacing(pacing, start=start, power=3.3).share(1.0) == 1.0


def test_root_with_an_underflowing_power_still_begins_at_start():
    # 0.01 ** 200 underflows to 0.
    assert Pacing("root", start=0.01, power=200.0).share(0.0) == 0.01


@pytest.mark.parametrize(
    ("share", "total", "expected"),
    [
        (0.7, 10, 7),  # 0.7 * 10 is 7.000000000000001 in floating point
        (0.1, 3, 1),  # 0.3 rounded up
        (0.34, 3, 2),  # 1.02 rounded up
        (1e-6, 5, 1),
        (1.0, 5, 5),
    ],
)
def test_num_open_rounds_up(share, total, expected):
    assert Pacing("linear", start=share).num_open(0.0, total) == expected


def test_num_open_refuses_an_empty_order():
    with pytest.raises(ValueError, match="total is 0"):
        Pacing("linear", start=0.1).num_open(0.5, 0)


@pytest.mark.parametrize("t", [-0.01, 1.01, math.nan, math.inf])
def test_bad_progress_is_refused(t):
    with pytest.raises(ValueError, match="progress"):
        Pacing("linear", start=0.1).share(t)


@pytest.mark.parametrize("start", [0.0, -0.1, 1.1, math.nan])
def test_bad_start_is_refused(start):
    with pytest.raises(ValueError, match="start"):
        Pacing("exponential", start=start).share(0.5)


@pytest.mark.parametrize(
    "shares",
    [(), (0.5,), (0.5, 0.5, 1.0), (0.6, 0.4, 1.0), (0.0, 1.0), (-0.1, 1.0), (0.5, 1.1), (1.1, 1.0),
     (math.nan, 1.0)],
)  # fmt: skip
def test_bad_shares_are_refused(shares):
    with pytest.raises(ValueError, match="shares"):
        Pacing("step", start=0.1, shares=shares).share(0.5)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_bad_power_and_alpha_are_refused(value):
    with pytest.raises(ValueError, match="power"):
        Pacing("root", start=0.1, power=value).share(0.5)
    with pytest.raises(ValueError, match="alpha"):
        Pacing("log", start=0.1, alpha=value).share(0.5)


def test_unknown_pacing_names_the_known_ones():
    with pytest.raises(ValueError, match="'sqrt' is not one of linear, root, log"):
        Pacing("sqrt", start=0.1).share(0.5)

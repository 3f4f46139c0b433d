from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.pacing import PACINGS, num_open, open_share

starts = st.floats(1e-6, 1.0)
progress = st.floats(0.0, 1.0)
powers = st.floats(0.1, 20.0)
alphas = st.floats(1e-3, 1e6)
share_lists = st.lists(st.floats(0.01, 0.99), max_size=8, unique=True).map(
    lambda values: (*sorted(values), 1.0)
)


@given(st.sampled_from(PACINGS), progress, progress, starts, powers, alphas, share_lists)
def test_open_share_is_monotone_bounded_and_one_at_the_end(
    pacing, first, second, start, power, alpha, shares
):
    def share(t):
        return open_share(t, pacing, start=start, power=power, alpha=alpha, shares=shares)

    low, high = sorted((first, second))
    assert share(low) <= share(high) + 1e-12
    assert 0 < share(low) <= 1
    assert share(1.0) == 1.0


@given(st.sampled_from(["linear", "root", "log", "exponential"]), starts, powers, alphas)
def test_training_begins_at_the_start_share(pacing, start, power, alpha):
    begin = open_share(0.0, pacing, start=start, power=power, alpha=alpha)
    assert abs(begin - start) <= 1e-9


@given(st.sampled_from(PACINGS), starts, share_lists, st.integers(1, 200), st.integers(1, 50))
def test_num_open_never_falls_and_ends_with_everything(pacing, start, shares, total, steps):
    counts = [
        num_open(step / steps, total, pacing, start=start, shares=shares)
        for step in range(steps + 1)
    ]
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert counts[-1] == total

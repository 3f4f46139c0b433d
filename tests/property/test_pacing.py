from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.pacing import PACINGS, Pacing

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
        return Pacing(pacing, start=start, power=power, alpha=alpha, shares=shares).share(t)

    low, high = sorted((first, second))
    assert share(low) <= share(high) + 1e-12
    assert 0 < share(low) <= 1
    assert share(1.0) == 1.0


@given(st.sampled_from(["linear", "root", "log", "exponential"]), starts, powers, alphas)
def test_training_begins_at_the_start_share(pacing, start, power, alpha):
    begin = Pacing(pacing, start=start, power=power, alpha=alpha).share(0.0)
    assert abs(begin - start) <= 1e-9


@given(st.sampled_from(PACINGS), starts, share_lists, st.integers(1, 200), st.integers(1, 50))
def test_num_open_never_falls_and_ends_with_everything(pacing, start, shares, total, steps):
    counts = [
        Pacing(pacing, start=start, shares=shares).num_open(step / steps, total)
        for step in range(steps + 1)
    ]
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert counts[-1] == total

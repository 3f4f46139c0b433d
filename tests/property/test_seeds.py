import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.seeds import derive_seed, uniform_stream

LABELS = st.lists(st.one_of(st.text(max_size=4), st.integers()), max_size=4)


@given(st.integers(), st.text(max_size=4), LABELS)
def test_seed_has_63_bits_and_is_stable(run_seed, purpose, labels):
    seed = derive_seed(run_seed, purpose, *labels)
    assert 0 <= seed < 2**63
    assert seed == derive_seed(run_seed, purpose, *labels)


@given(LABELS, LABELS)
def test_distinct_labels_give_distinct_seeds(left, right):
    same = [(type(x), x) for x in left] == [(type(x), x) for x in right]
    assert (derive_seed(0, "p", *left) == derive_seed(0, "p", *right)) == same


@given(st.integers(0, 2**63 - 1), st.integers(0, 40), st.integers(0, 40))
def test_stream_is_prefix_stable(seed, m, n):
    m, n = sorted((m, n))
    np.testing.assert_array_equal(uniform_stream(seed, n)[:m], uniform_stream(seed, m))

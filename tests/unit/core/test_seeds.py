import hashlib

import numpy as np
import pytest

from ccrl_cli.core.seeds import derive_seed, uniform_stream


def test_encoding_is_spelled_out():
    content = b"i1:7" + b"s8:sampling" + b"s2:ab" + b"i1:3"
    expected = int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1
    assert derive_seed(7, "sampling", "ab", 3) == expected


def test_value_is_pinned():
    # A change here changes every stored sample: it must be a decision, not an accident.
    assert derive_seed(0, "sampling", "00ff", 1) == 2556690696296077306


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((0, "a", "bc"), (0, "ab", "c")),
        ((0, "a", "1"), (0, "a", 1)),
        ((0, "a", 12), (0, "a", 1, 2)),
        ((0, "a", ""), (0, "a")),
        ((1, "a"), (-1, "a")),
        ((0, "a", "s1:b"), (0, "a", "", "b")),
        ((0, "\ud800"), (0, "?")),
    ],
)
def test_different_arguments_give_different_seeds(left, right):
    assert derive_seed(*left) != derive_seed(*right)


def test_numpy_integers_count_as_integers():
    assert derive_seed(0, "a", np.int64(5)) == derive_seed(0, "a", 5)


def test_label_must_be_text_or_integer():
    with pytest.raises(TypeError):
        derive_seed(0, "a", 0.5)


def test_stream_is_pinned_and_in_range():
    stream = uniform_stream(12345, 2000)
    assert stream.dtype == np.float64
    assert stream.min() >= 0
    assert stream.max() < 1
    # The same words as numpy's own generator: upper 53 bits of each.
    expected = np.random.Generator(np.random.Philox(key=12345)).random(2000)
    np.testing.assert_array_equal(stream, expected)


def test_stream_is_roughly_uniform():
    counts, _ = np.histogram(uniform_stream(1, 10_000), bins=10, range=(0, 1))
    # Each count has mean 1000 and standard deviation 30: five deviations.
    assert np.all(np.abs(counts - 1000) < 150)


@pytest.mark.parametrize(("seed", "n"), [(-1, 1), (2**63, 1), (0, -1)])
def test_stream_refuses(seed, n):
    with pytest.raises(ValueError, match=str(abs(n) if n < 0 else seed)):
        uniform_stream(seed, n)

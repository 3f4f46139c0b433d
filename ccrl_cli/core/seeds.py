"""Labelled seeds: every random stream is named, and none depends on the order of the others."""

from __future__ import annotations

import hashlib
import operator

import numpy as np
from numpy.typing import NDArray

_SEED_BITS = 63


def derive_seed(run_seed: int, purpose: str, *labels: str | int) -> int:
    """Return the 63-bit seed that belongs to a run seed, a purpose and labels.

    SHA-256 over an encoding in which every part carries its kind and its length, so that
    different arguments never encode alike: ``("ab", "c")`` differs from ``("a", "bc")``, and
    ``1`` from ``"1"``. The value is the same on every platform and Python version.

    Args:
        run_seed: seed of the run, any integer.
        purpose: what the stream is for, for example ``sampling``.
        labels: what tells the streams of one purpose apart, for example input id and k.

    Returns:
        An integer in ``[0, 2**63)``.

    Raises:
        TypeError: a label is neither text nor an integer.
    """
    digest = hashlib.sha256()
    for part in (run_seed, purpose, *labels):
        if isinstance(part, str):
            kind, content = b"s", part.encode("utf-8", "surrogatepass")
        else:
            kind, content = b"i", b"%d" % operator.index(part)
        digest.update(b"%b%d:%b" % (kind, len(content), content))
    return int.from_bytes(digest.digest()[:8], "big") >> (64 - _SEED_BITS)


def uniform_stream(seed: int, n: int) -> NDArray[np.float64]:
    """Return the first n values of the uniform stream of a seed, float64 in ``[0, 1)``.

    One value a token: the token at position i is drawn by inverse CDF from value i, so a
    completion does not depend on batch, shard or the other completions. Prefix-stable: the first
    m values of ``uniform_stream(s, n)`` equal ``uniform_stream(s, m)``.

    Philox 4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") keyed with the
    seed; the upper 53 bits of each word become the fraction, spelled out here because numpy
    promises stable raw words, not stable ``Generator`` methods.

    Args:
        seed: an integer in ``[0, 2**63)``, usually from :func:`derive_seed`.
        n: how many values.

    Raises:
        ValueError: the seed is out of range, or n is negative.
    """
    if not 0 <= seed < 1 << _SEED_BITS:
        raise ValueError(f"seed {seed} is not in [0, 2**{_SEED_BITS})")
    if n < 0:
        raise ValueError(f"cannot draw {n} values")
    words = np.asarray(np.random.Philox(key=seed).random_raw(n), dtype=np.uint64)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

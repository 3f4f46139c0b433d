"""Seeds of the libraries that draw from global generators."""

from __future__ import annotations


def seed_libraries(seed: int) -> None:
    """Seed python, numpy and torch, on all devices."""
    from transformers import set_seed

    set_seed(seed)

"""The table of rounds, as train and run print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ccrl_cli.cli.output import format_table

_COLUMNS: Mapping[str, str] = {
    "agreement": "labels as before %",
    "changed_share": "changed %",
    "held_out_agreement": "held-out %",
    "oracle_label_f1": "label F1 %",
    "target_f1": "target F1 %",
    "source_f1": "source F1 %",
}
"""Fact of a round -> its column; those that no round has are left out."""


def round_table(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return one row a round: updates, agreement of labels, and scores where gold is there."""
    shown = [name for name in _COLUMNS if any(item.get(name) is not None for item in rounds)]
    rows = [
        [
            item["round"],
            item["steps"],
            *("-" if item.get(n) is None else f"{100 * item[n]:.1f}" for n in shown),
        ]
        for item in rounds
    ]
    return format_table(["round", "steps", *(_COLUMNS[name] for name in shown)], rows)

"""The folder of a round: its profile, and the labels that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.errors import PreconditionError
from ccrl_cli.generators.registry import SERVERS
from ccrl_cli.pipelines.common.weights import warmup_path
from ccrl_cli.pipelines.training.outcome import ROUNDS
from ccrl_cli.records import Entity, PseudoLabel
from ccrl_cli.store.atomic import write_json_lines
from ccrl_cli.store.jsonl import JsonlReader

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.pipelines.labelling.labels import LabelSet

LABELS_FILE = "labels.jsonl"
"""Labels that a round was trained on, in its folder."""


def round_path(profile: Profile, number: int) -> Path:
    """Return the folder of a round."""
    return profile.run_path / ROUNDS / str(number)


def round_profile(profile: Profile, number: int, steps: Sequence[int]) -> Profile:
    """Return the profile of one round, derived from that of the run.

    Args:
        profile: the run's.
        number: from 1.
        steps: optimiser steps of each round.
    """
    warmup = profile.warmup
    folder = warmup.folder or (str(warmup_path(profile)) if warmup.enabled else None)
    changes: dict[str, Any] = {
        "run.dir": str(profile.run_path / ROUNDS),
        "run.name": str(number),
        "warmup.folder": folder,
        "curriculum.round": number,
        "training.max_steps": steps[number - 1],
        "generation.store": str(profile.store_path),
    }
    if number > 1:
        later = profile.training.replay_share_later
        served = profile.generation.backend in SERVERS
        changes |= {
            # Other samples, type orders and draws than in the round before.
            "run.seed": derive_seed(profile.run.seed, "round", number) % 2**31,
            "model.trained_adapter": str(round_path(profile, number - 1) / "adapter"),
            "generation.store": None,
            "generation.models": (),
            "generation.backend": "auto" if served else profile.generation.backend,
            "confidence.models": (),
            "training.replay_share": profile.training.replay_share if later is None else later,
        }
    return profile.with_values(changes)


def write_labels(folder: Path, labels: LabelSet) -> None:
    """Write the labels that a round is trained on, one line an input."""
    rows = (
        {
            "input_id": key,
            "label": [{"text": entity.text, "type": entity.type} for entity in label.entities],
            "confidence": label.confidence,
        }
        for key, label in labels.labels.items()
    )
    write_json_lines(folder / LABELS_FILE, rows)


def read_labels(folder: Path) -> dict[str, PseudoLabel]:
    """Return the labels that a round was trained on, by input id."""
    found = {}
    for _, row in JsonlReader(folder / LABELS_FILE).objects():
        entities = tuple(Entity(item["text"], item["type"]) for item in row["label"])
        found[row["input_id"]] = PseudoLabel(
            row["input_id"], entities, float(row["confidence"]), "stored", "stored", 0
        )
    return found


def round_of(profile: Profile, number: int) -> Profile:
    """Return the profile of a round that was begun.

    Raises:
        PreconditionError: the run has no such round.
    """
    place = round_path(profile, number) / "profile.toml"
    if not place.is_file():
        raise PreconditionError(
            f"{profile.run_path} has no round {number}",
            hint="`ccrl train` makes as many as curriculum.rounds says; --resume goes on with them",
        )
    return load_profile(str(place)).profile

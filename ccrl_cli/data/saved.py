"""Data sets on disk as ``save_to_disk`` of the ``datasets`` package leaves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ccrl_cli.data.readers import ReadResult, assemble, read_stored
from ccrl_cli.data.rows import read_arrow
from ccrl_cli.data.shapes import TAG_FIELDS
from ccrl_cli.errors import DataError

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_VALIDATION = {"dev": "validation", "valid": "validation"}


def is_saved(folder: Path) -> bool:
    """Return whether a folder is one data set, or a dictionary of splits, saved to disk."""
    return folder.joinpath(_DICT).is_file() or folder.joinpath(_STATE).is_file()


def saved_splits(folder: Path) -> tuple[str, ...]:
    """Return the splits of a saved data set, as they are asked for; one without is all of them."""
    if folder.joinpath(_STATE).is_file():
        return ("train", "dev", "test")
    names = tuple(map(str, _json(folder / _DICT).get("splits") or ()))
    return (*names, "dev") if "validation" in names and "dev" not in names else names


def read_saved(
    folder: Path, split: str, labels: Sequence[str] | None = None
) -> tuple[str, ReadResult]:
    """Return the name of a split's folder and its sentences.

    Args:
        folder: see `is_saved`.
        split: ``train``, ``dev``, ``test``, or a name of the data set's own.
        labels: tag of each integer, where the data set does not name them itself.

    Raises:
        DataError: the split does not exist, or its files are damaged.
        PreconditionError: pyarrow or a file is missing.
    """
    place = folder
    if not folder.joinpath(_STATE).is_file():
        splits = saved_splits(folder)
        if split not in splits:
            raise DataError(f"{folder} has no split {split!r}", hint=f"it has: {', '.join(splits)}")
        wanted = split if folder.joinpath(split).is_dir() else _VALIDATION.get(split, split)
        place = folder / wanted
    state = _json(place / _STATE)
    files = [place / str(item["filename"]) for item in state.get("_data_files") or ()]
    stored = [(str(file), read_stored(file)) for file in files]
    names = labels or _tag_names(_json(place / _INFO))
    digest = hashlib.sha256()
    for _, content in stored:
        digest.update(content)
    result = assemble(read_arrow(stored, names), sha256=digest.hexdigest())
    return place.name, result


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_stored(path))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read ({error})", hint="save the data set again"
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"{path} is no JSON object", hint="save the data set again")
    return value


def _tag_names(info: dict[str, Any]) -> list[str] | None:
    """Return the names of integer tags (``ClassLabel``), or None."""
    features = info.get("features")
    for field in TAG_FIELDS:
        try:
            return list(features[field]["feature"]["names"])  # type: ignore[index]
        except (KeyError, TypeError):
            continue
    return None

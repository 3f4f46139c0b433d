"""Data sets of the Hugging Face hub, through the ``datasets`` package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ccrl_cli.data.examples import Row
from ccrl_cli.data.shapes import TAG_FIELDS, row_from_fields
from ccrl_cli.errors import DataError, PreconditionError

_REFERENCE = re.compile(r"([\w.\-]+(?:/[\w.\-]+)?)(?::([^@:]+))?(?:@(.+))?")
_VALIDATION = {"dev": "validation", "valid": "validation"}


def hub_rows(reference: str, split: str, labels: Sequence[str] | None = None) -> Iterator[Row]:
    """Yield the sentences of one split of a hub data set.

    Args:
        reference: ``ID``, ``ID:CONFIG``, or either with ``@REVISION``.
        split: the split's name on the hub; ``dev`` and ``valid`` also stand for ``validation``.
        labels: tag of each integer, where the data set does not name them itself.

    Raises:
        DataError: the reference is malformed, or the split or its fields are not what is needed.
        PreconditionError: ``datasets`` is not installed, or the set is neither in the cache nor
            reachable.
    """
    dataset = _load(reference, split)
    names = _tag_names(dataset.features) or labels
    for number, fields in enumerate(dataset, start=1):
        yield row_from_fields(fields, f"hub:{reference} {split}: row {number}", names)


def fetch(reference: str, split: str) -> int:
    """Bring all splits of a hub data set into the cache of its library.

    Args:
        reference: see `hub_rows`.
        split: a split that must be there.

    Returns:
        The number of rows of that split.

    Raises:
        DataError: the reference is malformed, or the split does not exist.
        PreconditionError: see `hub_rows`.
    """
    return len(_load(reference, split))


def _load(reference: str, split: str) -> Any:
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise DataError(
            f"hub:{reference} does not name a data set of the hub",
            hint="write hub:OWNER/NAME, with :CONFIG and @REVISION if needed",
        )
    try:
        import datasets
    except ImportError:
        raise PreconditionError(
            f"reading hub:{reference} needs the datasets package, which is not installed",
            hint='pip install "ccrl[train]"',
        ) from None
    identifier, config, revision = match.groups()
    try:
        # One request for all splits, so that a missing split is told apart from a missing set.
        splits = datasets.load_dataset(identifier, config, revision=revision)
    except (ConnectionError, OSError) as error:  # not found, offline, no access
        raise PreconditionError(
            f"hub:{reference} is neither in the cache nor reachable ({_first_line(error)})",
            hint="check the name and the connection, then run: ccrl download",
        ) from None
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"hub:{reference} cannot be loaded ({_first_line(error)})",
            hint="name a configuration with hub:OWNER/NAME:CONFIG, or read a local file",
        ) from None
    for name in (split, _VALIDATION.get(split)):
        if name in splits:
            return splits[name]
    raise DataError(
        f"hub:{reference} has no split {split!r}",
        hint=f"it has: {', '.join(splits)}; choose with splits = {{{split} = '...'}}",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _tag_names(features: Any) -> list[str] | None:
    """Return the names of integer tags (``ClassLabel``), or None if there are none."""
    for field in TAG_FIELDS:
        names = getattr(getattr(features.get(field), "feature", None), "names", None)
        if names:
            return list(names)
    return None

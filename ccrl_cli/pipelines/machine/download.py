"""Download what profiles need: models, and data sets of the hub; sizes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from ccrl_cli.errors import PreconditionError

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

Kind = Literal["model", "data"]
Status = Literal["present", "owed", "downloaded", "failed"]

_NAMES_ALONE = ("ollama", "openai", "mock")  # backends that load no model from this disk


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a profile reads.

    Attributes:
        split: for data, a split that must be there.
    """

    kind: Kind
    reference: str
    split: str = "train"


@dataclass(frozen=True, slots=True)
class Item:
    """What became of a need.

    Attributes:
        total_bytes: size of the download; None if it is not known beforehand.
        missing_bytes: the part of it that is not here; None if it is not known.
        folder: where a model lies, if it is here.
        problem: why it failed.
        hint: what to do about it.
    """

    kind: Kind
    reference: str
    status: Status
    total_bytes: int | None = None
    missing_bytes: int | None = None
    folder: str | None = None
    problem: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """All items, in the order they were asked for.

    Attributes:
        dry_run: nothing was downloaded, by wish.
    """

    items: tuple[Item, ...]
    dry_run: bool

    def count(self, status: Status) -> int:
        """Return how many items have a status."""
        return sum(item.status == status for item in self.items)


def profile_needs(profile: Profile) -> tuple[Need, ...]:
    """Return the models of a profile and its data sets that lie on the hub, each once."""
    models = [profile.model.name]
    if profile.generation.backend not in _NAMES_ALONE:
        models += profile.generation_models
    domains = (profile.data.source, profile.data.target)
    sets = [Need("data", d.reference, d.train_split.partition("+")[0]) for d in domains]
    sets += [Need("data", name) for name in profile.warmup.sets]
    needs = [Need("model", name) for name in models]
    needs += [need for need in sets if need.reference.startswith("hub:")]
    return tuple(dict.fromkeys(needs))


def all_needs() -> tuple[Need, ...]:
    """Return what the profiles that come with ccrl need together, each once."""
    from ccrl_cli.config.load import load_profile, shipped_profiles

    profiles = (load_profile(name).profile for name in shipped_profiles())
    return tuple(dict.fromkeys(need for profile in profiles for need in profile_needs(profile)))


def download(
    needs: Sequence[Need],
    *,
    reporter: Reporter,
    dry_run: bool = False,
    offline: bool = False,
) -> DownloadResult:
    """Bring everything into the caches, after all sizes have been found out.

    What fails does not keep the others from being downloaded.

    Args:
        needs: what is wanted.
        reporter: where messages and progress go.
        dry_run: find out sizes alone.
        offline: check what is here, without any network.

    Raises:
        UsageError: a model reference has no known form.
        PreconditionError: something is missing: it cannot be reached, access is not granted, or
            it is not here and `offline` holds; all of it is named.
        IntegrityError: a download differs from its checksum.
    """
    from ccrl_cli.models.cache import format_bytes
    from ccrl_cli.models.references import parse_reference

    for need in needs:
        if need.kind == "model":
            parse_reference(need.reference)
    items = [_attempt(need, partial(_plan, need, offline)) for need in needs]
    if offline:
        items = [_absent(item) if item.status == "owed" else item for item in items]
    for item in items:
        reporter.info(_line(item))
    owed = [item for item in items if item.status == "owed"]
    if len(owed) > 1:
        total = sum(_owed_bytes(item) or 0 for item in owed)
        reporter.info(f"{len(owed)} downloads, {format_bytes(total)} together")
    if not dry_run and not offline:
        items = [
            item
            if item.status == "failed"
            else _attempt(need, partial(_fetch, need, item, reporter))
            for need, item in zip(needs, items, strict=True)
        ]
    _refuse_failures(items)
    return DownloadResult(tuple(items), dry_run)


def _attempt(need: Need, step: Callable[[], Item]) -> Item:
    """Do one step; a missing precondition becomes part of the item."""
    try:
        return step()
    except PreconditionError as error:
        return Item(need.kind, need.reference, "failed", problem=error.message, hint=error.hint)


def _absent(item: Item) -> Item:
    return replace(
        item,
        status="failed",
        problem=f"{item.reference} is not on this machine",
        hint=f"with a connection, run: ccrl download {item.reference}",
    )


def _refuse_failures(items: Sequence[Item]) -> None:
    """Raise one error for all failures."""
    failed = [item for item in items if item.status == "failed"]
    if not failed:
        return
    message = failed[0].problem or failed[0].reference
    if len(items) > 1:
        names = ", ".join(item.reference for item in failed)
        message = f"{len(failed)} of {len(items)} are missing: {names} ({message})"
    raise PreconditionError(message, hint=failed[0].hint)


def _owed_bytes(item: Item) -> int | None:
    return item.total_bytes if item.missing_bytes is None else item.missing_bytes


def _line(item: Item) -> str:
    """Return what is owed for an item, for a reader."""
    from ccrl_cli.models.cache import format_bytes

    if item.status == "failed":
        return f"{item.reference}: {item.problem}"
    if item.status == "present":
        return f"{item.reference}: here"
    missing = _owed_bytes(item)
    if missing is None or item.total_bytes is None:
        return f"{item.reference}: to download, size unknown"
    of = "" if missing == item.total_bytes else f" of {format_bytes(item.total_bytes)}"
    return f"{item.reference}: {format_bytes(missing)}{of} to download"


def _plan(need: Need, offline: bool) -> Item:
    if need.kind == "model":
        from ccrl_cli.models.download import plan_model

        plan = plan_model(need.reference, offline=offline)
        return Item(
            need.kind,
            need.reference,
            "present" if plan.present else "owed",
            plan.total_bytes,
            plan.missing_bytes,
            None if plan.folder is None else str(plan.folder),
        )
    if offline:
        _read(need, offline=True)
        return Item(need.kind, need.reference, "present")
    from ccrl_cli.models.hub import plan_dataset

    name, revision = _dataset_name(need.reference)
    sizes = plan_dataset(name, revision)
    return Item(need.kind, need.reference, "owed", sizes.total_bytes)


def _fetch(need: Need, item: Item, reporter: Reporter) -> Item:
    if need.kind == "data":
        with reporter.progress(1, f"downloading {need.reference}", "data sets") as piece:
            _read(need, offline=False)
            piece.advance()
        return replace(item, status="downloaded", missing_bytes=0)
    from ccrl_cli.models.download import ensure_model

    folder = ensure_model(item.reference, reporter=reporter, refresh=True)
    status: Status = "present" if item.status == "present" else "downloaded"
    return replace(item, status=status, missing_bytes=0, folder=str(folder))


def _read(need: Need, *, offline: bool) -> None:
    from ccrl_cli.data.hub import fetch
    from ccrl_cli.models.hub import staying_offline

    with staying_offline(offline):
        fetch(need.reference.removeprefix("hub:"), need.split)


def _dataset_name(reference: str) -> tuple[str, str | None]:
    """Return identifier and revision of ``hub:ID[:CONFIG][@REVISION]``."""
    name, _, revision = reference.removeprefix("hub:").partition("@")
    return name.partition(":")[0], revision or None

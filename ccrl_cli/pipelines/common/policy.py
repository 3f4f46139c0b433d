"""The weights that answer: a trained adapter on its base, or the starting policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccrl_cli.pipelines.common.start import Start, base_start, starting_policy

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter


NO_ADAPTER = "none"
"""What names the starting policy: some shells drop an empty argument."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A model folder, the adapter on it, and what to call them.

    Attributes:
        folder: model folder.
        adapter: adapter folder, or None for the model alone.
        trained: whether the adapter is the run's own, from ``ccrl train``.
    """

    folder: Path
    adapter: Path | None
    trained: bool


def run_adapter(profile: Profile) -> Path | None:
    """Return the adapter that ``ccrl train`` left in the run directory, or None."""
    folder = profile.run_path / "adapter"
    return folder if (folder / "adapter_config.json").is_file() else None


def find_policy(profile: Profile, adapter: str | None, reporter: Reporter) -> Policy:
    """Return a named adapter on the profile's model, else the run's adapter, else the start.

    Args:
        profile: the profile.
        adapter: folder or ``builtin:NAME``; ``none`` or empty: the starting policy; None: the
            run's adapter where there is one.
        reporter: told of downloads.

    Raises:
        PreconditionError: the adapter, the model, a package or the warm-up is missing.
    """
    from ccrl_cli.models.loading import resolve_adapter

    if adapter == NO_ADAPTER:
        adapter = ""
    if adapter:
        named = resolve_adapter(adapter)
        return Policy(_base(profile, reporter).folder, named, trained=False)
    own = run_adapter(profile) if adapter is None else None
    if own is not None:
        return Policy(_base(profile, reporter).folder, own, trained=True)
    start = starting_policy(profile, profile.model.name, reporter)
    return Policy(start.folder, start.adapter, trained=False)


def _base(profile: Profile, reporter: Reporter) -> Start:
    """Return the model that adapters of this run stand on: warmed up where all weights were."""
    if profile.warmup.enabled and profile.warmup.method == "full":
        return starting_policy(profile, profile.model.name, reporter)
    return base_start(profile, profile.model.name, reporter)

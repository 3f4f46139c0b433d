"""Models and data sets of the Hugging Face hub: what they need, and what is here already."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ccrl_cli.errors import CcrlError, IntegrityError, PreconditionError
from ccrl_cli.models.cache import check_free_space
from ccrl_cli.models.packages import file_sha256
from ccrl_cli.models.resume import fetch_large
from ccrl_cli.models.watch import watch_growth
from ccrl_cli.reporting import Reporter

RepositoryKind = Literal["model", "dataset"]

_OTHER_SUFFIXES = (".json", ".model", ".txt", ".jinja", ".tiktoken")
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository.

    Attributes:
        sha256: checksum of the content, for files that the hub keeps in large-file storage.
        cached: whether this very version lies in the local cache, as long as the hub states.
    """

    name: str
    size_bytes: int
    sha256: str | None
    cached: bool


@dataclass(frozen=True, slots=True)
class HubPlan:
    """The files of one revision of a repository that are needed.

    Attributes:
        commit: the commit that the revision stands for now.
    """

    name: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def total_bytes(self) -> int:
        """Size of all needed files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def missing_bytes(self) -> int:
        """Size of the files that are not in the cache."""
        return sum(file.size_bytes for file in self.files if not file.cached)


def select_model_files(names: Sequence[str]) -> list[str]:
    """Return the files of a model repository that loading it needs.

    The weights as safetensors, the older format only where there are none; configuration and
    tokenizer files. Subfolders hold other formats of the same weights and are left out, and so is
    a second, consolidated copy of the weights.
    """
    top = [name for name in names if "/" not in name]
    safe = [name for name in top if name.endswith(".safetensors")]
    weights = [name for name in safe if name.startswith("model")] or safe
    if not weights:
        weights = [n for n in top if n.startswith("pytorch_model") and n.endswith(".bin")]
    indices = {"model.safetensors.index.json", "pytorch_model.bin.index.json"}
    wanted = "model." if safe else "pytorch_model."
    others = [
        name
        for name in top
        if name.endswith(_OTHER_SUFFIXES)
        and (name not in indices or name.startswith(wanted))
        and not name.casefold().startswith("readme")
    ]
    return sorted({*weights, *others})


def plan_model(name: str, revision: str | None) -> HubPlan:
    """Ask the hub which files a model needs and how large they are.

    Raises:
        PreconditionError: the hub is not reachable, the model does not exist or is gated, or it
            has no weights that can be loaded.
    """
    plan = _plan(name, revision, "model", select_model_files)
    if not any(file.name.endswith((".safetensors", ".bin")) for file in plan.files):
        raise PreconditionError(
            f"{name} holds no safetensors weights",
            hint="choose the repository of the original model; a GGUF file of the hub is "
            "downloaded with `hf download` and named by its path",
        )
    return plan


def plan_dataset(name: str, revision: str | None) -> HubPlan:
    """Ask the hub how large a data set is.

    Raises:
        PreconditionError: the hub is not reachable, or the data set does not exist or is gated.
    """
    return _plan(name, revision, "dataset", list)


def download_model(plan: HubPlan, revision: str | None, reporter: Reporter) -> Path:
    """Bring the missing files of a model into the hub's cache; an interrupted download goes on.

    Returns:
        The folder of the snapshot.

    Raises:
        PreconditionError: the hub stopped answering, or the disk is too small.
        IntegrityError: a new file differs from the checksum that the hub states; it is removed.
    """
    from huggingface_hub import constants, snapshot_download

    cache = Path(constants.HF_HUB_CACHE)
    check_free_space(cache, plan.missing_bytes, plan.name)
    wanted = [file.name for file in plan.files]
    storage = cache / f"models--{plan.name.replace('/', '--')}"
    with (
        _hub_errors(plan.name, "model"),
        _without_bars(),
        watch_growth(storage, plan.missing_bytes, f"downloading {plan.name}", reporter),
    ):
        for file in plan.files:
            _remove_cut(storage / "snapshots" / plan.commit / file.name, file)
        checked = {file.name for file in plan.files if _fetch_part(plan, file, storage, reporter)}
        # By the name of the revision, so that the cache knows it offline too.
        folder = Path(
            snapshot_download(plan.name, revision=revision, allow_patterns=_escaped(wanted))
        )
    for file in plan.files:
        path = folder / file.name
        owed = file.sha256 and not file.cached and file.name not in checked
        if owed and file_sha256(path) != file.sha256:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
            raise IntegrityError(
                f"{file.name} of {plan.name} differs from the checksum that the hub states",
                hint=f"it was removed; download it again: ccrl download {plan.name}",
            )
    return folder


def _remove_cut(path: Path, file: HubFile) -> None:
    """Remove a copy that is no longer, or not yet, of the size that the hub states."""
    if not file.cached and path.exists():
        path.resolve().unlink()
        path.unlink(missing_ok=True)


def _fetch_part(plan: HubPlan, file: HubFile, storage: Path, reporter: Reporter) -> bool:
    """Fetch a large file so that it can be gone on with; False leaves it to the library."""
    if file.cached or not file.sha256:
        return False
    return fetch_large(
        storage,
        plan.name,
        file.name,
        commit=plan.commit,
        sha256=file.sha256,
        size=file.size_bytes,
        reporter=reporter,
    )


def cached_snapshot(name: str, revision: str | None) -> Path | None:
    """Return the folder of a complete model in the hub's cache, or None.

    A file whose size is not the one that the hub stated when it was downloaded counts as missing.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=["config.json"], local_files_only=True
        )
    except (OSError, HFValidationError):
        return None
    folder = Path(found)
    return None if missing_files(folder) or _has_cut_files(folder) else folder


def _has_cut_files(folder: Path) -> bool:
    """Return whether a file of a snapshot is not as long as the library's list of files says."""
    try:
        from huggingface_hub._tree_cache import read_tree_cache
    except ImportError:  # an older library keeps no such list
        return False
    stated = read_tree_cache(str(folder.parent.parent), folder.name) or {}
    return any(
        (folder / name).is_file() and (folder / name).stat().st_size != entry.size
        for name, entry in stated.items()
    )


def fetch_config(name: str, revision: str | None) -> Path:
    """Return the ``config.json`` of a model: from the cache, or fetched without its weights.

    Raises:
        PreconditionError: it is not here, and the hub cannot be asked or does not give it.
    """
    from huggingface_hub import hf_hub_download

    with _hub_errors(name, "model"), _without_bars():
        return Path(hf_hub_download(name, "config.json", revision=revision))


def missing_files(folder: Path) -> list[str]:
    """Return what a model folder lacks: its configuration, weights, or parts of them."""
    absent = []
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        absent.append("config.json")
    for name in _INDEX_FILES:
        if (folder / name).is_file():
            parts = _parts_of(folder / name)
            if parts is None:
                return [*absent, f"{name} (unreadable)"]
            return absent + [part for part in parts if not (folder / part).is_file()]
    if not any((folder / name).is_file() for name in _WEIGHT_FILES):
        absent.append(_WEIGHT_FILES[0])
    return absent


def is_offline() -> bool:
    """Return whether the hub's library was told to stay off the network (``HF_HUB_OFFLINE``)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@contextmanager
def staying_offline(wanted: bool = True) -> Iterator[None]:
    """Keep the hub's libraries off the network while the block runs, as HF_HUB_OFFLINE does."""
    from huggingface_hub import constants

    switches: list[tuple[Any, str]] = [(constants, "HF_HUB_OFFLINE")]
    if find_spec("datasets") is not None:
        switches.append((import_module("datasets.config"), "HF_HUB_OFFLINE"))
    before = [getattr(module, name) for module, name in switches]
    for module, name in switches if wanted else ():
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


def _parts_of(index: Path) -> list[str] | None:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError):
        return None


def _plan(
    name: str,
    revision: str | None,
    kind: RepositoryKind,
    select: Callable[[list[str]], list[str]],
) -> HubPlan:
    from huggingface_hub import HfApi, try_to_load_from_cache

    with _hub_errors(name, kind):
        api = HfApi()
        ask = api.model_info if kind == "model" else api.dataset_info
        info = ask(name, revision=revision, files_metadata=True)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    commit = info.sha or ""
    files = tuple(
        HubFile(
            name=path,
            size_bytes=siblings[path].size or 0,
            sha256=getattr(siblings[path].lfs, "sha256", None),
            cached=_is_whole(
                try_to_load_from_cache(name, path, revision=commit, repo_type=kind),
                siblings[path].size,
            ),
        )
        for path in select(list(siblings))
    )
    return HubPlan(name, commit, files)


def _is_whole(path: Any, size: int | None) -> bool:
    """Return whether a file that the library has found has the size that the hub states."""
    return isinstance(path, str) and (size is None or Path(path).stat().st_size == size)


@contextmanager
def _hub_errors(name: str, kind: RepositoryKind) -> Iterator[None]:
    """Say in our words why the hub does not give something."""
    try:
        yield
    except CcrlError:
        raise
    except (OSError, ValueError) as error:
        raise _explained(error, name, kind) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpcore", "hf_xet"):
            raise
        raise _explained(error, name, kind) from error


def _explained(error: Exception, name: str, kind: RepositoryKind) -> PreconditionError:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return PreconditionError(
            f"access to the {kind} {name} must be granted first",
            hint=f"ask for access at {page}, log in with `hf auth login`, and repeat",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return PreconditionError(
            f"the {kind} {name} has no such revision", hint=f"see {page}/commits/main"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return PreconditionError(
            f"the {kind} {name} does not exist on the hub, or is private",
            hint=f"check the name at {page}; for a private one log in with `hf auth login`",
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return PreconditionError(
        f"the {kind} {name} cannot be downloaded: {reason}",
        hint="check the connection and repeat the command: the download goes on; "
        "models that are here already work with --offline",
    )


@contextmanager
def _without_bars() -> Iterator[None]:
    """Switch off the progress bars of the hub's library: ours shows the same bytes."""
    utils: Any = import_module("huggingface_hub.utils")
    before = utils.are_progress_bars_disabled()
    if not before:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            utils.enable_progress_bars()


def _escaped(names: Sequence[str]) -> list[str]:
    """Return file names as patterns that match nothing else."""
    return [glob.escape(name) for name in names]

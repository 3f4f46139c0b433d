"""Models to use elsewhere: an adapter merged into its base, or an adapter folder of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.models.hub import is_offline
from ccrl_cli.models.loading import free_memory, load_model, load_tokenizer
from ccrl_cli.models.modes import open_weights
from ccrl_cli.models.weights import LoadOptions, Weights

_LEGAL = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise if a folder is not to be replaced by an export.

    Raises:
        UsageError: it exists and `overwrite` is off, or it is no export.
    """
    if not target.exists():
        return
    if not overwrite:
        raise UsageError(
            f"{target} exists", hint="give --overwrite to replace it, or --output FOLDER"
        )
    if not target.is_dir() or not (
        (target / "config.json").is_file() or (target / _ADAPTER_FILES[0]).is_file()
    ):
        raise UsageError(
            f"{target} is no model folder, so it is not replaced", hint="name another --output"
        )


def base_dtype(folder: Path) -> str:
    """Return the number format in which a model folder states its weights."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stated = config.get("dtype") or config.get("torch_dtype") or "float32"
    return stated if stated in ("bfloat16", "float16", "float32") else "float32"


def write_merged(folder: Path, adapter: Path | None, target: Path, *, dtype: str) -> int:
    """Write a model with its adapter merged into the weights; return the parameters' number.

    The sum is computed in float32 and rounded once, so an adapter that was trained on 16-bit
    weights loses nothing but that rounding.

    Args:
        folder: base model folder.
        adapter: adapter folder; None writes the base again.
        target: empty folder to write into.
        dtype: number format of the written weights.
    """
    import torch

    loaded = load_model(Weights(folder, adapter), LoadOptions("float32"))
    model = loaded.model.to(getattr(torch, dtype))
    model.save_pretrained(str(target))
    open_weights(target)
    loaded.tokenizer.save_pretrained(str(target))
    _copy_legal(folder, target)
    count = sum(int(parameter.numel()) for parameter in model.parameters())
    del loaded, model
    free_memory()
    return count


def write_adapter(adapter: Path, folder: Path, target: Path) -> int:
    """Write an adapter in PEFT format with the tokenizer of its base; return its parameters.

    Args:
        adapter: adapter folder.
        folder: base model folder.
        target: empty folder to write into.
    """
    from safetensors import safe_open

    for name in _ADAPTER_FILES:
        if not (adapter / name).is_file():
            raise PreconditionError(
                f"the adapter at {adapter} lacks {name}", hint="make it again with `ccrl train`"
            )
        shutil.copyfile(adapter / name, target / name)
    load_tokenizer(folder).save_pretrained(str(target))
    _copy_legal(folder, target)
    count = 0
    with safe_open(str(target / _ADAPTER_FILES[1]), framework="numpy") as weights:
        for name in weights.keys():  # noqa: SIM118 (no mapping)
            size = 1
            for length in weights.get_slice(name).get_shape():
                size *= length
            count += size
    return count


def adapter_config(adapter: Path) -> dict[str, Any]:
    """Return an adapter's configuration."""
    content = json.loads((adapter / _ADAPTER_FILES[0]).read_text(encoding="utf-8"))
    return dict(content)


def folder_bytes(folder: Path) -> int:
    """Return the size of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def push_folder(folder: Path, name: str, *, private: bool) -> str:
    """Upload a folder as a model repository of the hub; return its address.

    Raises:
        UsageError: the name is not ORG/NAME.
        PreconditionError: the hub cannot be reached, or does not let this user write there.
    """
    from huggingface_hub import HfApi

    check_push(name)
    try:
        api = HfApi()
        api.create_repo(name, repo_type="model", private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=name, folder_path=str(folder), commit_message="Upload from ccrl export"
        )
    except Exception as error:
        raise _explained(error, name, folder) from error
    return str(getattr(done, "repo_url", None) or f"https://huggingface.co/{name}")


def check_push(name: str) -> None:
    """Raise before any work when a push cannot succeed: a bad name, or the hub switched off."""
    organisation, _, rest = name.partition("/")
    if not organisation or not rest or "/" in rest or any(c.isspace() or c == ":" for c in name):
        raise UsageError(
            f"--push {name!r} is not ORG/NAME", hint="for example --push my-name/my-model"
        )
    if is_offline():
        raise PreconditionError(
            "the hub cannot be pushed to: HF_HUB_OFFLINE is set",
            hint="unset it, or leave --push out and upload the folder later",
        )


def _copy_legal(folder: Path, target: Path) -> None:
    """Copy licence files along: what is derived stays under them."""
    for name in _LEGAL:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)


def _explained(error: Exception, name: str, folder: Path) -> Exception:
    """Return a failed upload in our words; anything that is no failure of the hub as it is."""
    home = type(error).__module__.partition(".")[0]
    if home not in ("huggingface_hub", "httpx", "httpcore", "hf_xet") and not isinstance(
        error, OSError
    ):
        return error
    status = getattr(getattr(error, "response", None), "status_code", None)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    kept = f"the export itself is finished: {folder}"
    if status in (401, 403) or type(error).__name__ == "LocalTokenNotFoundError":
        return PreconditionError(
            f"the hub does not let you write to {name}",
            hint=f"log in with `hf auth login` and a token that may write; {kept}",
        )
    return PreconditionError(
        f"{name} cannot be pushed: {reason}",
        hint=f"check the connection and push again with `hf upload {name} {folder}`; {kept}",
    )

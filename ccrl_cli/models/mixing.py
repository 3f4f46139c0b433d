"""Adapters mixed in weight space: a mean of several, or one drawn back towards the start."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.errors import UsageError
from ccrl_cli.files import replacing_folder

if TYPE_CHECKING:
    import torch

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def mix_adapters(parts: Sequence[tuple[Path | None, float]], target: Path) -> None:
    """Write one LoRA adapter whose change of the weights is the weighted sum of others'.

    The sum is exact: factors are stacked, so ranks add up, and scales go into B. It is that of
    model soups (2203.05482) with equal weights, and of WiSE-FT (2109.01903) with a start and a
    trained adapter. Written whole or not at all.

    Args:
        parts: adapter folders in PEFT format on one base, each with its weight; None is the base
            without an adapter, which changes nothing.
        target: folder to write; an older adapter there is replaced.

    Raises:
        HeldError: another program holds the target.
        UsageError: the adapters change other layers.
        ValueError: no part is an adapter.
    """
    from safetensors.torch import save_file

    found = [(folder, weight) for folder, weight in parts if folder is not None]
    if not found:
        raise ValueError("no adapter among the parts")
    with replacing_folder(target) as fresh:
        shutil.copytree(found[0][0], fresh, dirs_exist_ok=True)
        if len(found) > 1 or found[0][1] != 1.0:
            weights, rank = _stacked(found)
            save_file(weights, str(fresh / WEIGHTS), metadata={"format": "pt"})
            config = _config(found[0][0])
            config.update(r=rank, lora_alpha=rank, use_rslora=False)
            text = json.dumps(config, indent=2, sort_keys=True) + "\n"
            (fresh / CONFIG).write_text(text, encoding="utf-8")


def _stacked(parts: Sequence[tuple[Path, float]]) -> tuple[dict[str, torch.Tensor], int]:
    """Return the factors of the sum, at scale 1, and their rank."""
    import torch
    from safetensors.torch import load_file

    loaded = [(load_file(str(folder / WEIGHTS)), folder, weight) for folder, weight in parts]
    names = set(loaded[0][0])
    for tensors, folder, _ in loaded[1:]:
        if set(tensors) != names:
            raise UsageError(
                f"the adapters {parts[0][0]} and {folder} change other layers",
                hint="adapters of one training can be mixed",
            )
    mixed, ranks = {}, set()
    for name in sorted(names):
        if ".lora_A." in name:
            mixed[name] = torch.cat([tensors[name].float() for tensors, _, _ in loaded])
            ranks.add(len(mixed[name]))
        elif ".lora_B." in name:
            scaled = [
                tensors[name].float() * (weight * _scale(_config(folder)))
                for tensors, folder, weight in loaded
            ]
            mixed[name] = torch.cat(scaled, dim=1).contiguous()
        else:
            raise UsageError(
                f"{parts[0][0]} has weights {name} beside its LoRA factors",
                hint="only plain LoRA adapters can be mixed",
            )
    if len(ranks) != 1:
        raise UsageError(
            f"the layers of {parts[0][0]} have ranks of their own",
            hint="only LoRA adapters of one rank can be mixed",
        )
    return mixed, ranks.pop()


def _config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return content


def _scale(config: dict[str, Any]) -> float:
    """Return what LoRA multiplies its product by: alpha / r, or alpha / √r with rsLoRA."""
    rank = float(config["r"])
    return float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)

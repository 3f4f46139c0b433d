"""The manifest of a run: all that someone needs to repeat it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ccrl_cli import __version__

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.pipelines.common.domains import Domain

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes")
"""Packages whose versions move numbers."""


def run_manifest(
    profile: Profile, target: Domain, origins: Mapping[str, str], arm: str | None = None
) -> dict[str, Any]:
    """Return the resolved profile with origins, versions, hardware, seed and data digests.

    Args:
        profile: the profile.
        target: the target domain.
        origins: origin of each value of the profile.
        arm: training recipe; None: what the profile's own training amounts to.
    """
    from ccrl_cli.config.load import digest

    return {
        "schema": 1,
        "profile": profile.model_dump(mode="json"),
        "origins": dict(origins),
        "digest": digest(profile),
        "arm": arm or ("curriculum" if profile.curriculum.pacing != "constant" else "naive-rl"),
        "seed": profile.run.seed,
        "versions": package_versions(),
        "hardware": hardware(),
        "git": git_state(),
        "data": {target.spec.source: target.split("train").digest},
    }


def package_versions() -> dict[str, str]:
    """Return the versions of Python, ccrl and the packages that move numbers."""
    found = {"python": platform.python_version(), "ccrl": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return the processor, and the GPU if torch is loaded and sees one."""
    facts: dict[str, Any] = {"machine": platform.machine(), "system": platform.system()}
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name(0)
    return facts


def git_state() -> dict[str, Any] | None:
    """Return commit and cleanness of the working directory, or None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    try:
        commit, changed = (
            subprocess.run(
                [git, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.decode(errors="replace"), "changed": bool(changed)}

"""The starting policy: what identifies its weights."""

from __future__ import annotations

import os

import pytest

from ccrl_cli.errors import PreconditionError
from ccrl_cli.models import packages
from ccrl_cli.pipelines.common.weights import adapter_digest


def test_weights_are_read_once_until_they_change(tmp_path, monkeypatch):
    read = []
    real = packages.file_sha256

    def counted(path):
        read.append(path)
        return real(path)

    monkeypatch.setattr(packages, "file_sha256", counted)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"first")
    first = adapter_digest(tmp_path)
    assert adapter_digest(tmp_path) == first == real(weights)[:16]
    assert len(read) == 1
    other = tmp_path / "other"
    other.write_bytes(b"other")  # as many bytes, and the time of the first
    os.utime(other, ns=(weights.stat().st_atime_ns, weights.stat().st_mtime_ns))
    other.replace(weights)
    assert adapter_digest(tmp_path) == real(weights)[:16] != first
    assert len(read) == 2


def test_a_folder_without_weights_is_named(tmp_path):
    assert adapter_digest(None) is None
    with pytest.raises(PreconditionError, match="holds no weights in safetensors format"):
        adapter_digest(tmp_path)

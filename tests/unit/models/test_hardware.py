"""What the driver says about GPUs."""

from __future__ import annotations

from ccrl_cli.models.hardware import _driver_gpus
from programs import put_on_path

DRIVER = """
import sys
assert sys.stdin.read() == "", "it has an input of its own"
sys.stdout.buffer.write(b"Caf\\x81 RTX, 24564, 23000\\n")
"""


def test_a_name_that_no_encoding_knows_is_no_matter(tmp_path, monkeypatch):
    put_on_path(monkeypatch, tmp_path, "nvidia-smi", DRIVER)
    (gpu,) = _driver_gpus()
    assert gpu.name.startswith("Caf")
    assert gpu.total == 24564 * 1024**2

"""What cannot be said neither stops nor fails the work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not os.path.exists("/dev/full"),  # noqa: PTH110
    reason="needs /dev/full and a POSIX shell",
)


def shell(redirection):
    words = f'"{sys.executable}" -m ccrl_cli profile list {redirection}'
    return subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "2>/dev/full", ">&- 2>&-"])
def test_a_closed_stream_or_a_full_log_is_no_failure(redirection):
    done = shell(redirection)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


@pytest.mark.parametrize("flag", ["", "--json"])
def test_a_result_on_a_full_disk_is_said(flag):
    done = shell(f"{flag} >/dev/full")
    assert done.returncode == 3
    assert "the result could not be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr

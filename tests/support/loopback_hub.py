"""A small model hub on loopback: as much of the protocol as the real client asks for.

Repositories are dictionaries of file names and bytes. A file can be cut: the connection closes
after so many bytes of it, once or always.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40
LARGE = (".safetensors", ".bin")


@dataclass
class Hub:
    """What is served, what goes wrong, and what was asked.

    Attributes:
        repositories: name -> file name -> content.
        gated: repositories that need a licence to be accepted.
        cuts: file name -> sizes after which a connection that sends it is closed, one a request.
        served: (file name, first byte) of each file request that sent bytes.
        wrong: file name -> checksum to state instead of the right one.
        sizes: file name -> size to state instead of the right one.
    """

    repositories: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    served: list[tuple[str, int]] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    address: str = ""

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(send=False)

    def do_GET(self) -> None:
        self._answer(send=True)

    def _answer(self, *, send: bool) -> None:
        path = self.path.partition("?")[0]
        if match := re.fullmatch(
            r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path
        ):
            self._info(match[1], match[2], send)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            self._tree(match[1], send)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[3], send)
        else:
            self._refuse(404, "RepoNotFound", "no such page")

    def _info(self, name: str, revision: str | None, send: bool) -> None:
        files = self.hub.repositories.get(name)
        if files is None:
            return self._refuse(404, "RepoNotFound", "Repository not found")
        if revision not in (None, "main", COMMIT):
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        siblings = []
        for file, content in files.items():
            size = self.hub.sizes.get(file, len(content))
            entry: dict[str, object] = {"rfilename": file, "size": size, "blobId": "b"}
            if file.endswith(LARGE):
                sha = self._sha(file, content)
                entry["lfs"] = {"sha256": sha, "size": size, "pointerSize": 130}
            siblings.append(entry)
        gated = "manual" if name in self.hub.gated else False
        info = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "gated": gated}
        self._json({**info, "private": False, "tags": [], "downloads": 0}, send)
        return None

    def _tree(self, name: str, send: bool) -> None:
        entries = []
        for file, content in self.hub.repositories.get(name, {}).items():
            size = len(content)
            entry = {"type": "file", "path": file, "size": size, "oid": "b"}
            if file.endswith(LARGE):
                entry["lfs"] = {"oid": self._sha(file, content), "size": size, "pointerSize": 130}
            entries.append(entry)
        self._json(entries, send)

    def _sha(self, file: str, content: bytes) -> str:
        return self.hub.wrong.get(file) or hashlib.sha256(content).hexdigest()

    def _json(self, value: object, send: bool) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if send:
            self.wfile.write(data)

    def _file(self, name: str, file: str, send: bool) -> None:
        content = self.hub.repositories.get(name, {}).get(file)
        if name in self.hub.gated:
            return self._refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        if content is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        first = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = int(match[1])
        body = content[first:]
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not send:
            return None
        self.hub.served.append((file, first))
        cuts = self.hub.cuts.get(file)
        if cuts:
            body = body[: cuts.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        self.wfile.flush()
        return None

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

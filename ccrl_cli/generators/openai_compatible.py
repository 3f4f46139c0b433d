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
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ccrl_cli.core.answers import answer_schema
from ccrl_cli.errors import CcrlError, PartialError, PreconditionError
from ccrl_cli.generators.base import Gathering, Generated, GenerationRequest, SamplingSettings
from ccrl_cli.generators.chat import completion, may_pass, prompt_tokens
from ccrl_cli.generators.http import (
    JsonClient,
    Patience,
    RefusedError,
    ServerError,
    StoppedError,
    TemporaryError,
    read_key,
)
from ccrl_cli.records import Completion

#: Control tokens of common chat templates: a server does not say which ones its tokenizer has.
CONTROL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>"),
    *("<|system|>", "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|start|>"),
    *("<|message|>", "<|channel|>", "<|return|>", "<|call|>", "[gMASK]", "<sop>", "<s>", "</s>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>"),
    *("<bos>", "<eos>", "<pad>", "<unk>", "<think>", "</think>"),
)
#: Parts of a request that an answer does not need, by what servers call them when they refuse one.
_OPTIONAL = {
    "logprobs": ("logprobs", "log probabilities", "log-probabilities", "logprob"),
    "chat_template_kwargs": ("chat_template_kwargs", "enable_thinking", "chat template"),
    "seed": ("seed",),
    "max_tokens": ("max_tokens",),
    "reasoning_effort": ("reasoning_effort",),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
}
#: Left out one by one where a server refuses fields without naming one.
_UNNAMED = ("chat_template_kwargs", "logprobs", "seed")
_UNKNOWN = ("unknown", "unrecognized", "unexpected", "extra", "not permitted", "unsupported")
_TOO_LONG = ("context length", "context size", "context window", "maximum context", "too long",
             "exceeds the", "prompt is too")  # fmt: skip
#: Statuses of refusals that one request can have earned by its own text.
_OWN = frozenset({400, 413, 422, 451})
#: Statuses with which servers refuse a field.
_FIELD = frozenset({400, 403, 422, 501})
#: Refused inputs without a single answer after which the server is at fault, not the inputs.
MOST_REFUSED = 4
_DEFAULT_URL = {"openai": "http://127.0.0.1:8000", "ollama": "http://127.0.0.1:11434"}
#: Characters a token stands for at most: a prompt of fewer tokens was cut.
_CHARACTERS_A_TOKEN = 16


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
        self.tell: Callable[[str], None] | None = None
        self._notes = _Notes()
        self._client = JsonClient(
            self.url,
            api_key=read_key(server.key_variable, os.environ),
            patience=server.patience,
            connections=server.concurrency,
            tell=self._notes.add,
        )
        self._left_out: tuple[str, ...] = ()
        self._lock = threading.Lock()
        try:
            self._details = {"server": self.url, "model": self._find_model()}
        except BaseException:
            self._client.close()
            raise

    @property
    def details(self) -> Mapping[str, str]:
        """Server and model, and the fields that the server refused."""
        left_out = ", ".join(self._left_out)
        return {**self._details, "left_out": left_out} if left_out else dict(self._details)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generated]:
        """Yield each input when its K completions are done, in the order in which they end.

        An input that the server refuses for its own text is handed out with the finish ``error``,
        once another input has been answered.

        Raises:
            PreconditionError: the server failed, or refused everything, before any input was done.
            PartialError: the server failed for good after some inputs were done.
        """
        stopped = threading.Event()
        work = _Workers(
            lambda request, k: self._complete(request, k, stopped), self._server.concurrency
        )
        waiting = iter(requests)
        gathering: dict[str, Gathering] = {}
        refused: list[Generated] = []
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
                input_id, k, found = work.take(self._notes.hand_out(self.tell))
                if isinstance(found, Exception):
                    failure = failure or found
                    stopped.set()
                    work.drop_waiting()
                    continue
                generated = gathering[input_id].add(k, found, time.perf_counter())
                if generated is None:
                    continue
                del gathering[input_id]
                if done == 0 and _is_refused(generated):
                    refused.append(generated)
                    if len(refused) >= MOST_REFUSED and failure is None:
                        failure = _refusal(refused)
                        stopped.set()
                        work.drop_waiting()
                    continue
                for ready in (*refused, generated):
                    done += 1
                    yield ready
                refused.clear()
        finally:
            stopped.set()
            work.end()
            self._notes.hand_out(self.tell)()
        if refused and failure is None:
            failure = _refusal(refused)
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
            names = [str(item["id"]) for item in content["data"] or ()]
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

        A refusal of this prompt alone (too long, filtered) becomes a completion with the finish
        ``error`` and the server's reason.
        """
        prompt = request.prompts[k]
        broken: list[Completion] = []

        def read(content: Any) -> Completion:
            found = completion(content)
            if may_pass(found):
                broken.append(found)
                raise TemporaryError(f"the answer was broken off ({found.reason})")
            self._look_at(content, found, prompt)
            return found

        while True:
            left_out = self._left_out
            body = self._body(prompt, request.seeds[k])
            try:
                return self._client.post("/chat/completions", body, stopped, read)
            except ServerError:
                if broken:
                    return broken[-1]
                raise
            except RefusedError as error:
                if not any(hint in error.reason.casefold() for hint in _TOO_LONG):
                    with self._lock:
                        if left_out != self._left_out:
                            continue  # another thread has learned it meanwhile
                        field = self._refused_field(error, body)
                        if field is not None:
                            self._left_out = (*self._left_out, field)
                            self._notes.add(
                                f"the server at {self.url} refuses the field {field}; it is left "
                                f"out ({error.reason[:120]})"
                            )
                            continue
                if error.status in _OWN:
                    return Completion("", None, 0, "error", reason=error.reason or "refused")
                raise

    def _refused_field(self, error: RefusedError, body: Mapping[str, Any]) -> str | None:
        """Return the field of a request that a refusal is about, if an answer can do without it."""
        if error.status not in _FIELD:
            return None
        reason = error.reason.casefold()
        for name, spellings in _OPTIONAL.items():
            if name in body and any(spelling in reason for spelling in spellings):
                return name
        if any(word in reason for word in _UNKNOWN) and "response_format" not in reason:
            return next((name for name in _UNNAMED if name in body), None)
        return None

    def _look_at(
        self, content: Any, found: Completion, prompt: Sequence[Mapping[str, str]]
    ) -> None:
        """Note once what an answer says about a server that does not do what is asked."""
        limit = self._settings.max_tokens
        read = prompt_tokens(content)
        if found.finish == "length" and 0 < found.num_tokens < limit // 2:
            self._notes.once(
                "context",
                f"the server at {self.url} ended an answer after {found.num_tokens} of {limit} "
                f"tokens: its context is full (prompt: {read or 'unknown'} tokens); give it a "
                "larger one (Ollama: OLLAMA_CONTEXT_LENGTH)",
            )
        size = sum(len(message["content"]) for message in prompt)
        if read is not None and read * _CHARACTERS_A_TOKEN < size:
            self._notes.once(
                "prompt",
                f"the server at {self.url} read {read} tokens of a prompt of {size} characters: "
                "it cuts prompts; give it a larger context (Ollama: OLLAMA_CONTEXT_LENGTH)",
            )
        name = content.get("model") if isinstance(content, dict) else None
        asked = self._details["model"]
        if isinstance(name, str) and name and not _is_same_model(name, asked):
            self._notes.once(
                "model", f"the server at {self.url} answers as model {name!r}, not {asked!r}"
            )

    def _body(self, prompt: Sequence[Mapping[str, str]], seed: int) -> dict[str, Any]:
        settings = self._settings
        body: dict[str, Any] = {
            "model": self._details["model"],
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
        if "max_tokens" in self._left_out:
            body["max_completion_tokens"] = settings.max_tokens
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


def _is_refused(generated: Generated) -> bool:
    return all(c.finish == "error" and not c.text and c.reason for c in generated.completions)


def _refusal(refused: Sequence[Generated]) -> RefusedError:
    """Return the error of a server that has refused all that was asked."""
    reason = refused[0].completions[0].reason or "refused"
    return RefusedError(400, f"{reason} (so for {len(refused)} inputs, and none was answered)")


def _is_same_model(name: str, asked: str) -> bool:
    """Return whether a server's name of a model may be the one asked for: a path, tag or date."""
    left, right = (
        re.sub(r"[^a-z0-9]", "", text.casefold().rsplit("/", 1)[-1].removesuffix(":latest"))
        for text in (name, asked)
    )
    return left in right or right in left


def default_url(backend: str, environment: Mapping[str, str]) -> str:
    """Return the address of a backend's server when the profile names none.

    ``OLLAMA_HOST`` is read as Ollama's own programs read it: quotes and blanks around it do not
    count, the port is that of the scheme, or 11434 without one, and a path stays behind the port.
    """
    host = environment.get("OLLAMA_HOST", "").strip().strip("\"'").strip()
    if backend != "ollama" or not host:
        return _DEFAULT_URL[backend]
    scheme, mark, rest = host.partition("://")
    if not mark:
        scheme, rest = "http", host
    port = {"http": "80", "https": "443"}.get(scheme.casefold(), "11434") if mark else "11434"
    rest, slash, path = rest.partition("/")
    name = rest
    if rest.startswith("["):
        name, _, stated = rest[1:].partition("]")
        stated = stated.removeprefix(":")
    elif rest.count(":") > 1:
        stated = ""
    else:
        name, _, stated = rest.partition(":")
    if stated.isdecimal() and int(stated) < 65536:
        port = stated
    # What the server listens on is no address to ask.
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name)
    shown = f"[{name}]" if ":" in name else name
    path = path.strip("/")
    return f"{scheme}://{shown}:{port}" + (f"/{path}" if slash and path else "")


def base_url(url: str) -> str:
    """Return an address with the ``/v1`` that all of these servers have, once."""
    bare = url.rstrip("/")
    return bare if bare.endswith("/v1") else f"{bare}/v1"


class _Notes:
    """What threads have to say, handed out by the thread that waits for them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._said: set[str] = set()

    def add(self, note: str) -> None:
        """Say something."""
        self._queue.put(note)

    def once(self, kind: str, note: str) -> None:
        """Say something of a kind that was not said before."""
        if kind not in self._said:
            self._said.add(kind)
            self._queue.put(note)

    def hand_out(self, tell: Callable[[str], None] | None) -> Callable[[], None]:
        """Return a function that tells what was said since it was last called."""

        def hand_out() -> None:
            while not self._queue.empty():
                note = self._queue.get()
                if tell is not None:
                    tell(note)

        return hand_out


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

    def take(self, tell: Callable[[], None]) -> tuple[str, int, Completion | Exception]:
        """Wait for the next sample, or the reason why there is none."""
        while True:
            tell()
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

"""Server backends against a loopback server that misbehaves in every way we know."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.answers import answer_schema
from ccrl_cli.errors import PartialError, PreconditionError
from ccrl_cli.generators.base import GenerationRequest, SamplingSettings
from ccrl_cli.generators.http import (
    LONGEST_DELAY,
    LONGEST_RETRY_AFTER,
    JsonClient,
    Patience,
    ServerError,
    StoppedError,
    parse_retry_after,
    read_key,
    retry_delay,
)
from ccrl_cli.generators.openai_compatible import (
    OllamaGenerator,
    OpenAICompatibleGenerator,
    Server,
    base_url,
    completion,
    default_url,
)
from misbehaving_server import MisbehavingServer, chat, error, slow

SETTINGS = SamplingSettings(0.8, 0.9, 32, 4)
QUICK = Patience(timeout_seconds=5.0, retries=4, first_delay=0.01)


def requests(count: int, samples: int = 2) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            f"i{n}",
            (({"role": "user", "content": f"text {n}"},),) * samples,
            tuple(2**40 * (n + 1) + k for k in range(samples)),
        )
        for n in range(count)
    ]


def ask(server, count=3, *, patience=QUICK, settings=SETTINGS, kind=OpenAICompatibleGenerator, **o):
    generator = kind(Server("tiny", server.url, patience=patience, **o), settings)
    try:
        return {g.input_id: g.completions for g in generator.generate(requests(count))}
    finally:
        generator.close()


def collect_until_error(generator, count) -> list[str]:
    found = []
    try:
        found.extend(g.input_id for g in generator.generate(requests(count)))
    except PartialError:
        return found
    raise AssertionError("no error")


def echo(_number, body):
    return chat(f"{body['messages'][0]['content']} {body['seed']}", logprobs=[-0.5, -1.5])


def test_every_sample_is_asked_for_with_its_own_seed():
    with MisbehavingServer(echo) as server:
        found = ask(server, 5, concurrency=3)
    assert set(found) == {f"i{n}" for n in range(5)}
    for n in range(5):
        seeds = [(2**40 * (n + 1) + k) % 2**31 for k in range(2)]
        assert [c.text for c in found[f"i{n}"]] == [f"text {n} {seed}" for seed in seeds]
        assert {(c.mean_logprob, c.num_tokens, c.finish) for c in found[f"i{n}"]} == {
            (-1.0, 7, "stop")
        }
    assert len(server.requests) == 10
    body = server.requests[0]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.8, 0.9, 32)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "response_format" not in body
    assert "reasoning_effort" not in body


def test_concurrency_is_reached_and_kept():
    with MisbehavingServer(lambda n, body: slow(0.05, echo(n, body))) as server:
        ask(server, 8, concurrency=3, settings=SamplingSettings(1.0, 1.0, 8, 8))
    assert server.most == 3


def test_inputs_are_handed_out_while_others_run():
    gate = threading.Event()

    def script(_number, body):
        if body["messages"][0]["content"] != "text 0":
            gate.wait(10)
        return chat("done")

    with MisbehavingServer(script) as server:
        generator = OpenAICompatibleGenerator(Server("tiny", server.url), SETTINGS)
        found = generator.generate(requests(3))
        assert next(found).input_id == "i0"
        gate.set()
        assert {g.input_id for g in found} == {"i1", "i2"}
        generator.close()


@pytest.mark.parametrize(
    "trouble",
    [
        error(429, "slow down"),
        error(429, "slow down", Retry_After="0.02"),
        error(500, "oops"),
        error(503, "loading"),
        (502, {}, b"<html>bad gateway</html>"),
        (200, {}, b"<html>welcome to the portal</html>"),
        None,
    ],
    ids=["429", "429 with Retry-After", "500", "503", "502 page", "garbage", "hang-up"],
)
def test_passing_trouble_costs_nothing(trouble):
    with MisbehavingServer(lambda n, b: trouble if n % 3 == 1 else echo(n, b)) as server:
        found = ask(server, 6)
    assert len(found) == 6
    assert len(server.requests) > 12


def test_a_slow_answer_is_asked_for_again():
    patience = Patience(timeout_seconds=0.2, retries=3, first_delay=0.01)
    with MisbehavingServer(lambda n, b: slow(0.6 if n == 0 else 0, echo(n, b))) as server:
        assert len(ask(server, 2, patience=patience)) == 2


def test_retry_after_is_waited_for():
    script = lambda n, b: error(429, "later", Retry_After="0.3") if n == 0 else echo(n, b)  # noqa: E731
    with MisbehavingServer(script) as server:
        started = time.monotonic()
        ask(server, 1)
    assert time.monotonic() - started >= 0.3


def test_lasting_trouble_after_some_inputs_is_partial():
    def script(_number, body):
        good = body["messages"][0]["content"] in ("text 0", "text 1")
        return chat("fine") if good else error(500, "the GPU is gone")

    with MisbehavingServer(script) as server:
        generator = OpenAICompatibleGenerator(
            Server("tiny", server.url, patience=QUICK), SamplingSettings(1.0, 1.0, 8, 1)
        )
        with pytest.raises(PartialError, match=r"tried 5 times.*the GPU is gone.*2 inputs") as info:
            list(generator.generate(requests(9)))
        generator.close()
    assert "--resume" in info.value.hint
    assert info.value.exit_code == 4
    failed = {b["messages"][0]["content"] for b in server.requests} - {"text 0", "text 1"}
    assert failed == {"text 2"}


def test_what_is_under_way_when_another_request_fails_is_kept():
    def script(_number, body):
        if body["messages"][0]["content"] == "text 0":
            return error(400, "no")
        return slow(0.3, chat("late but there"))

    with MisbehavingServer(script) as server:
        generator = OpenAICompatibleGenerator(Server("tiny", server.url, patience=QUICK), SETTINGS)
        found = collect_until_error(generator, 4)
        generator.close()
    assert "i1" in found


def test_lasting_trouble_from_the_start_is_a_precondition():
    with (
        MisbehavingServer(lambda n, b: error(500, "oops")) as server,
        pytest.raises(PreconditionError, match="tried 5 times: HTTP 500: oops"),
    ):
        ask(server, 2)


def test_a_refused_request_is_not_repeated():
    with MisbehavingServer(lambda n, b: error(400, "temperature must be 1")) as server:
        with pytest.raises(PreconditionError, match="HTTP 400: temperature must be 1"):
            ask(server, 1, concurrency=1)
        seeds = [body["seed"] for body in server.requests]
        assert len(seeds) == len(set(seeds))


def test_parts_that_a_server_does_not_know_are_left_out():
    def script(n, body):
        if "chat_template_kwargs" in body:
            return error(400, "Unrecognized request argument supplied: chat_template_kwargs")
        if "logprobs" in body:
            return error(422, "logprobs is not supported with this model")
        return chat("fine")

    with MisbehavingServer(script) as server:
        found = ask(server, 3, concurrency=1)
    assert {c.mean_logprob for samples in found.values() for c in samples} == {None}
    assert len(server.requests) == 6 + 2


def test_a_prompt_that_is_too_long_is_an_error_completion_and_no_end():
    def script(n, body):
        if body["messages"][0]["content"] == "text 1":
            return error(400, "This model's maximum context length is 8192 tokens")
        return chat("fine")

    with MisbehavingServer(script) as server:
        found = ask(server, 3)
    assert [c.finish for c in found["i1"]] == ["error", "error"]
    assert [c.finish for c in found["i2"]] == ["stop", "stop"]


def test_the_schema_is_sent():
    schema = answer_schema(["person", "space agency"])
    settings = SamplingSettings(0.8, 1.0, 32, 4, answer_types=("person", "space agency"))
    with MisbehavingServer(echo) as server:
        ask(server, 1, settings=settings, reasoning_effort="low")
    sent = server.requests[0]["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["schema"] == schema
    assert server.requests[0]["reasoning_effort"] == "low"


def test_a_dead_server_is_named(unused_port):
    with pytest.raises(PreconditionError, match=rf"127\.0\.0\.1:{unused_port}/v1.*cannot") as info:
        OpenAICompatibleGenerator(Server("tiny", f"http://127.0.0.1:{unused_port}"), SETTINGS)
    assert "vllm serve tiny" in info.value.hint
    assert info.value.exit_code == 3
    with pytest.raises(PreconditionError) as info:
        OllamaGenerator(Server("tiny", f"http://127.0.0.1:{unused_port}"), SETTINGS)
    assert "ollama serve" in info.value.hint


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((404, {}, b"not found"), "no server that speaks OpenAI's API.*404"),
        ((200, {}, b"<html>router login</html>"), "no JSON.*router login"),
        ((200, {}, b"[1, 2]"), "no list of models"),
        ((200, {}, b'{"data": [{"id": "other"}]}'), "no model 'tiny'.*it has: other"),
        ((200, {}, b'{"data": []}'), "no model 'tiny'.*none"),
    ],
)
def test_a_wrong_server_is_told_apart(reply, message):
    with MisbehavingServer(echo) as server:
        server.models = reply
        with pytest.raises(PreconditionError, match=message):
            ask(server)


def test_keys_come_from_the_environment_and_stay_out_of_messages(monkeypatch):
    with MisbehavingServer(echo) as server:
        server.key = "s3cret"
        with pytest.raises(PreconditionError, match="refuses the key") as info:
            ask(server)
        assert "server_key_variable" in info.value.hint
        with pytest.raises(PreconditionError, match="TINY_KEY, which is not set"):
            ask(server, key_variable="TINY_KEY")
        monkeypatch.setenv("TINY_KEY", "s3cret")
        assert len(ask(server, key_variable="TINY_KEY")) == 3
        monkeypatch.setenv("TINY_KEY", "wr0ng")
        with pytest.raises(PreconditionError) as info:
            ask(server, key_variable="TINY_KEY")
        assert "wr0ng" not in str(info.value) + str(info.value.hint)


def test_ollama_knows_tags():
    with MisbehavingServer(echo) as server:
        server.models = (200, {}, json.dumps({"data": [{"id": "tiny:latest"}]}).encode())
        ask(server, kind=OllamaGenerator)
        assert server.requests[0]["model"] == "tiny:latest"
        server.models = (200, {}, b'{"data": [{"id": "llama3"}]}')
        with pytest.raises(PreconditionError) as info:
            ask(server, kind=OllamaGenerator)
    assert "ollama pull tiny" in info.value.hint


def test_a_generator_can_be_left_early_and_used_again():
    with MisbehavingServer(echo) as server:
        generator = OpenAICompatibleGenerator(Server("tiny", server.url), SETTINGS)
        found = generator.generate(requests(20))
        next(found)
        found.close()
        assert len(list(generator.generate(requests(2)))) == 2
        generator.close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (None, "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        ("box", "http://box:11434"),
        ("https://box:443/", "https://box:443"),
        (":9999", "http://127.0.0.1:9999"),
    ],
)
def test_addresses(host, url):
    environment = {"OLLAMA_HOST": host} if host else {}
    assert default_url("ollama", environment) == url
    assert default_url("openai", environment) == "http://127.0.0.1:8000"


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_the_base_has_one_v1(url):
    assert base_url(url) == "http://h:1/v1"


def test_backoff_by_hand():
    assert retry_delay(0, None, lambda: 0.0) == 0.5
    assert retry_delay(3, None, lambda: 0.5) == 8.0 * 0.75
    assert retry_delay(50, None, lambda: 0.999999) == pytest.approx(LONGEST_DELAY, rel=1e-3)
    assert retry_delay(0, 7.0, lambda: 0.0) == 7.0
    assert retry_delay(0, 1e9, lambda: 0.0) == LONGEST_RETRY_AFTER


@given(st.integers(0, 10**6), st.none() | st.floats(0, 1e12), st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded_and_follows_the_server(attempt, after, drawn):
    delay = retry_delay(attempt, after, lambda: drawn)
    if after is None:
        assert 0.5 <= delay <= LONGEST_DELAY
    else:
        asked = min(after, LONGEST_RETRY_AFTER)
        assert asked <= delay <= asked + 0.1 * LONGEST_DELAY


def test_retry_after_forms():
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert parse_retry_after("12", now) == 12.0
    assert parse_retry_after("Thu, 01 Jan 2026 12:01:30 GMT", now) == 90.0
    assert parse_retry_after("Thu, 01 Jan 2026 11:00:00 GMT", now) == 0.0
    assert parse_retry_after("soon", now) is None
    assert parse_retry_after(None, now) is None
    assert parse_retry_after("-5", now) == 0.0


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "logprobs", "usage", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_answer_is_a_completion_or_a_server_error(content):
    try:
        found = completion(content)
    except ServerError:
        return
    assert isinstance(found.text, str)


def test_read_key():
    assert read_key(None, {}) is None
    assert read_key("A", {"A": " k "}) == "k"


def test_stop_ends_a_pause_at_once(unused_port):
    client = JsonClient(
        f"http://127.0.0.1:{unused_port}", api_key=None, patience=Patience(1, 50, 30), connections=1
    )
    stopped = threading.Event()
    threading.Timer(0.2, stopped.set).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        client.post("/x", {}, stopped)
    assert time.monotonic() - started < 5
    client.close()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

"""Server backends against a loopback server that misbehaves in every way we know."""

from __future__ import annotations

import gzip
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
    RefusedError,
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
            return error(403, "no")
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
    with MisbehavingServer(lambda n, b: error(400, "the model is asleep")) as server:
        with pytest.raises(PreconditionError, match="HTTP 400: the model is asleep"):
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
    except (ServerError, RefusedError):
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
        client.post("/x", {}, stopped, completion)
    assert time.monotonic() - started < 5
    client.close()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer(message, finish="stop", tokens=(), **usage):
    choice = {"message": message, "finish_reason": finish}
    if tokens:
        choice["logprobs"] = {"content": [{"token": t, "logprob": v} for t, v in tokens]}
    return {"choices": [choice], "usage": usage}


def test_parts_of_the_content_are_joined_and_thinking_is_none():
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "[{"},
        {"type": "text", "text": "}]"},
    ]
    assert completion(answer({"content": parts})).text == "[{}]"
    assert completion(answer({"content": None, "tool_calls": [{}]})).text == ""


@pytest.mark.parametrize("content", [5, 1.5, True, {"text": "x"}, [5]])
def test_content_of_another_kind_is_no_answer(content):
    with pytest.raises(ServerError, match="no chat completion"):
        completion(answer({"content": content}))


@pytest.mark.parametrize(
    "body",
    [
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"error": {"message": "Provider returned error", "code": 502}},
        {"error": "overloaded"},
        [],
        None,
    ],
)
def test_what_is_no_completion_under_200_is_asked_for_again(body):
    bad = 200, {}, json.dumps(body).encode()
    with MisbehavingServer(lambda n, b: bad if n % 3 == 0 else echo(n, b)) as server:
        assert len(ask(server, 3)) == 3


def test_an_error_of_the_request_under_200_is_a_refusal():
    refused = 200, {}, json.dumps({"error": {"code": 400, "message": "filtered"}}).encode()

    def script(n, body):
        return refused if body["messages"][0]["content"] == "text 1" else chat("fine")

    with MisbehavingServer(script) as server:
        found = ask(server, 3, concurrency=1)
    assert [(c.finish, c.reason) for c in found["i1"]] == [("error", "filtered")] * 2


@pytest.mark.parametrize("first", [0, 1])
def test_an_input_that_is_refused_is_kept_as_an_error_of_its_own(first):
    def script(n, body):
        if body["messages"][0]["content"] == f"text {first}":
            return error(400, "The response was filtered", code="content_filter")
        return chat("fine")

    with MisbehavingServer(script) as server:
        found = ask(server, 3, concurrency=1)
    assert {key: samples[0].finish for key, samples in found.items()} == {
        f"i{n}": "error" if n == first else "stop" for n in range(3)
    }
    assert found[f"i{first}"][0].reason == "The response was filtered"


def test_a_server_that_refuses_everything_is_stopped_early():
    with MisbehavingServer(lambda n, b: error(400, "no")) as server:
        with pytest.raises(PreconditionError, match="none was answered"):
            ask(server, 40, concurrency=1, settings=SamplingSettings(0.8, 0.9, 32, 1))
        assert len(server.requests) <= 12


@pytest.mark.parametrize(
    ("status", "reason", "fields"),
    [
        (422, "body.seed: Extra inputs are not permitted", ["seed"]),
        (501, "log probabilities are not implemented", ["logprobs"]),
        (403, "You are not allowed to request logprobs", ["logprobs"]),
        (400, "Unsupported parameter: 'max_tokens'", ["max_tokens"]),
        (400, "temperature does not support 0.8 with this model", ["temperature"]),
        (400, "top_p is deprecated", ["top_p"]),
        (400, "Unrecognized request argument", ["chat_template_kwargs", "logprobs"]),
    ],
)
def test_fields_that_a_server_forbids_are_left_out_one_by_one_and_said_once(status, reason, fields):
    def script(n, body):
        return error(status, reason) if any(f in body for f in fields) else chat("fine")

    said = []
    with MisbehavingServer(script) as server:
        generator = OpenAICompatibleGenerator(Server("tiny", server.url, patience=QUICK), SETTINGS)
        generator.tell = said.append
        assert len(list(generator.generate(requests(3)))) == 3
        generator.close()
        last = server.requests[-1]
    assert generator.details["left_out"] == ", ".join(fields)
    assert [note.split(" refuses the field ")[1].split(";")[0] for note in said] == fields
    assert ("max_completion_tokens" in last) == ("max_tokens" in fields)


def test_a_refused_field_that_the_message_names_by_its_place_is_left_out():
    detail = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}
    refusal = 422, {}, json.dumps({"object": "error", "message": detail}).encode()
    with MisbehavingServer(lambda n, b: refusal if "seed" in b else chat("fine")) as server:
        assert len(ask(server, 2)) == 2


def test_finishes_that_are_no_answers():
    filtered = completion(answer({"content": "[]"}, "content_filter"))
    assert (filtered.finish, filtered.reason) == ("error", "content_filter")
    refusal = completion(answer({"content": None, "refusal": "I cannot"}))
    assert (refusal.finish, refusal.reason) == ("error", "I cannot")
    with MisbehavingServer(lambda n, b: chat("[]", finish="error" if n == 0 else "stop")) as server:
        found = ask(server, 2, concurrency=1)
    assert {c.finish for samples in found.values() for c in samples} == {"stop"}
    with MisbehavingServer(lambda n, b: chat("[]", finish="error")) as server:
        found = ask(server, 1, patience=Patience(5, 1, 0.01))
    assert {c.finish for c in found["i0"]} == {"error"}


@pytest.mark.parametrize("value", [float("-inf"), float("nan"), -9999.0, 0.5, "x", None, True])
def test_a_value_that_is_no_logprob_makes_the_mean_unknown(value):
    found = completion(answer({"content": "ab"}, tokens=[("a", -0.1), ("b", value)]))
    assert found.mean_logprob is None


def test_bare_infinity_in_json_is_read():
    body = b'{"choices": [{"message": {"content": "a"}, "finish_reason": "stop", "logprobs": '
    body += b'{"content": [{"token": "a", "logprob": -Infinity}]}}]}'
    with MisbehavingServer(lambda n, b: (200, {}, body)) as server:
        assert ask(server, 1)["i0"][0].mean_logprob is None


def test_logprobs_are_those_of_the_tokens_that_spell_the_answer():
    thought = [("<think>", 0.0), (" hm", -2.0), ("</think>", 0.0)]
    spelled = [("[", -0.1), ("]", -0.3)]
    end = [("<|im_end|>", -9.0)]
    apart = completion(
        answer({"content": "[]", "reasoning_content": " hm"}, tokens=[*thought, *spelled],
               completion_tokens=5)
    )  # fmt: skip
    assert (apart.mean_logprob, apart.num_tokens, apart.reasoning) == (-0.2, 2, " hm")
    inside = completion(
        answer({"content": "<think> hm</think>[]"}, tokens=[*thought, *spelled],
               completion_tokens=5)
    )  # fmt: skip
    assert (inside.mean_logprob, inside.num_tokens) == (-0.2, 5)
    unknown = completion(
        answer({"content": "[]", "reasoning": "hm"}, tokens=[("x", -1.0)], completion_tokens=5)
    )
    assert (unknown.mean_logprob, unknown.num_tokens) == (None, 5)
    plain = completion(answer({"content": "[]"}, tokens=[*spelled, *end]))
    assert plain.mean_logprob == pytest.approx((-0.1 - 0.3 - 9.0) / 3)


@pytest.mark.parametrize("count", [-3, True, "7", None, 2.5])
def test_counts_that_are_none_are_not_believed(count):
    assert completion(answer({"content": "a"}, completion_tokens=count)).num_tokens == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (answer({"content": "[{"}, "length", completion_tokens=3, prompt_tokens=4090), "full"),
        (answer({"content": "[]"}, completion_tokens=3, prompt_tokens=1), "cuts prompts"),
        ({**answer({"content": "[]"}), "model": "huge-70b"}, "answers as model 'huge-70b'"),
    ],
)
def test_what_an_answer_says_about_its_server_is_said_once(content, said):
    notes = []
    body = 200, {}, json.dumps(content).encode()
    with MisbehavingServer(lambda n, b: body) as server:
        generator = OpenAICompatibleGenerator(Server("tiny", server.url, patience=QUICK), SETTINGS)
        generator.tell = notes.append
        long = {"role": "user", "content": "x " * 40}
        list(generator.generate([GenerationRequest(f"i{n}", ((long,),), (n,)) for n in range(3)]))
        generator.close()
    assert [said in note for note in notes] == [True]


def test_a_date_or_a_path_in_the_name_is_the_same_model():
    notes = []
    body = {**answer({"content": "[]"}), "model": "models/tiny-2025-01-01"}
    with MisbehavingServer(lambda n, b: (200, {}, json.dumps(body).encode())) as server:
        generator = OpenAICompatibleGenerator(Server("tiny", server.url), SETTINGS)
        generator.tell = notes.append
        list(generator.generate(requests(1)))
        generator.close()
    assert notes == []


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("https://ollama.example.com", "https://ollama.example.com:443"),
        ("http://ollama.example.com", "http://ollama.example.com:80"),
        ("box/ollama/", "http://box:11434/ollama"),
        ('"127.0.0.1:1234"', "http://127.0.0.1:1234"),
        (" 'box' ", "http://box:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("[::]", "http://[::1]:11434"),
        ("box:word", "http://box:11434"),
        ("https://box/a/b", "https://box:443/a/b"),
    ],
)
def test_every_form_of_ollama_host(host, url):
    assert default_url("ollama", {"OLLAMA_HOST": host}) == url


def test_an_ollama_without_models_is_told_what_to_pull():
    with MisbehavingServer(echo) as server:
        server.models = (200, {}, b'{"object": "list", "data": null}')
        with pytest.raises(PreconditionError, match="it has: none") as info:
            ask(server, kind=OllamaGenerator)
    assert "ollama pull tiny" in info.value.hint


@pytest.mark.parametrize("key", ["sk-“abc”", "sk-ä", "a\nb"])
def test_a_key_that_no_header_can_hold_is_named(key):
    with pytest.raises(PreconditionError, match="key in MY_KEY"):
        read_key("MY_KEY", {"MY_KEY": key})


@pytest.mark.parametrize("url", ["http://box:port", "http://", "box:8000", "ftp://box", "http://["])
def test_addresses_that_cannot_be_used_are_named(url):
    with pytest.raises(PreconditionError, match="cannot be used") as info:
        JsonClient(url, api_key=None, patience=QUICK, connections=1)
    assert "server_url" in info.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:1"), ("HTTPS_PROXY", "nonsense://x"),
     ("SSL_CERT_FILE", "/nope")],
)  # fmt: skip
def test_settings_of_the_environment_that_cannot_be_used_are_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    if name == "ALL_PROXY":
        monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    with pytest.raises(PreconditionError) as info:
        JsonClient("http://gpu-box.invalid:8000", api_key=None, patience=QUICK, connections=1)
    assert name in f"{info.value} {info.value.hint}"


def test_a_key_that_a_server_repeats_is_masked(monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret-key")
    for reply in (
        error(403, "bad key s3cret-key"),
        error(500, "key s3cret-key"),
        (200, {}, b"your key is s3cret-key"),
        (200, {}, b'{"error": {"code": 403, "message": "s3cret-key"}}'),
        (200, {}, b'{"x": "s3cret-key"}'),
    ):
        with (
            MisbehavingServer(lambda n, b, r=reply: r) as server,
            pytest.raises(PreconditionError) as info,
        ):
            ask(server, 1, key_variable="MY_KEY", patience=Patience(5, 0, 0.01))
        assert "s3cret-key" not in str(info.value)
        assert "***" in str(info.value)


class Dripping(MisbehavingServer):
    """Sends an answer byte by byte, without end or as a bomb."""

    def __init__(self, pieces, headers=()):
        super().__init__(lambda n, b: None)
        self.pieces, self.headers = pieces, headers

    def _handler(self):
        owner, base = self, super()._handler()

        class Handler(base):
            def _send(self, reply):
                if reply is not None:
                    super()._send(reply)
                    return
                self.close_connection = True
                self.send_response(200)
                for name, value in owner.headers:
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in owner.pieces():
                        self.wfile.write(piece)
                        self.wfile.flush()
                except OSError:
                    return

        return Handler


def test_a_dripping_answer_has_a_deadline():
    def drip():
        while True:
            time.sleep(0.05)
            yield b" "

    with Dripping(drip) as server:
        started = time.monotonic()
        with pytest.raises(PreconditionError, match="no whole answer within"):
            ask(server, 1, patience=Patience(0.5, 0, 0.01))
        assert time.monotonic() - started < 10


def test_an_answer_has_a_longest_length(monkeypatch):
    monkeypatch.setattr("ccrl_cli.generators.http.LONGEST_BODY", 2**20)
    bomb = gzip.compress(b"0" * 2**24)
    with Dripping(lambda: [bomb], [("Content-Encoding", "gzip")]) as server:  # noqa: SIM117
        with pytest.raises(PreconditionError, match="longer than"):
            ask(server, 1, patience=Patience(5, 0, 0.01))


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe\x00", b"[" * 200_000, b'{"choices": ' + b"9" * 5000 + b"}", b""],
    ids=["not UTF-8", "deep", "huge", "empty"],
)
def test_bodies_that_cannot_be_read_are_asked_for_again(body):
    with MisbehavingServer(lambda n, b: (200, {}, body) if n == 0 else echo(n, b)) as server:
        assert len(ask(server, 1)) == 1


def test_an_undecodable_encoding_is_asked_for_again():
    bad = 200, {"Content_Encoding": "gzip"}, b"no gzip"
    with MisbehavingServer(lambda n, b: bad if n == 0 else echo(n, b)) as server:
        assert len(ask(server, 1)) == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "Mon, 99 Foo", "x" * 5000])
def test_no_retry_after_is_waited_for_longer_than_the_limit(value):
    assert retry_delay(0, parse_retry_after(value), lambda: 0.5) <= LONGEST_RETRY_AFTER + 1


def test_a_long_pause_is_told_of(monkeypatch):
    monkeypatch.setattr("ccrl_cli.generators.http.TOLD_PAUSE", 0.1)
    said = []
    later = error(429, "slow down", Retry_After="0.2")
    with MisbehavingServer(lambda n, b: later if n == 0 else echo(n, b)) as server:
        generator = OpenAICompatibleGenerator(Server("tiny", server.url, patience=QUICK), SETTINGS)
        generator.tell = said.append
        list(generator.generate(requests(1)))
        generator.close()
    assert any("waiting 0 s" in note and "slow down" in note for note in said)

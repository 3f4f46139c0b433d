"""Decoding: against `generate` of transformers, against itself in other batches, with static cache.

Tiny models with random weights: what is tested is bookkeeping, and random weights make every token
depend on every earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccrl_cli.core.seeds import derive_seed
from lazily import lazy, needs

torch = lazy("torch")
decoding_bytes = lazy("ccrl_cli.models.sampling", "decoding_bytes")
graphs = lazy("ccrl_cli.models.graphs")
recording = lazy("ccrl_cli.models.recording")
decode_batch = lazy("ccrl_cli.models.decoding", "decode_batch")
plan_batches = lazy("ccrl_cli.models.decoding", "plan_batches")
PromptRequest = lazy("ccrl_cli.models.sampling", "PromptRequest")
Sampling = lazy("ccrl_cli.models.sampling", "Sampling")
draw_tokens = lazy("ccrl_cli.models.sampling", "draw_tokens")
token_logprobs = lazy("ccrl_cli.models.sampling", "token_logprobs")
decode_whole = lazy("ccrl_cli.models.whole", "decode_whole")
has_recurrent_layers = lazy("ccrl_cli.models.whole", "has_recurrent_layers")

pytestmark = needs("torch", "transformers")

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def tiny(kind: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    config = AutoConfig.for_model(
        kind, **SIZES, head_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    # Large weights: sharp distributions that differ from token to token.
    config.initializer_range = 0.3
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def model(request) -> Any:
    return tiny(request.param)


def prompts(lengths: Sequence[int], samples: Sequence[int]) -> list[PromptRequest]:
    generator = torch.Generator().manual_seed(11)
    return [
        PromptRequest(
            f"p{i}",
            torch.randint(3, VOCABULARY, (length,), generator=generator).tolist(),
            [derive_seed(5, "test", i, k) for k in range(count)],
        )
        for i, (length, count) in enumerate(zip(lengths, samples, strict=True))
    ]


def decode(model: Any, requests: Any, sampling: Sampling, *, static: bool, ends=(2,)) -> dict:
    found = list(decode_batch(model, requests, sampling, end_ids=ends, pad_id=0, static=static))
    assert len({key for key, _ in found}) == len(found) == len(requests)
    return dict(found)


def flat(found: dict) -> dict:
    return {key: [(s.token_ids, s.finish) for s in samples] for key, samples in found.items()}


@pytest.mark.parametrize("static", [False, True])
def test_greedy_equals_generate(model, static):
    requests = prompts([5, 17, 9], [1, 1, 1])
    found = decode(model, requests, Sampling(0.0, 20), static=static)
    for request in requests:
        ids = model.generate(torch.tensor([request.token_ids]), do_sample=False, max_new_tokens=20)[
            0, len(request.token_ids) :
        ].tolist()
        assert found[request.key][0].token_ids == ids


@pytest.mark.parametrize("static", [False, True])
def test_logprobs_are_those_of_a_full_forward(model, static):
    requests = prompts([6, 11], [3, 2])
    found = decode(model, requests, Sampling(0.9, 12, top_p=0.95), static=static)
    for request in requests:
        for sample in found[request.key]:
            ids = torch.tensor([[*request.token_ids, *sample.token_ids]])
            with torch.inference_mode():
                logits = model(ids).logits[0].log_softmax(-1)
            start = len(request.token_ids) - 1
            expected = [logits[start + n, token].item() for n, token in enumerate(sample.token_ids)]
            assert sample.logprobs == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sampling", [(0.0, 33), (1.0, 33), (0.8, 33, 0.9), (1.3, 33, 1.0, 20)])
def test_static_cache_equals_plain_token_for_token(model, sampling):
    """Long enough to cross a block of columns, with rows that end early and leave the batch."""
    sampling = Sampling(*sampling)
    requests = prompts([110, 120, 3, 64, 90], [8, 8, 4, 1, 8])
    ends = tuple(range(2, 8))
    plain = decode(model, requests, sampling, static=False, ends=ends)
    static = decode(model, requests, sampling, static=True, ends=ends)
    assert flat(static) == flat(plain)
    finishes = [s.finish for samples in plain.values() for s in samples]
    assert "stop" in finishes
    for key, samples in plain.items():
        for one, other in zip(samples, static[key], strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_sample_depends_on_its_seed_alone(model, data):
    """Any batch, any path: the same prompt and seed give the same tokens."""
    count = data.draw(st.integers(1, 5))
    lengths = data.draw(st.lists(st.integers(1, 140), min_size=count, max_size=count))
    samples = data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))
    steps = data.draw(st.integers(1, 24))
    ends = tuple(range(2, data.draw(st.integers(3, 30))))
    requests = prompts(lengths, samples)
    sampling = Sampling(1.0, steps, data.draw(st.sampled_from([1.0, 0.8])))
    together = flat(decode(model, requests, sampling, static=True, ends=ends))
    for request in requests:
        alone = flat(decode(model, [request], sampling, static=False, ends=ends))
        assert together[request.key] == alone[request.key]


@pytest.mark.parametrize("sampling", [(0.0, 15), (0.9, 15, 0.95)])
def test_whole_batches_by_generate_give_the_same_tokens(model, sampling):
    sampling = Sampling(*sampling)
    requests = prompts([7, 25, 14], [3, 1, 4])
    ends = tuple(range(2, 12))
    plain = decode(model, requests, sampling, static=False, ends=ends)
    whole = dict(decode_whole(model, requests, sampling, end_ids=ends, pad_id=0))
    assert flat(whole) == flat(plain)
    for key, samples in plain.items():
        for one, other in zip(samples, whole[key], strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_models_with_recurrent_layers_are_decoded_whole():
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "qwen3_next",
        **{**SIZES, "num_hidden_layers": 4},
        head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        pad_token_id=0,
    )
    torch.manual_seed(1)
    hybrid = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    assert has_recurrent_layers(hybrid)
    requests = prompts([7, 12], [2, 2])
    found = decode(hybrid, requests, Sampling(1.0, 6), static=None)
    for request in requests:
        alone = decode(hybrid, [request], Sampling(1.0, 6), static=None)
        assert flat(found)[request.key] == flat(alone)[request.key]


def test_the_attention_of_the_model_is_put_back(model):
    before = model.config._attn_implementation
    decode(model, prompts([5], [2]), Sampling(1.0, 4), static=True)
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("static", [False, True])
def test_the_caller_is_not_left_in_inference_mode(model, static):
    requests = prompts([5, 6], [2, 2])
    for _ in decode_batch(
        model, requests, Sampling(1.0, 9), end_ids=range(2, 40), pad_id=0, static=static
    ):
        assert not torch.is_inference_mode_enabled()


def test_an_adapter_counts_and_can_be_switched_off():
    from peft import LoraConfig, get_peft_model

    base = tiny("llama")
    requests, sampling = prompts([12, 30], [4, 4]), Sampling(1.0, 10)
    bare = flat(decode(base, requests, sampling, static=False))
    torch.manual_seed(7)
    model = get_peft_model(
        base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    ).eval()
    assert graphs.supports(model)
    before = recording.fingerprint(model)
    adapted = flat(decode(model, requests, sampling, static=True))
    assert adapted == flat(decode(model, requests, sampling, static=False))
    assert adapted != bare
    with model.disable_adapter():
        assert recording.fingerprint(model) != before
        assert flat(decode(model, requests, sampling, static=True)) == bare
    assert recording.fingerprint(model) == before


def test_a_folded_adapter_that_learns_is_followed_without_new_recordings():
    """As in training: fold, roll out, unfold, update, again. What is recorded stays valid."""
    from peft import LoraConfig, get_peft_model

    from ccrl_cli.models.merging import merged_adapter

    model = get_peft_model(
        tiny("llama"), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    ).eval()
    requests, sampling = prompts([12, 30], [4, 4]), Sampling(1.0, 10)
    states, answers = set(), []
    for _ in range(2):
        with merged_adapter(model):
            states.add(recording.fingerprint(model))
            static = flat(decode(model, requests, sampling, static=True))
            assert static == flat(decode(model, requests, sampling, static=False))
        answers.append(static)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.add_(0.5)
    assert len(states) == 1
    assert answers[0] != answers[1]


class Recorded:
    """Stands for a CUDA graph on a CPU: one step with everything fixed that a graph fixes."""

    def __init__(self, runner, model, columns, sampling) -> None:
        self._step = (model, columns, sampling)
        self._runner, self._rows = runner, runner.rows
        self.replays = 0

    def replay(self) -> None:
        assert self._runner.rows == self._rows, "a step of another size is replayed"
        self._runner._step(*self._step)
        self.replays += 1


def test_buffers_are_used_again_and_grow(model, monkeypatch):
    monkeypatch.setattr(graphs, "can_record", lambda device: True)
    monkeypatch.setattr(recording.StaticRunner, "_record", lambda *parts: Recorded(*parts))
    graphs.release(model)
    decode(model, prompts([5], [8]), Sampling(1.0, 4), static=True)
    small = graphs._RUNNERS[model]
    decode(model, prompts([9, 4], [2, 2]), Sampling(1.0, 3), static=True)
    assert graphs._RUNNERS[model] is small
    decode(model, prompts([200], [9]), Sampling(1.0, 4), static=True)
    assert graphs._RUNNERS[model].size == (16, 256, 4)
    graphs.release(model)
    assert model not in graphs._RUNNERS


def test_recorded_steps_are_used_where_they_fit(model, monkeypatch):
    monkeypatch.setattr(graphs, "can_record", lambda device: True)
    monkeypatch.setattr(recording.StaticRunner, "_record", lambda *parts: Recorded(*parts))
    graphs.release(model)
    requests = prompts([110, 120, 3, 64, 90], [8, 8, 4, 1, 8])
    ends = tuple(range(2, 5))
    for sampling in (Sampling(1.0, 40), Sampling(0.7, 40, 0.9), Sampling(1.0, 40)):
        plain = flat(decode(model, requests, sampling, static=False, ends=ends))
        assert flat(decode(model, requests, sampling, static=True, ends=ends)) == plain
    recorded = graphs._RUNNERS[model]._graphs
    assert sum(graph.replays for graph in recorded.values()) > 40
    assert len({key[:2] for key in recorded}) > 1, "one size alone was recorded"
    graphs.release(model)


def test_what_cannot_be_recorded_runs_as_it_is(model, monkeypatch):
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "can_record", lambda device: True)
    monkeypatch.setattr(recording.StaticRunner, "_record", refuse)
    graphs.release(model)
    requests, sampling = prompts([9, 30], [4, 4]), Sampling(1.0, 20)
    plain = flat(decode(model, requests, sampling, static=False))
    with pytest.warns(UserWarning, match="cannot be recorded") as caught:
        assert flat(decode(model, requests, sampling, static=True)) == plain
    assert len(caught) == 1
    graphs.release(model)


def test_what_the_static_path_knows():
    assert graphs.supports(tiny("llama"))
    from transformers import AutoConfig, AutoModelForCausalLM

    sliding = AutoConfig.for_model("qwen2", **SIZES, use_sliding_window=True, max_window_layers=1)
    assert not graphs.supports(AutoModelForCausalLM.from_config(sliding))
    dynamic = AutoConfig.for_model(
        "llama", **SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    )
    assert not graphs.supports(AutoModelForCausalLM.from_config(dynamic))
    gemma = AutoConfig.for_model("gemma2", **SIZES, head_dim=8)
    assert not graphs.supports(AutoModelForCausalLM.from_config(gemma))


def test_a_cpu_decodes_in_place_in_exact_sizes_and_keeps_nothing(model, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    sizes, columns = [], []
    step = recording.StaticRunner._step

    def spy(runner, model, width, sampling):
        sizes.append(runner.size)
        columns.append((runner.rows, width))
        step(runner, model, width, sampling)

    monkeypatch.setattr(recording.StaticRunner, "_step", spy)
    requests, sampling = prompts([9, 30], [4, 1]), Sampling(1.0, 20)
    assert graphs.usable(model, requests, sampling)
    found = decode(model, requests, sampling, static=None, ends=range(2, 12))
    assert flat(found) == flat(decode(model, requests, sampling, static=False, ends=range(2, 12)))
    assert set(sizes) == {(5, 50, 20)}
    assert [width for _, width in columns] == list(range(31, 31 + len(columns)))
    assert columns[-1][0] < 5, "no row left"
    assert model not in graphs._RUNNERS


def test_a_cpu_batch_may_take_a_share_of_all_memory_at_most(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    model, requests, sampling = tiny("llama"), prompts([500], [8]), Sampling(1.0, 500)
    token, row = decoding_bytes(model)
    needed = 8 * (1000 * token + row)
    monkeypatch.setattr(graphs, "main_memory", lambda: int(needed / graphs.CPU_SHARE))
    assert graphs.usable(model, requests, sampling)
    monkeypatch.setattr(graphs, "main_memory", lambda: int(needed / graphs.CPU_SHARE) - 99)
    assert not graphs.usable(model, requests, sampling)
    monkeypatch.setattr(graphs, "main_memory", lambda: None)
    assert not graphs.usable(model, requests, sampling)


def test_buffers_go_when_the_reader_stops_early(model):
    answers = decode_batch(
        model, prompts([5, 5], [1, 1]), Sampling(1.0, 9), end_ids=[2], pad_id=0, static=True
    )
    next(answers)
    answers.close()
    assert model not in graphs._RUNNERS


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 8), (8, 8), (9, 16), (33, 48), (49, 64), (65, 96), (97, 128), (129, 192)]
)
def test_row_buckets(rows, size):
    assert recording.bucket_rows(rows) == size


@given(st.integers(1, 5000))
def test_buckets_hold_and_waste_little(count):
    assert count <= recording.bucket_rows(count) <= max(8, 2 * count - 1)
    assert recording.bucket_rows(recording.bucket_rows(count)) == recording.bucket_rows(count)
    assert count <= recording.bucket_columns(count) < count + recording.COLUMN_BLOCK


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_recorded_steps_equal_unrecorded_ones_on_a_gpu(kind):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    model = tiny(kind).cuda()
    requests = prompts([110, 120, 3, 64, 90], [8, 8, 4, 1, 8])
    ends, sampling = tuple(range(2, 8)), Sampling(1.0, 60, 0.95)
    options = {"end_ids": ends, "pad_id": 0}
    with torch.inference_mode():
        plain = dict(decode_batch(model, requests, sampling, **options, static=False))
        for _ in range(2):
            recorded = dict(graphs.decode_static(model, requests, sampling, **options))
            assert flat(recorded) == flat(plain)
    assert graphs._RUNNERS[model]._graphs


def test_draw_tokens_by_hand():
    # Probabilities 0.1, 0.2, 0.3, 0.4: cumulative 0.1, 0.3, 0.6, 1.0.
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4]])).repeat(5, 1)
    uniforms = torch.tensor([0.0, 0.15, 0.35, 0.65, 0.999999])
    assert draw_tokens(logits, uniforms, Sampling(1.0, 1)).tolist() == [0, 1, 2, 3, 3]
    # Nucleus 0.7 keeps 0.4 and 0.3, in vocabulary order 0.3/0.7 = 0.43 and 0.57.
    nucleus = draw_tokens(logits, uniforms, Sampling(1.0, 1, top_p=0.7))
    assert nucleus.tolist() == [2, 2, 2, 3, 3]
    assert draw_tokens(logits, uniforms, Sampling(1.0, 1, top_k=1)).tolist() == [3] * 5
    assert draw_tokens(logits, uniforms, Sampling(0.0, 1)).tolist() == [3] * 5


def test_token_logprobs_by_hand():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    values = token_logprobs(logits, torch.tensor([[1], [3]]))
    assert values.squeeze(1).tolist() == pytest.approx([-1.3862944, -1.3862944])


def plan(lengths, batch_size, budget):
    return plan_batches(
        lengths,
        batch_size,
        width=lambda length: length,
        rows=lambda length: 2,
        fits=lambda rows, width: rows * width <= budget,
    )


def test_plan_batches_by_count_and_by_tokens():
    assert plan([3, 9, 5, 7], 2, 10**9) == [[9, 7], [5, 3]]
    # Two samples each: 9 alone takes 18 of 20; 7 too (14, with 5: 28); 5 and 3 make 4 x 5 = 20.
    assert plan([3, 9, 5, 7], 4, 20) == [[9], [7], [5, 3]]
    assert plan([50], 4, 20) == [[50]]
    assert plan([], 4, 20) == []


@given(st.lists(st.integers(1, 60)), st.integers(1, 6), st.integers(1, 200))
def test_plans_lose_nothing_and_hold_their_limits(lengths, batch_size, budget):
    batches = plan(lengths, batch_size, budget)
    assert [x for batch in batches for x in batch] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) <= batch_size
        assert len(batch) == 1 or 2 * len(batch) * batch[0] <= budget


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40),
    st.floats(0, 1),
    st.sampled_from([1.0, 0.9, 0.3]),
    st.sampled_from([0, 1, 3]),
)
def test_a_drawn_token_has_probability(values, uniform, top_p, top_k):
    """Also for a uniform that rounds to 1, and with most tokens cut away."""
    logits = torch.tensor([values])
    token = int(draw_tokens(logits, torch.tensor([uniform]), Sampling(0.7, 1, top_p, top_k)))
    assert 0 <= token < len(values)
    order = sorted(values, reverse=True)
    if top_k:
        assert values[token] >= order[min(top_k, len(values)) - 1]
    if top_p < 1.0:
        shares = (logits[0] / 0.7).softmax(-1)
        above = shares[shares > shares[token]].sum().item()
        assert above < top_p + 1e-5

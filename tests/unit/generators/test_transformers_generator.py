"""The transformers backend over a tiny model: batches, shared prompts, lack of memory."""

from __future__ import annotations

from typing import Any

import pytest

from ccrl_cli.errors import PreconditionError
from ccrl_cli.generators.base import GenerationRequest, SamplingSettings
from lazily import lazy, needs

torch = lazy("torch")
TransformersGenerator = lazy("ccrl_cli.generators.transformers", "TransformersGenerator")
LoadedModel = lazy("ccrl_cli.models.loading", "LoadedModel")

pytestmark = needs("torch", "transformers")


class Letters:
    """A tokenizer of one token a letter."""

    all_special_tokens = ("<end>",)
    chat_template = "the contents, one behind the other"

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return "".join(message["content"] for message in messages)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [3 + ord(letter) % 90 for letter in text]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(str(i) for i in ids)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=96,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    return LoadedModel(model, Letters(), (2, 5, 9), 0, "float32", "cpu")


def requests(count: int, samples: int = 3) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            f"i{n}",
            tuple(
                ({"role": "user", "content": "abcdefgh" * (n + 1) + ("" if k else "z")},)
                for k in range(samples)
            ),
            tuple(1000 * n + k for k in range(samples)),
        )
        for n in range(count)
    ]


def run(loaded: LoadedModel, count: int, **changes: Any) -> dict[str, tuple]:
    options = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 12, "batch_size": 4} | changes
    generator = TransformersGenerator.around(loaded, SamplingSettings(**options))
    found = list(generator.generate(requests(count)))
    assert len({g.input_id for g in found}) == len(found) == count
    return {g.input_id: g.completions for g in found}


def texts(found: dict[str, tuple]) -> dict[str, list[str]]:
    return {key: [c.text for c in completions] for key, completions in found.items()}


def test_batches_do_not_change_a_sample(loaded):
    alone = run(loaded, 7, batch_size=1)
    assert texts(run(loaded, 7, batch_size=7)) == texts(alone)
    assert len({c.text for c in alone["i0"]}) > 1


def test_equal_prompts_are_read_once(loaded):
    generator = TransformersGenerator.around(loaded, SamplingSettings(1.0, 1.0, 4, 4))
    (request,) = requests(1)
    prompts = generator._prepare(request)
    assert [len(prompt.seeds) for prompt in prompts] == [1, 2]
    assert [prompt.key for prompt in prompts] == [("i0", (0,)), ("i0", (1, 2))]


def test_a_limit_on_tokens_makes_smaller_batches(loaded, monkeypatch):
    sizes = []
    decoding = TransformersGenerator._decode

    def watched(self, batch):
        sizes.append(len(batch))
        yield from decoding(self, batch)

    monkeypatch.setattr(TransformersGenerator, "_decode", watched)
    run(loaded, 6, batch_size=6)
    assert sizes == [6]
    sizes.clear()
    run(loaded, 6, batch_size=6, max_batch_tokens=400)
    # Prompts have 8n + 1 letters, answers 12 tokens, three samples each: 49 + 12 = 61 a row, so two
    # inputs take 6 x 61 = 366 of 400, three of 33 and fewer 9 x 45 = 405, and so on.
    assert sizes == [2, 2, 2]


def failing(monkeypatch, most_rows: int) -> list[int]:
    """Let batches of more rows than this run out of memory, some after a first input is done."""
    from ccrl_cli.generators import transformers as module

    sizes: list[int] = []
    decoding = module.decode_batch

    def limited(model, prompts, sampling, **options):
        rows = sum(len(prompt.seeds) for prompt in prompts)
        sizes.append(rows)
        found = decoding(model, prompts, sampling, **options)
        if rows > most_rows:
            for _ in range(3):
                yield next(found)
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield from found

    monkeypatch.setattr(module, "decode_batch", limited)
    return sizes


def test_a_batch_that_does_not_fit_goes_on_in_halves(loaded, monkeypatch):
    expected = run(loaded, 8, batch_size=8)
    sizes = failing(monkeypatch, most_rows=7)
    found = run(loaded, 8, batch_size=8)
    assert texts(found) == texts(expected)
    assert sizes[0] == 24
    assert min(sizes) <= 7


def test_one_input_that_does_not_fit_says_what_to_lower(loaded, monkeypatch):
    failing(monkeypatch, most_rows=0)
    with pytest.raises(PreconditionError, match="one input with K=3 does not fit") as info:
        run(loaded, 2)
    assert "generation.max_tokens" in info.value.hint

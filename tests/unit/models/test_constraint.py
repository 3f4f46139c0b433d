"""Decoding held to the answer format, by a model that would never write it."""

from __future__ import annotations

import json

import pytest

from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.errors import PreconditionError
from lazily import lazy, needs
from tiny_chat import write_tiny_chat

torch = lazy("torch")
TokenConstraint = lazy("ccrl_cli.models.constraint", "TokenConstraint")
token_bytes = lazy("ccrl_cli.models.constraint", "token_bytes")
decode_batch = lazy("ccrl_cli.models.decoding", "decode_batch")
load_model = lazy("ccrl_cli.models.loading", "load_model")
PromptRequest = lazy("ccrl_cli.models.sampling", "PromptRequest")
Sampling = lazy("ccrl_cli.models.sampling", "Sampling")
LoadOptions = lazy("ccrl_cli.models.weights", "LoadOptions")
Weights = lazy("ccrl_cli.models.weights", "Weights")

pytestmark = needs("torch", "transformers")

NAMES = ("space agency", "rocket", "Größe")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(
        Weights(write_tiny_chat(tmp_path_factory.mktemp("model"))), LoadOptions("float32")
    )


def answers(loaded, names, *, max_tokens=160, temperature=1.0):
    constraint = TokenConstraint(names, loaded.tokenizer, loaded.end_ids)
    requests = [
        PromptRequest(place, loaded.encode(text), list(range(8 * place, 8 * place + 8)))
        for place, text in enumerate(("Ada flew.", "Größe and Ärger — 5 €"))
    ]
    found = decode_batch(
        loaded.model,
        requests,
        Sampling(temperature, max_tokens),
        end_ids=loaded.end_ids,
        pad_id=loaded.pad_id,
        constraint=constraint,
    )
    return [sample for _, samples in sorted(found) for sample in samples]


def test_every_finished_answer_is_valid_and_of_listed_types(loaded):
    samples = answers(loaded, NAMES)
    texts = [loaded.text(sample.token_ids) for sample in samples]
    ended = [t for t, s in zip(texts, samples, strict=True) if s.finish == "stop"]
    assert len(ended) >= 4
    assert any(text != "[]" for text in ended)
    for text in ended:
        assert all(item["type"] in NAMES for item in json.loads(text))
        if all(item["text"].strip() for item in json.loads(text)):
            assert parse_completion(text, {n: n for n in NAMES}).outcome == "valid"
    cut = [t for t, s in zip(texts, samples, strict=True) if s.finish == "length"]
    assert all(text.startswith("[") for text in cut)


def test_log_probabilities_are_those_of_the_free_model(loaded):
    sample = answers(loaded, NAMES, max_tokens=3, temperature=0.0)[0]
    prompt = loaded.encode("Ada flew.")
    with torch.no_grad():
        logits = loaded.model(torch.tensor([prompt])).logits[0, -1].float()
    expected = float(logits.log_softmax(-1)[sample.token_ids[0]])
    assert sample.logprobs[0] == pytest.approx(expected, abs=1e-4)
    assert loaded.text(sample.token_ids[:1]) == "["


def test_tokens_are_bytes_or_refused(loaded):
    tokens = token_bytes(loaded.tokenizer)
    assert sorted(data for data in tokens if data) == [bytes([b]) for b in range(256)]
    assert tokens[2] == b""

    class Pieces:
        all_special_ids = ()

        def get_added_vocab(self):
            return {}

        def get_vocab(self):
            return {"▁the": 0}

    with pytest.raises(PreconditionError, match="not made of bytes"):
        token_bytes(Pieces())

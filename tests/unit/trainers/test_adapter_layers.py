"""Which layers an adapter finds, and which number format a card has."""

from __future__ import annotations

import pytest

from ccrl_cli.errors import PreconditionError
from lazily import lazy, needs

torch = lazy("torch")
transformers = lazy("transformers")
add_adapter = lazy("ccrl_cli.trainers.sft", "add_adapter")

pytestmark = needs("torch", "transformers", "peft", "datasets")


def gpt2():
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=32, vocab_size=8)
    return transformers.GPT2LMHeadModel(config)


def adapted(model):
    return {name.split(".")[-4] for name, p in model.named_parameters() if "lora_A" in name}


def test_all_linear_finds_the_layers_of_any_model():
    model = add_adapter(gpt2(), rank=2, alpha=4.0, modules=("all-linear",))
    assert adapted(model) == {"c_attn", "c_proj", "c_fc"}


def test_names_that_a_model_does_not_have_are_refused_with_those_that_it_has():
    with pytest.raises(
        PreconditionError, match=r"no layer q_proj .*c_attn, c_fc, c_proj"
    ) as caught:
        add_adapter(gpt2(), rank=2, alpha=4.0, modules=("q_proj", "c_attn"))
    assert "all-linear" in caught.value.hint


@pytest.mark.parametrize(
    ("native", "trains", "wanted"),
    [
        (True, False, "bfloat16"),
        (True, True, "bfloat16"),
        (False, False, "float16"),
        (False, True, "float32"),
    ],
)
def test_a_card_that_emulates_bfloat16_does_without(monkeypatch, native, trains, wanted):
    from ccrl_cli.models.loading import choose_dtype

    supported = lambda including_emulation=True: native or including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert choose_dtype("auto", "cuda", trains=trains) == getattr(torch, wanted)

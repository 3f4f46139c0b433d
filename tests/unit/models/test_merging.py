"""Folding an adapter into its weights, and out of them again without a trace."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from ccrl_cli.models.merging import merged_adapter  # noqa: E402


def tiny_model(dtype):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).to(dtype)
    lora = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(model, lora).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_come_back_bit_for_bit(dtype):
    model = tiny_model(getattr(torch, dtype))
    ids = torch.arange(10)[None]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.no_grad():
        apart = model(input_ids=ids).logits
    for _ in range(3):
        with merged_adapter(model), torch.no_grad():
            folded = model(input_ids=ids).logits
            changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    assert len(changed) == 4
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    tolerance = 1e-5 if dtype == "float32" else 0.1
    assert torch.allclose(apart, folded, atol=tolerance)
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, apart)


def test_an_error_inside_puts_the_weights_back():
    model = tiny_model(torch.float32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ZeroDivisionError), merged_adapter(model):
        raise ZeroDivisionError
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_model_without_adapter_is_left_alone():
    model = tiny_model(torch.float32).unload()
    with merged_adapter(model):
        pass

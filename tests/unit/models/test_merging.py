"""Folding an adapter into its weights, and out of them again without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccrl_cli.errors import HeldError
from held import hold
from lazily import lazy, needs

torch = lazy("torch")
peft = lazy("peft")
merged_adapter = lazy("ccrl_cli.models.merging", "merged_adapter")

pytestmark = needs("torch", "peft")


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


def test_an_adapter_that_is_open_elsewhere_is_not_lost(tmp_path, monkeypatch):
    from ccrl_cli.models.loading import save_adapter

    folder = tmp_path / "adapter"
    save_adapter(tiny_model(torch.float32), folder, base="old")
    hold(monkeypatch, lambda source, _: source == folder)
    with pytest.raises(HeldError, match="is open in another program"):
        save_adapter(tiny_model(torch.float32), folder, base="new")
    for place, base in ((folder, "old"), (tmp_path / ".adapter.new", "new")):
        assert (place / "adapter_model.safetensors").is_file()
        content = (place / "adapter_config.json").read_text(encoding="utf-8")
        assert f'"base_model_name_or_path": "{base}"' in content
    monkeypatch.undo()
    save_adapter(tiny_model(torch.float32), folder, base="new")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_warm_ups_model_that_is_open_elsewhere_is_not_lost(tmp_path, monkeypatch):
    from ccrl_cli.config.load import load_profile
    from ccrl_cli.models.loading import LoadedModel
    from ccrl_cli.pipelines.training.warmup import _save

    class Saved:
        def __init__(self, name):
            self.name = name

        def save_pretrained(self, folder):
            (Path(folder) / self.name).write_text("new")

    profile = load_profile(overrides=["warmup.method=full"]).profile
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    hold(monkeypatch, lambda source, _: source == target)
    loaded = LoadedModel(Saved("weights"), Saved("tokenizer"), (0,), 0, "float32", "cpu")
    with pytest.raises(HeldError, match="is open in another program"):
        _save(profile, loaded, target)
    assert (target / "weights").read_text() == "old"
    fresh = sorted(path.name for path in (tmp_path / ".model.new").iterdir())
    assert fresh == ["tokenizer", "weights"]

"""Configurations of published models, as far as their sizes go, in a cache of the hub's form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def _plain(kind, layers, hidden, intermediate, heads, keys, vocabulary, **more):
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocabulary,
        **more,
    }


QWEN_25_1_5B = _plain("qwen2", 28, 1536, 8960, 12, 2, 151936, tie_word_embeddings=True)
CONFIGS = {
    "Qwen/Qwen2.5-1.5B-Instruct": QWEN_25_1_5B,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": QWEN_25_1_5B,
    "Qwen/Qwen2.5-7B-Instruct": _plain("qwen2", 28, 3584, 18944, 28, 4, 152064),
    "Qwen/Qwen3-8B": _plain("qwen3", 36, 4096, 12288, 32, 8, 151936, head_dim=128),
    "Qwen/Qwen3.5-27B": _plain("qwen3_5_text", 64, 5120, 17408, 24, 4, 248320, head_dim=256)
    | {"linear_num_key_heads": 16, "linear_num_value_heads": 48},
    "meta-llama/Llama-3.1-8B-Instruct": _plain("llama", 32, 4096, 14336, 32, 8, 128256),
    "zai-org/GLM-4.7-Flash": _plain("glm4_moe_lite", 47, 2048, 10240, 20, 20, 154880)
    | {"moe_intermediate_size": 1536, "n_routed_experts": 64, "num_experts_per_tok": 4}
    | {"n_shared_experts": 1, "kv_lora_rank": 512, "q_lora_rank": 768, "qk_rope_head_dim": 64}
    | {"qk_nope_head_dim": 192, "v_head_dim": 256},
    "openai/gpt-oss-20b": _plain("gpt_oss", 24, 2880, 2880, 64, 8, 201088, head_dim=64)
    | {"num_local_experts": 32, "num_experts_per_tok": 4}
    | {"quantization_config": {"quant_method": "mxfp4"}},
    "HuggingFaceTB/SmolLM2-135M-Instruct": _plain("llama", 30, 576, 1536, 9, 3, 49152)
    | {"tie_word_embeddings": True},
}


def cached_configs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a hub cache that holds these configurations and nothing else, and stay offline."""
    import huggingface_hub.constants

    commit = "c" * 40
    for name, config in CONFIGS.items():
        folder = cache / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

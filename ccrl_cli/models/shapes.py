"""The shape of a model, from its own config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccrl_cli.core.memory import Architecture, dense
from ccrl_cli.errors import CcrlError
from ccrl_cli.models import hub
from ccrl_cli.models.download import plan_model
from ccrl_cli.models.references import parse_reference

_PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def find_shape(reference: str) -> tuple[Architecture | None, str]:
    """Return a model's shape and where it comes from; None and why, where it cannot be told.

    A hub model that is not here is asked for its ``config.json`` alone, unless offline.

    Args:
        reference: the model as a profile names it.
    """
    try:
        path = _config_path(reference)
        if path is None:
            return None, "it is not downloaded"
        config = json.loads(path.read_text(encoding="utf-8"))
        shape = shape_of(config)
    except CcrlError as error:
        return None, error.message
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"its config.json cannot be read ({type(error).__name__}: {error})"
    if shape is None:
        return None, f"weights of the kind {config.get('model_type')!r} cannot be counted here"
    return shape, "config.json"


def _config_path(reference: str) -> Path | None:
    """Return the configuration of a model; None for one that is to be downloaded as a whole."""
    parsed = parse_reference(reference)
    if parsed.kind == "hub":
        return hub.fetch_config(parsed.name, parsed.revision)
    folder = plan_model(parsed, offline=True).folder
    return folder and folder / "config.json"


def shape_of(config: Mapping[str, Any]) -> Architecture | None:
    """Return the shape that a config.json states.

    Plain decoders are counted by arithmetic; others (experts, latent attention, recurrent layers)
    from an instance of their class without weights, where transformers is installed and knows it.

    Raises:
        KeyError: the configuration of a plain decoder lacks a size.
    """
    kind = config.get("model_type")
    if kind not in _PLAIN:
        return _counted(config)
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


def _counted(config: Mapping[str, Any]) -> Architecture | None:
    """Return the shape of an instance without weights; None without a class for it."""
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        return None
    left_out = ("model_type", "quantization_config")  # counted is what is stored, not how
    options = {key: value for key, value in config.items() if key not in left_out}
    try:
        whole = AutoConfig.for_model(config.get("model_type"), **options)
        text = whole.get_text_config()
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(text)
    except ValueError:
        return None
    head = model.get_output_embeddings()
    matrices = 0
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            matrices += module.weight.numel() if module is not head else 0
        elif not isinstance(module, torch.nn.Conv1d):  # experts: matrices in one block
            own = module.parameters(recurse=False)
            matrices += sum(block.numel() for block in own if block.ndim == 3)
    heads, keys = text.num_attention_heads, text.num_key_value_heads
    width = getattr(text, "v_head_dim", None) or getattr(text, "head_dim", None)
    width = width or text.hidden_size // heads
    return Architecture(
        parameters=sum(block.numel() for block in model.parameters()),
        matrices=matrices,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=_active_width(text),
        heads=heads,
        kv_heads=keys,
        head_dim=width,
        vocabulary=text.vocab_size,
        cached=_cached(text, 2 * keys * width),
        tied=bool(text.tie_word_embeddings),
    )


def _active_width(config: Any) -> int:
    """Return the width inside the feed-forward block: of the experts that a token goes through."""
    chosen = getattr(config, "num_experts_per_tok", None)
    if not chosen:
        return int(config.intermediate_size)
    shared = getattr(config, "n_shared_experts", None) or 0
    width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    return int((chosen + shared) * width)


def _cached(config: Any, attending: int) -> int:
    """Return the numbers that the cache holds for one token, `attending` in a layer that attends.

    Latent attention keeps one latent vector and one rotary key; recurrent layers a state of fixed
    size.
    """
    layers = int(config.num_hidden_layers)
    if latent := getattr(config, "kv_lora_rank", None):
        return layers * int(latent + config.qk_rope_head_dim)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    return attending * sum("linear" not in kind for kind in kinds)

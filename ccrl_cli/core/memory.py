"""How much memory a model takes to generate with and to train: arithmetic, no measurement.

Pure functions of shapes. What is exact (weights, adapters, optimiser, keys and values) is counted;
activations and logits are estimates whose formula is stated, and a fixed reserve stands for the
driver's context and fragmentation. `ccrl doctor` prints the result beside the memory that is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GIB = 1 << 30
#: Bytes for the driver's context, library workspaces and fragmentation.
RESERVE = 1 * GIB
#: float32 copies of a row's logits while a token is drawn.
DRAW_COPIES = 5
#: float32 copies of logits in a training step: the logits, their softmax, their gradient.
LOSS_COPIES = 3

FORMATS: Mapping[str, float] = {
    "float32": 32.0,
    "bfloat16": 16.0,
    "float16": 16.0,
    # 8 bits and one 16-bit scale for 128 x 128 weights.
    "fp8": 8.0 + 16.0 / (128 * 128),
    # 4 bits, an 8-bit scale for 64 weights, a 32-bit scale for 256 of those (QLoRA, 2305.14314).
    "nf4": 4.0 + 8.0 / 64 + 32.0 / (64 * 256),
    # 4 bits, a 16-bit scale and a 4-bit zero point for 128 weights.
    "int4-g128": 4.0 + 20.0 / 128,
    # 4 bits and an 8-bit scale for 32 weights (OCP Microscaling).
    "mxfp4": 4.0 + 8.0 / 32,
    # llama.cpp's mixture of 4- and 6-bit blocks, as its authors measure it over whole models.
    "q4_k_m": 4.85,
}
"""Bits a weight, by format. But for q4_k_m, only matrices of layers are stored so."""
_WHOLE = frozenset({"q4_k_m", "float32", "bfloat16", "float16"})


@dataclass(frozen=True, slots=True)
class Architecture:
    """Shape of a decoder.

    Attributes:
        parameters: all weights.
        matrices: weights of the matrices in the layers (experts too): what 4-bit formats cover.
        layers: number of layers.
        hidden: width of the residual stream.
        intermediate: width inside the feed-forward block (of all active experts).
        heads: query heads.
        kv_heads: key heads.
        head_dim: width of a head.
        vocabulary: tokens.
        cached: numbers that the cache holds for one token, over all layers.
        tied: whether input and output embeddings are one matrix.
    """

    parameters: int
    matrices: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    cached: int
    tied: bool = False


def dense(
    layers: int,
    hidden: int,
    intermediate: int,
    heads: tuple[int, int, int],
    vocabulary: int,
    *,
    tied: bool,
    small: int = 0,
) -> Architecture:
    """Return the shape of a Llama-like decoder, every weight counted.

    Args:
        layers: number of layers.
        hidden: width of the residual stream.
        intermediate: width inside the gated feed-forward block.
        heads: query heads, key heads, width of a head.
        vocabulary: tokens.
        tied: whether input and output embeddings are one matrix.
        small: weights of a layer beside matrices and its two norms (biases, norms of heads).
    """
    queries, keys, width = heads
    attention = 2 * hidden * queries * width + 2 * hidden * keys * width
    matrices = layers * (attention + 3 * hidden * intermediate)
    rest = (1 if tied else 2) * vocabulary * hidden + layers * (2 * hidden + small) + hidden
    return Architecture(
        parameters=matrices + rest,
        matrices=matrices,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=queries,
        kv_heads=keys,
        head_dim=width,
        vocabulary=vocabulary,
        cached=2 * layers * keys * width,
        tied=tied,
    )


def weight_bytes(shape: Architecture, fmt: str) -> int:
    """Return the bytes of all weights in a format of `FORMATS`.

    Embeddings, norms and biases stay in 16 bits where a format is for matrices alone.

    Raises:
        KeyError: the format is not known.
    """
    bits = FORMATS[fmt]
    if fmt in _WHOLE:
        return round(shape.parameters * bits / 8)
    return round(shape.matrices * bits / 8) + 2 * (shape.parameters - shape.matrices)


def cache_bytes(shape: Architecture, rows: int, tokens: int, bytes_each: int = 2) -> int:
    """Return the bytes of keys and values of `rows` sequences of `tokens` tokens."""
    return rows * tokens * shape.cached * bytes_each


def draw_bytes(shape: Architecture, rows: int) -> int:
    """Return the bytes that drawing one token of each row takes at its peak."""
    return DRAW_COPIES * 4 * rows * shape.vocabulary


def prefill_bytes(shape: Architecture, tokens: int) -> int:
    """Return the bytes of one layer's activations over so many prompt tokens, in 16 bits.

    Residual, normed input, queries, keys, values, attention output; gate, up and their product.
    """
    widths = 3 * shape.hidden + 2 * (shape.heads + shape.kv_heads) * shape.head_dim
    return 2 * tokens * (widths + 3 * shape.intermediate)


def layer_activation_bytes(shape: Architecture, tokens: int) -> int:
    """Return the bytes of one layer's activations that a backward pass needs, in 16 bits.

    Counted as in Korthikanti et al. (2205.05198), for a gated feed-forward block and attention that
    stores no scores: inputs of both norms and their outputs, queries, keys, values, attention
    output; gate, up, activated gate, product.
    """
    widths = 4 * shape.hidden + 2 * (shape.heads + shape.kv_heads) * shape.head_dim
    return 2 * tokens * (widths + 4 * shape.intermediate)


def lora_parameters(shape: Architecture, rank: int, targets: frozenset[str]) -> int:
    """Return the weights of a LoRA adapter: rank x (inputs + outputs) of each matrix it is on.

    ``all-linear`` stands for every matrix of a layer.
    """
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = {
        "q_proj": shape.hidden + query,
        "k_proj": shape.hidden + key,
        "v_proj": shape.hidden + key,
        "o_proj": query + shape.hidden,
        "gate_proj": shape.hidden + shape.intermediate,
        "up_proj": shape.hidden + shape.intermediate,
        "down_proj": shape.intermediate + shape.hidden,
    }
    return (
        shape.layers
        * rank
        * sum(size for name, size in sizes.items() if name in targets or "all-linear" in targets)
    )


@dataclass(frozen=True, slots=True)
class GenerationLoad:
    """What is generated at once.

    Attributes:
        inputs: inputs in flight.
        completions: K.
        prompts: distinct prompts of an input.
        prompt_tokens: longest prompt.
        max_tokens: longest answer.
        fmt: format of the weights.
    """

    inputs: int
    completions: int
    prompts: int
    prompt_tokens: int
    max_tokens: int
    fmt: str


@dataclass(frozen=True, slots=True)
class TrainingLoad:
    """What one optimiser step works on.

    Attributes:
        prompts: distinct prompts of a step.
        group: rollouts of one prompt.
        micro_batch: rollouts in one forward pass.
        prompt_tokens: longest prompt.
        completion_tokens: longest rollout.
        fmt: format of the weights.
        rank: rank of the adapter.
        targets: matrices with an adapter.
        optimizer_bytes: bytes of optimiser state for one trained weight.
        checkpointing: whether activations are recomputed.
    """

    prompts: int
    group: int
    micro_batch: int
    prompt_tokens: int
    completion_tokens: int
    fmt: str
    rank: int
    targets: frozenset[str]
    optimizer_bytes: int
    checkpointing: bool


def generation_plan(shape: Architecture, load: GenerationLoad) -> dict[str, int]:
    """Return the bytes of each part of memory while generating, at the peak."""
    rows = load.inputs * load.completions
    prompt_tokens = load.inputs * load.prompts * load.prompt_tokens
    each = 4 if load.fmt == "float32" else 2
    return {
        "weights": weight_bytes(shape, load.fmt),
        "kv_cache": cache_bytes(shape, rows, load.prompt_tokens + load.max_tokens, each),
        "activations": prefill_bytes(shape, prompt_tokens) * each // 2,
        "logits": draw_bytes(shape, rows),
        "reserve": RESERVE,
    }


def training_plan(shape: Architecture, load: TrainingLoad) -> dict[str, int]:
    """Return the bytes of each part of memory of a GRPO step with LoRA; see `training_peak`."""
    adapter = lora_parameters(shape, load.rank, load.targets)
    length = load.prompt_tokens + load.completion_tokens
    each = 4 if load.fmt == "float32" else 2
    rows = load.prompts * load.group
    tokens = load.micro_batch * length
    layer = layer_activation_bytes(shape, tokens) * each // 2
    inputs = each * tokens * shape.hidden * shape.layers
    scored = load.micro_batch * load.completion_tokens
    return {
        "weights": weight_bytes(shape, load.fmt),
        "lora": 4 * adapter,
        "gradients": 4 * adapter,
        "optimizer": load.optimizer_bytes * adapter,
        "reserve": RESERVE,
        "rollout_kv_cache": cache_bytes(shape, rows, length, each),
        "rollout_logits": draw_bytes(shape, rows),
        "update_activations": inputs + layer if load.checkpointing else layer * shape.layers,
        "update_logits": LOSS_COPIES * 4 * scored * shape.vocabulary,
    }


def training_peak(parts: Mapping[str, int]) -> int:
    """Return the peak of a training plan: rollouts and updates take turns, the larger counts."""
    turns = {
        turn: sum(size for name, size in parts.items() if name.startswith(turn))
        for turn in ("rollout_", "update_")
    }
    return sum(parts.values()) - min(turns.values())

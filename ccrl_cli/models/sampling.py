"""What every way of decoding shares: requests, samples, padding, and how a token is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ccrl_cli.records import Finish

#: Finished rows leave the batch when at most this share of it is still running.
COMPACT_BELOW = 0.75


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: temperature 0 is greedy; top_k 0 and top_p 1 keep every token."""

    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """One prompt and the seeds of its samples (as many as samples are wanted).

    Attributes:
        key: whatever names the prompt to the caller.
        token_ids: the prompt.
        seeds: one 63-bit seed a sample; read only when sampling.
    """

    key: Any
    token_ids: Sequence[int]
    seeds: Sequence[int]


@dataclass(slots=True)
class Sample:
    """One decoded answer: tokens (end token included) and their untempered log-probabilities."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Finish = "length"

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability in nats."""
        return sum(self.logprobs) / max(1, len(self.logprobs))


def left_pad(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, both (B, L), padded on the left to the longest row."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[index, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def draw_tokens(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Draw one token a row by inverse CDF.

    Args:
        logits: (B, V) in float32.
        uniforms: (B,) in [0, 1).
        sampling: temperature and nucleus.

    Returns:
        (B,) token ids; the most likely ones when the temperature is 0.
    """
    if sampling.temperature == 0.0:
        return logits.argmax(dim=-1)
    scaled = logits / sampling.temperature
    if sampling.top_k:
        limit = scaled.topk(min(sampling.top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < limit, float("-inf"))
    probabilities = scaled.softmax(dim=-1)
    if sampling.top_p < 1.0:
        ordered, places = probabilities.sort(dim=-1, descending=True)
        beyond = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
        probabilities = probabilities.masked_fill(beyond.gather(-1, places.argsort(dim=-1)), 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:].contiguous()
    target = uniforms.to(cumulative)[:, None] * total
    drawn = torch.searchsorted(cumulative, target, right=True)
    # A uniform that rounds to 1 points behind the last token with any probability.
    last = torch.searchsorted(cumulative, total)
    # Of logits that are not numbers no token is right, but none may point outside the vocabulary.
    return torch.minimum(drawn, last).clamp(max=logits.shape[-1] - 1).squeeze(-1)


def token_logprobs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the untempered log-probabilities of tokens: (B, 1) from logits (B, V)."""
    return logits.gather(-1, tokens) - logits.logsumexp(dim=-1, keepdim=True)


def decoding_bytes(model: Any) -> tuple[int, int]:
    """Return the bytes that decoding takes for a token (keys, values) and for a row (logits).

    Drawing holds the logits of a row about five times, in float32.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = torch.finfo(model.dtype).bits // 8
    return 2 * config.num_hidden_layers * heads * width * each, 5 * 4 * config.vocab_size

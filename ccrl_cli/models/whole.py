"""Decoding of whole batches by a model's own `generate`, with the draws of `decoding`.

For models whose cache cannot let single rows go (recurrent layers), and for engines that replace
the model's own loop (Unsloth). Each row draws from the stream of its own seed here too, by a logits
processor that leaves one token to choose from. A batch is handed out when all of it has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ccrl_cli.core.seeds import uniform_stream
from ccrl_cli.models.sampling import (
    PromptRequest,
    Sample,
    Sampling,
    draw_tokens,
    left_pad,
    token_logprobs,
)


def has_recurrent_layers(model: Any) -> bool:
    """Return whether a model keeps states that are no keys and values (linear attention, SSM)."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ()
    return any("attention" not in kind or kind == "linear_attention" for kind in kinds)


class _Draw:
    """A logits processor that draws: of each row it leaves the drawn token alone."""

    def __init__(self, uniforms: torch.Tensor, sampling: Sampling) -> None:
        self._uniforms = uniforms
        self._sampling = sampling
        self.tokens: list[torch.Tensor] = []
        self.logprobs: list[torch.Tensor] = []

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        logits = scores.float()
        drawn = draw_tokens(logits, self._uniforms[:, len(self.tokens)], self._sampling)[:, None]
        self.tokens.append(drawn)
        self.logprobs.append(token_logprobs(logits, drawn))
        return torch.full_like(scores, float("-inf")).scatter_(1, drawn, 0.0)


def decode_whole(
    model: Any,
    requests: Sequence[PromptRequest],
    sampling: Sampling,
    *,
    end_ids: Sequence[int],
    pad_id: int,
) -> Iterator[tuple[Any, list[Sample]]]:
    """Decode one batch; see `decoding.decode_batch`, whose arguments and results these are."""
    rows = [(request, seed) for request in requests for seed in request.seeds]
    if not rows:
        return
    device = model.device
    ids, mask = left_pad([request.token_ids for request, _ in rows], pad_id, device)
    steps = sampling.max_tokens
    if sampling.temperature == 0.0:
        uniforms = torch.zeros(len(rows), steps)
    else:
        uniforms = torch.from_numpy(np.stack([uniform_stream(seed, steps) for _, seed in rows]))
    draw = _Draw(uniforms.float().to(device), sampling)
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=steps,
            do_sample=False,  # the processor draws
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,
            eos_token_id=list(end_ids),
            pad_token_id=pad_id,
            logits_processor=[draw],
            use_cache=True,
        )
        tokens = torch.cat(draw.tokens, dim=1).tolist()
        logprobs = torch.cat(draw.logprobs, dim=1).tolist()
    ends = frozenset(end_ids)
    samples = [_cut(row, values, ends) for row, values in zip(tokens, logprobs, strict=True)]
    start = 0
    for request in requests:
        count = len(request.seeds)
        yield request.key, samples[start : start + count]
        start += count


def _cut(tokens: list[int], logprobs: list[float], ends: frozenset[int]) -> Sample:
    """Return a row up to and with its first end token."""
    for place, token in enumerate(tokens):
        if token in ends:
            return Sample(tokens[: place + 1], logprobs[: place + 1], "stop")
    return Sample(tokens, logprobs, "length")

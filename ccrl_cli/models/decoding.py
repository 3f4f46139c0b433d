"""One decoder for generation, rollouts and evaluation, over the public cache of transformers.

`transformers.generate` prefills every sample of a prompt, draws from one global generator and keeps
finished rows in the batch until the last one ends. Here the samples of a prompt share one prefill,
each row draws from a stream of its own (so a sample depends on its seed and not on its
neighbours), finished rows leave the batch, and a prompt is handed out as soon as its samples end.
Greedy output equals `generate` token for token (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from ccrl_cli.core.seeds import uniform_stream
from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.constraint import TokenConstraint
from ccrl_cli.models.sampling import (
    COMPACT_BELOW,
    PromptRequest,
    Sample,
    Sampling,
    draw_tokens,
    left_pad,
    token_logprobs,
)

Item = TypeVar("Item")


class _Batch:
    """Rows that are being decoded together, one a sample."""

    def __init__(
        self,
        model: Any,
        requests: Sequence[PromptRequest],
        sampling: Sampling,
        pad_id: int,
        constraint: TokenConstraint | None,
    ) -> None:
        self.model = model
        self.constraint = constraint
        self.requests = requests
        self.sampling = sampling
        device = model.device
        ids, mask = left_pad([request.token_ids for request in requests], pad_id, device)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
        counts = [len(request.seeds) for request in requests]
        repeats = torch.repeat_interleave(
            torch.arange(len(requests), device=device), torch.tensor(counts, device=device)
        )
        self.cache = output.past_key_values
        if any(count != 1 for count in counts):
            self.cache.batch_select_indices(repeats)
        self.logits = output.logits[:, -1].float()[repeats]
        self.mask = mask[repeats]
        self.position = positions[:, -1][repeats]
        self.samples = [[Sample() for _ in request.seeds] for request in requests]
        self.owed = list(counts)
        self.rows = [(i, j) for i, request in enumerate(requests) for j in range(counts[i])]
        self.states = [constraint.start if constraint else 0] * len(self.rows)
        self.uniforms = self._draw_uniforms().to(device)

    def _draw_uniforms(self) -> torch.Tensor:
        """Return (rows, max_tokens) uniforms, each row from the stream of its own seed."""
        if self.sampling.temperature == 0.0:
            return torch.zeros(len(self.rows), self.sampling.max_tokens)
        streams = [
            uniform_stream(self.requests[i].seeds[j], self.sampling.max_tokens)
            for i, j in self.rows
        ]
        return torch.from_numpy(np.stack(streams))

    def run(self, step: int, ends: frozenset[int]) -> tuple[list[int], bool]:
        """Draw token number `step` of every row, and make ready for the next.

        Returns:
            The requests that ended with it, and whether any row goes on.
        """
        tokens = self.choose(step)
        running, finished = [], []
        for row, ((i, j), token) in enumerate(zip(self.rows, tokens.tolist(), strict=True)):
            sample = self.samples[i][j]
            if sample.finish == "stop":
                continue
            if token not in ends:
                running.append(row)
                continue
            sample.finish = "stop"
            self.owed[i] -= 1
            if not self.owed[i]:
                finished.append(i)
        if not running or step == self.sampling.max_tokens - 1:
            return finished, False
        if len(running) <= COMPACT_BELOW * len(self.rows):
            self.keep(running)
            tokens = tokens[torch.tensor(running, device=tokens.device)]
        self.advance(tokens)
        return finished, True

    def choose(self, step: int) -> torch.Tensor:
        """Draw the next token of every row and note it with its log-probability."""
        offered = self.logits
        if self.constraint is not None:
            blocked = self.constraint.blocked(self.states, offered.shape[-1], offered.device)
            offered = offered.masked_fill(blocked, float("-inf"))
        tokens = draw_tokens(offered, self.uniforms[:, step], self.sampling)
        if self.constraint is not None:
            pairs = zip(self.states, tokens.tolist(), strict=True)
            self.states = [self.constraint.advance(state, token) for state, token in pairs]
        logprobs = token_logprobs(self.logits, tokens[:, None]).squeeze(-1)
        for (i, j), token, value in zip(self.rows, tokens.tolist(), logprobs.tolist(), strict=True):
            sample = self.samples[i][j]
            if sample.finish != "stop":
                sample.token_ids.append(token)
                sample.logprobs.append(value)
        return tokens

    def keep(self, rows: list[int]) -> None:
        """Let all rows but these leave the batch."""
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask, self.position = self.mask[index], self.position[index]
        self.uniforms = self.uniforms[index]
        self.states = [self.states[row] for row in rows]
        self.rows = [self.rows[row] for row in rows]

    def advance(self, tokens: torch.Tensor) -> None:
        """Run the model on one more token of every row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
        self.position = self.position + 1
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.position[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits = output.logits[:, -1].float()


def decode_batch(
    model: Any,
    requests: Sequence[PromptRequest],
    sampling: Sampling,
    *,
    end_ids: Sequence[int],
    pad_id: int,
    static: bool | None = None,
    constraint: TokenConstraint | None = None,
) -> Iterator[tuple[Any, list[Sample]]]:
    """Decode one batch and hand out each prompt as soon as all of its samples have ended.

    Args:
        model: a causal language model of transformers, in eval mode.
        requests: the prompts; their samples are the rows of the batch.
        sampling: how tokens are drawn.
        end_ids: tokens that end an answer.
        pad_id: padding token of the prompts.
        static: decode over a static cache (`graphs.decode_static`), by CUDA graphs on a GPU; None:
            where that pays and fits.
        constraint: holds answers to a format; the log-probabilities stay those of the free model.

    Yields:
        The key of a request and its samples, in the order of its seeds.
    """
    if not requests:
        return
    from ccrl_cli.models import graphs
    from ccrl_cli.models.whole import decode_whole, has_recurrent_layers

    if has_recurrent_layers(model):
        if constraint is not None:
            raise PreconditionError(
                "generation.constrained is not there for models with recurrent layers",
                hint="choose --backend vllm, or --set generation.constrained=false",
            )
        yield from decode_whole(model, requests, sampling, end_ids=end_ids, pad_id=pad_id)
        return
    if constraint is not None:
        static = False  # a mask depends on what each row has said so far
    elif static is None:
        static = graphs.usable(model, requests, sampling)
    if static:
        yield from graphs.decode_static(model, requests, sampling, end_ids=end_ids, pad_id=pad_id)
        return
    with torch.inference_mode():
        batch = _Batch(model, requests, sampling, pad_id, constraint)
    running = True
    for step in range(sampling.max_tokens):
        # Nothing is handed out inside: the caller must not find itself in inference mode.
        with torch.inference_mode():
            finished, running = batch.run(step, frozenset(end_ids))
        for i in finished:
            yield requests[i].key, batch.samples[i]
        if not running:
            break
    for i, request in enumerate(requests):
        if batch.owed[i]:
            yield request.key, batch.samples[i]


def plan_batches(
    items: Sequence[Item],
    batch_size: int,
    *,
    width: Callable[[Item], int],
    rows: Callable[[Item], int],
    fits: Callable[[int, int], bool],
) -> list[list[Item]]:
    """Group items of like length, longest first, so that a lack of memory shows at once.

    Args:
        items: what is decoded.
        batch_size: items in a batch at most.
        width: an item's longest prompt, in tokens.
        rows: an item's samples.
        fits: whether a batch of so many rows, as wide as this, may be decoded; a single item is a
            batch even if it does not.

    Returns:
        The batches; every item is in one of them.
    """
    batches: list[list[Item]] = []
    total = 0
    for item in sorted(items, key=width, reverse=True):
        total += rows(item)
        batch = batches[-1] if batches else None
        if batch is None or len(batch) == batch_size or not fits(total, width(batch[0])):
            batches.append([item])
            total = rows(item)
        else:
            batch.append(item)
    return batches

"""One decoder for generation, rollouts and evaluation, over the public cache of transformers.

`transformers.generate` prefills every sample of a prompt, draws from one global generator and keeps
finished rows in the batch until the last one ends. Here the samples of a prompt share one prefill,
each row draws from a stream of its own (so a sample depends on its seed and not on its
neighbours), finished rows leave the batch, and a prompt is handed out as soon as its samples end.
Greedy output equals `generate` token for token (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from ccrl_cli.core.seeds import uniform_stream
from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.constraint import TokenConstraint
from ccrl_cli.records import Finish

Item = TypeVar("Item")

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


def decoding_bytes(model: Any) -> tuple[int, int]:
    """Return the bytes that decoding takes for a token (keys, values) and for a row (logits).

    Drawing holds the logits of a row about five times, in float32.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = torch.finfo(model.dtype).bits // 8
    return 2 * config.num_hidden_layers * heads * width * each, 5 * 4 * config.vocab_size


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

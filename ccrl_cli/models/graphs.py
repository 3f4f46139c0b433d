"""Decoding over a static cache, whose steps a GPU replays as CUDA graphs.

A small model decodes as slowly as Python can launch kernels. Here keys and values live in buffers
whose addresses never change, so one step (model, draw, log-probability, bookkeeping) is recorded
once for each size of the batch and then replayed by one call. Sizes are rounded up to a few
buckets. Finished rows leave the batch when what is left fits a smaller bucket.

The results are those of `decoding.decode_batch` without graphs: same prefill, same uniform streams,
same draws. Recording happens on CUDA alone; without it the same code runs step by step, which is
how it is tested on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ccrl_cli.core.seeds import uniform_stream
from ccrl_cli.models.decoding import (
    PromptRequest,
    Sample,
    Sampling,
    decoding_bytes,
    draw_tokens,
    left_pad,
    token_logprobs,
)

#: Columns (tokens) of the cache come in multiples of this.
COLUMN_BLOCK = 128
#: Steps between two looks at what was drawn: a look waits for the GPU.
WINDOW = 4
#: Steps of one size that run unrecorded first: they warm libraries up, and rare sizes stay cheap.
STEPS_BEFORE_CAPTURE = 3
#: Share of the free GPU memory that buffers may take, else the plain path is used. Buffers stay,
#: and in training the update needs room beside them.
MEMORY_SHARE = 0.25
#: Architectures whose layers are all full attention over one key and value a token.
ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
ATTENTION = "ccrl_grouped"


def bucket_rows(rows: int) -> int:
    """Return the batch size that `rows` rows run at: 8, 16, 32, 48, 64, 96, 128, 192, ..."""
    size = 8
    while size < rows:
        if size >= 32 and size * 3 // 2 >= rows:
            return size * 3 // 2
        size *= 2
    return size


def bucket_columns(columns: int) -> int:
    """Return the cache length that `columns` tokens run at."""
    return -(-columns // COLUMN_BLOCK) * COLUMN_BLOCK


def base_model(model: Any) -> Any:
    """Return the model of transformers inside a model of PEFT, or the model itself."""
    inner = getattr(model, "get_base_model", None)
    return inner() if inner is not None else model


def supports(model: Any) -> bool:
    """Return whether a model's attention and positions are those that the static path knows."""
    config = base_model(model).config
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in ARCHITECTURES
        and set(kinds) == {"full_attention"}
        and (config.model_type != "mistral" or getattr(config, "sliding_window", None) is None)
        and rope.get("rope_type", "default") in ROPE_TYPES
    )


def usable(
    model: Any,
    requests: Sequence[PromptRequest],
    sampling: Sampling,
    share: float = MEMORY_SHARE,
) -> bool:
    """Return whether `decode_static` pays and fits: a GPU, a known architecture, enough memory.

    Args:
        model: the model.
        requests: the prompts.
        sampling: how tokens are drawn.
        share: of the free memory, what the buffers may take.
    """
    device = torch.device(model.device)
    if device.type != "cuda" or not supports(model):
        return False
    rows = bucket_rows(sum(len(request.seeds) for request in requests))
    width = max(len(request.token_ids) for request in requests)
    columns = bucket_columns(width + sampling.max_tokens)
    runner = _RUNNERS.get(model)
    if runner is not None and runner.holds(rows, columns, sampling.max_tokens):
        return True
    token, row = decoding_bytes(base_model(model))
    needed = rows * (columns * token + row)
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return bool(needed <= share * free)


def grouped_attention(
    module: Any,  # noqa: ARG001 - the signature is that of transformers
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from one new token a row without copying keys to every query head.

    The H/G query heads that share a key head stand where query positions usually stand, so keys and
    values are read once.

    Args:
        module: the attention layer.
        query: (B, H, 1, D).
        key: (B, G, L, D).
        value: (B, G, L, D).
        attention_mask: (B, 1, 1, L), added to the scores.
        scaling: factor of the scores.

    Returns:
        (B, 1, H, D), and no weights.
    """
    rows, heads, _length, width = query.shape
    groups = key.shape[1]
    output = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(rows, groups, heads // groups, width),
        key,
        value,
        attn_mask=attention_mask.to(query.dtype),
        scale=scaling,
    )
    return output.reshape(rows, 1, heads, width), None


@contextmanager
def _grouped(model: Any) -> Iterator[None]:
    """Let a model's layers use `grouped_attention`."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, grouped_attention)
    config = base_model(model).config
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def _fingerprint(model: Any) -> int:
    """Return what recorded steps depend on: addresses of weights, adapters that are switched on."""
    adapters = tuple(
        (module._disable_adapters, str(module._active_adapter), tuple(module.merged_adapters))
        for module in model.modules()
        if hasattr(module, "_disable_adapters") and hasattr(module, "merged_adapters")
    )
    places = tuple(parameter.data_ptr() for parameter in model.parameters())
    casts = (torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"))
    return hash((places, adapters, casts))


class _Keys:
    """Keys and values of one batch in place, as a cache of transformers is asked for them."""

    def __init__(
        self, keys: list[torch.Tensor], values: list[torch.Tensor], column: torch.Tensor
    ) -> None:
        self.keys = keys
        self.values = values
        self._column = column

    def view(self, rows: int, columns: int) -> _Keys:
        """Return the first rows and columns of the same memory."""
        return _Keys(
            [key[:rows, :, :columns] for key in self.keys],
            [value[:rows, :, :columns] for value in self.values],
            self._column,
        )

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token of every row and return all of a layer's keys and values."""
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, self._column, key.to(keys.dtype))
        values.index_copy_(2, self._column, value.to(values.dtype))
        return keys, values


class StaticRunner:
    """Buffers for a batch of at most `rows` x `columns`, and the steps recorded over them.

    Args:
        rows: batch size of the buffers.
        columns: cache length of the buffers.
        steps: tokens that can be drawn for each row.
        cache: (keys, values) of each layer of a prefill, for shapes and formats.
        capture: record steps as CUDA graphs.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        steps: int,
        cache: Sequence[tuple[torch.Tensor, torch.Tensor]],
        *,
        capture: bool,
    ) -> None:
        first = cache[0][0]
        device = first.device

        def empty(like: torch.Tensor) -> torch.Tensor:
            return like.new_zeros(rows, like.shape[1], columns, like.shape[3])

        self.size = (rows, columns, steps)
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        self.step = torch.zeros(1, dtype=torch.long, device=device)
        self.cache = _Keys([empty(k) for k, _ in cache], [empty(v) for _, v in cache], self.column)
        self.tokens = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.position = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.mask = first.new_zeros(rows, 1, 1, columns)
        self.uniforms = torch.zeros(rows, steps, dtype=torch.float32, device=device)
        self.drawn = torch.zeros(rows, steps, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(rows, steps, dtype=torch.float32, device=device)
        self.rows = rows
        self._capture = capture
        self._graphs: dict[tuple[Any, ...], Any] = {}
        self._uses: dict[tuple[Any, ...], int] = {}
        self._pool: Any = None

    def holds(self, rows: int, columns: int, steps: int) -> bool:
        """Return whether a batch fits into the buffers."""
        return rows <= self.size[0] and columns <= self.size[1] and steps <= self.size[2]

    def load(
        self,
        cache: Sequence[tuple[torch.Tensor, torch.Tensor]],
        mask: torch.Tensor,
        origin: torch.Tensor,
        uniforms: torch.Tensor,
    ) -> None:
        """Take over a prefill.

        Args:
            cache: (keys, values) of each layer, each (P, G, W, D).
            mask: (P, W), 1 where a prompt has a token.
            origin: (B,) which prompt each row continues, filled up to a bucket.
            uniforms: (B, steps).
        """
        self.rows, width = len(origin), mask.shape[1]
        for layer, (keys, values) in enumerate(cache):
            self.cache.keys[layer][: self.rows, :, :width] = keys[origin]
            self.cache.values[layer][: self.rows, :, :width] = values[origin]
        self.mask.fill_(float("-inf"))
        self.mask[: self.rows, 0, 0, :width].masked_fill_(mask[origin].bool(), 0.0)
        self.position[: self.rows, 0] = mask.sum(dim=-1)[origin] - 1
        self.uniforms[: self.rows, : uniforms.shape[1]] = uniforms
        self.column.fill_(width - 1)
        self.step.zero_()

    def keep(self, index: torch.Tensor) -> None:
        """Go on with these rows alone, moved to the front; (B',) filled up to a bucket."""
        rows = len(index)
        parts = [*self.cache.keys, *self.cache.values]
        parts += [self.tokens, self.position, self.mask, self.uniforms]
        for part in parts:
            part[:rows] = part[index]
        self.rows = rows

    def choose(self, logits: torch.Tensor, sampling: Sampling) -> None:
        """Draw a token of every row, note it, and make room for it in the cache."""
        rows = self.rows
        uniforms = self.uniforms[:rows].index_select(1, self.step).squeeze(1)
        tokens = draw_tokens(logits, uniforms, sampling)[:, None]
        self.drawn[:rows].index_copy_(1, self.step, tokens)
        self.logprobs[:rows].index_copy_(1, self.step, token_logprobs(logits, tokens))
        self.tokens[:rows].copy_(tokens)
        self.step.add_(1)
        self.column.add_(1)
        self.position.add_(1)
        self.mask.index_fill_(3, self.column.clamp(max=self.size[1] - 1), 0.0)

    def advance(self, model: Any, length: int, sampling: Sampling, state: int) -> None:
        """Run the model on the last tokens and draw the next ones.

        Args:
            model: the model.
            length: tokens in the cache after this step.
            sampling: how tokens are drawn.
            state: fingerprint of the model.
        """
        columns = min(bucket_columns(length), self.size[1])
        key = (self.rows, columns, sampling.temperature, sampling.top_p, sampling.top_k, state)
        graph = self._graphs.get(key)
        if graph is not None:
            graph.replay()
            return
        uses = self._uses[key] = self._uses.get(key, 0) + 1
        if self._capture and uses > STEPS_BEFORE_CAPTURE:
            self._graphs[key] = graph = self._record(model, columns, sampling)
            graph.replay()
        else:
            self._step(model, columns, sampling)

    def _step(self, model: Any, columns: int, sampling: Sampling) -> None:
        with _grouped(model), _uncached_autocast():
            output = model(
                input_ids=self.tokens[: self.rows],
                attention_mask=self.mask[: self.rows, :, :, :columns],
                position_ids=self.position[: self.rows],
                past_key_values=self.cache.view(self.rows, columns),
                use_cache=True,
            )
        self.choose(output.logits[:, -1].float(), sampling)

    def _record(self, model: Any, columns: int, sampling: Sampling) -> Any:
        """Record one step; what the GPU computes while it is recorded is nothing."""
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=self._pool):
            self._step(model, columns, sampling)
        return graph


@contextmanager
def _uncached_autocast() -> Iterator[None]:
    """Under autocast, cast weights inside each step: a recorded step must not read a stale copy."""
    if not torch.is_autocast_enabled("cuda"):
        yield
        return
    with torch.autocast("cuda", dtype=torch.get_autocast_dtype("cuda"), cache_enabled=False):
        yield


_RUNNERS: WeakKeyDictionary[Any, StaticRunner] = WeakKeyDictionary()


def release(model: Any) -> None:
    """Free the buffers and recorded steps of a model."""
    _RUNNERS.pop(model, None)


def _runner(
    model: Any,
    size: tuple[int, int, int],
    cache: Sequence[tuple[torch.Tensor, torch.Tensor]],
    capture: bool,
) -> StaticRunner:
    """Return the model's runner, replaced by a larger one when a batch does not fit into it."""
    runner = _RUNNERS.get(model)
    if runner is None or not runner.holds(*size) or runner._capture != capture:
        if runner is not None:
            size = tuple(map(max, size, runner.size))  # type: ignore[assignment]
            release(model)
            del runner
        runner = _RUNNERS[model] = StaticRunner(*size, cache, capture=capture)
    return runner


def decode_static(
    model: Any,
    requests: Sequence[PromptRequest],
    sampling: Sampling,
    *,
    end_ids: Sequence[int],
    pad_id: int,
    capture: bool = True,
) -> Iterator[tuple[Any, list[Sample]]]:
    """Decode one batch; see `decoding.decode_batch`, whose arguments and results these are.

    Args:
        model: a causal language model for which `supports` is true, in eval mode.
        requests: the prompts; their samples are the rows of the batch.
        sampling: how tokens are drawn.
        end_ids: tokens that end an answer.
        pad_id: padding token of the prompts.
        capture: record steps as CUDA graphs, on a GPU.
    """
    batch = _StaticBatch(model, requests, sampling, end_ids)
    started = False
    while not started or (batch.running and batch.done < sampling.max_tokens):
        # Nothing is handed out inside: the caller must not find itself in inference mode.
        try:
            with torch.inference_mode():
                if started:
                    batch.shrink()
                    batch.advance()
                else:
                    batch.start(pad_id, capture and torch.device(model.device).type == "cuda")
                    started = True
                ended = batch.collect()
        except torch.OutOfMemoryError:
            release(model)
            raise
        yield from ended
    yield from batch.unfinished()


class _StaticBatch:
    """One batch on its way through a runner: which row is which sample, and what has ended."""

    def __init__(
        self,
        model: Any,
        requests: Sequence[PromptRequest],
        sampling: Sampling,
        end_ids: Sequence[int],
    ) -> None:
        self.model = model
        self.requests = requests
        self.sampling = sampling
        self.ends = frozenset(end_ids)
        self.samples = [[Sample() for _ in request.seeds] for request in requests]
        self.rows = [
            (i, j) for i, request in enumerate(requests) for j in range(len(request.seeds))
        ]
        self.owed = [len(request.seeds) for request in requests]
        self.running = list(range(len(self.rows)))
        self.done = 0
        self._read = 0
        self._state = _fingerprint(model)

    def start(self, pad_id: int, capture: bool) -> None:
        """Prefill every prompt once, hand its cache to the runner, draw the first tokens."""
        device = self.model.device
        ids, mask = left_pad([request.token_ids for request in self.requests], pad_id, device)
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        cache = [(layer.keys, layer.values) for layer in output.past_key_values.layers]
        rows = bucket_rows(len(self.rows))
        self._width = ids.shape[1]
        columns = bucket_columns(self._width + self.sampling.max_tokens)
        self.runner = _runner(self.model, (rows, columns, self.sampling.max_tokens), cache, capture)
        origin = torch.tensor(_filled([i for i, _ in self.rows], rows), device=device)
        self.runner.load(cache, mask, origin, self._uniforms(rows).to(device))
        del cache
        output.past_key_values = None
        self.runner.choose(output.logits[:, -1].float()[origin], self.sampling)
        self.done = 1

    def _uniforms(self, rows: int) -> torch.Tensor:
        """Return (rows, max_tokens) uniforms, each row from the stream of its own seed."""
        steps = self.sampling.max_tokens
        if self.sampling.temperature == 0.0:
            return torch.zeros(rows, steps)
        streams = [uniform_stream(self.requests[i].seeds[j], steps) for i, j in self.rows]
        return torch.from_numpy(np.stack(_filled(streams, rows))).float()

    def advance(self) -> None:
        """Draw some more tokens without looking at them."""
        for _ in range(min(WINDOW, self.sampling.max_tokens - self.done)):
            self.runner.advance(self.model, self._width + self.done, self.sampling, self._state)
            self.done += 1

    def collect(self) -> list[tuple[Any, list[Sample]]]:
        """Look at the tokens drawn since the last look; return the prompts that ended."""
        window = slice(self._read, self.done)
        count = len(self.rows)
        tokens = self.runner.drawn[:count, window].tolist()
        values = self.runner.logprobs[:count, window].tolist()
        self._read = self.done
        running, finished = [], []
        for row in self.running:
            i, j = self.rows[row]
            sample = self.samples[i][j]
            ended = next((n for n, t in enumerate(tokens[row]) if t in self.ends), None)
            stop = None if ended is None else ended + 1
            sample.token_ids.extend(tokens[row][:stop])
            sample.logprobs.extend(values[row][:stop])
            if ended is None:
                running.append(row)
                continue
            sample.finish = "stop"
            self.owed[i] -= 1
            if not self.owed[i]:
                finished.append((self.requests[i].key, self.samples[i]))
        self.running = running
        return finished

    def shrink(self) -> None:
        """Let finished rows leave when the rest fits a smaller bucket."""
        rows = bucket_rows(len(self.running))
        if rows >= self.runner.rows:
            return
        index = torch.tensor(_filled(self.running, rows), device=self.model.device)
        self.runner.keep(index)
        self.rows = [self.rows[row] for row in self.running]
        self.running = list(range(len(self.rows)))

    def unfinished(self) -> Iterator[tuple[Any, list[Sample]]]:
        """Hand out the prompts of which a sample was cut at the limit."""
        for i, request in enumerate(self.requests):
            if self.owed[i]:
                yield request.key, self.samples[i]


def _filled(values: list[Any], size: int) -> list[Any]:
    """Fill a list up with copies of its first element: rows whose results nobody reads."""
    return values + [values[0]] * (size - len(values))

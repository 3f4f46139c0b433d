"""Buffers that a batch is decoded over, and its steps, recorded as CUDA graphs on a GPU.

Keys, values and all that a step reads or writes live at addresses that never change. What is
recorded for one size (rows, columns) and one way of drawing can therefore be replayed for every
batch of that size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ccrl_cli.models.sampling import Sampling, draw_tokens, token_logprobs

#: Columns (tokens) of the cache come in multiples of this.
COLUMN_BLOCK = 128
#: Steps of one size that run unrecorded first: they warm libraries up, and rare sizes stay cheap.
STEPS_BEFORE_CAPTURE = 3
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


def fingerprint(model: Any) -> int:
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
        capture: record steps as CUDA graphs; without, each step has just the columns it needs.
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
        self.wanted = capture
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
        columns = min(bucket_columns(length), self.size[1]) if self.wanted else length
        key = (self.rows, columns, sampling.temperature, sampling.top_p, sampling.top_k, state)
        graph = self._graphs.get(key)
        if graph is None and self._capture:
            uses = self._uses[key] = self._uses.get(key, 0) + 1
            if uses > STEPS_BEFORE_CAPTURE:
                graph = self._try_to_record(key, model, columns, sampling)
        if graph is not None:
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

    def _try_to_record(
        self, key: tuple[Any, ...], model: Any, columns: int, sampling: Sampling
    ) -> Any:
        """Record a step; None, once with a warning, where the model does what graphs cannot hold.

        Nothing runs while it is recorded, so the step can then be taken as it is.
        """
        try:
            self._graphs[key] = self._record(model, columns, sampling)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._capture = False
            warnings.warn(f"steps of this model cannot be recorded: {error}", stacklevel=2)
        return self._graphs.get(key)

    def _record(self, model: Any, columns: int, sampling: Sampling) -> Any:
        """Record one step; what the GPU computes while it is recorded is nothing."""
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
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

"""Decoding over a static cache, whose steps a GPU replays as CUDA graphs.

A small model decodes as slowly as Python can launch kernels. Here keys and values live in buffers
whose addresses never change, so one step (model, draw, log-probability, bookkeeping) is recorded
once for each size of the batch and then replayed by one call. Sizes are rounded up to a few
buckets. Finished rows leave the batch when what is left fits a smaller bucket.

On a CPU nothing is recorded, sizes are exact and the buffers go after each batch: there it pays
that a step writes its keys and values in place, where a growing cache is copied at every token.

The results are those of `decoding.decode_batch` without graphs: same prefill, same uniform streams,
same draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ccrl_cli.core.seeds import uniform_stream
from ccrl_cli.models.hardware import main_memory
from ccrl_cli.models.recording import (
    StaticRunner,
    base_model,
    bucket_columns,
    bucket_rows,
    fingerprint,
)
from ccrl_cli.models.sampling import (
    COMPACT_BELOW,
    PromptRequest,
    Sample,
    Sampling,
    decoding_bytes,
    left_pad,
)

#: Steps between two looks at what was drawn: a look waits for the GPU.
WINDOW = 4
#: Share of the free GPU memory that buffers may take, else the plain path is used. Buffers stay,
#: and in training the update needs room beside them.
MEMORY_SHARE = 0.25
#: Share of all main memory that buffers may take on a CPU.
CPU_SHARE = 0.125
#: Architectures whose layers are all full attention over one key and value a token.
ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})


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


def can_record(device: torch.device) -> bool:
    """Return whether steps on a device can be recorded."""
    return bool(device.type == "cuda")


def usable(
    model: Any,
    requests: Sequence[PromptRequest],
    sampling: Sampling,
    share: float = MEMORY_SHARE,
) -> bool:
    """Return whether `decode_static` pays and fits: a known architecture, enough memory.

    Args:
        model: the model.
        requests: the prompts.
        sampling: how tokens are drawn.
        share: of a GPU's free memory, what the buffers may take. On a CPU it is a share of all
            memory, so that the same machine always decodes in the same way.
    """
    device = torch.device(model.device)
    if device.type not in ("cpu", "cuda") or not supports(model):
        return False
    rows = sum(len(request.seeds) for request in requests)
    columns = max(len(request.token_ids) for request in requests) + sampling.max_tokens
    token, row = decoding_bytes(base_model(model))
    if device.type == "cpu":
        return rows * (columns * token + row) <= CPU_SHARE * (main_memory() or 0)
    rows, columns = bucket_rows(rows), bucket_columns(columns)
    runner = _RUNNERS.get(model)
    if runner is not None and runner.holds(rows, columns, sampling.max_tokens):
        return True
    needed = rows * (columns * token + row)
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return bool(needed <= share * free)


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
    if runner is None or not runner.holds(*size) or runner.wanted != capture:
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
    capture = capture and can_record(torch.device(model.device))
    batch = _StaticBatch(model, requests, sampling, end_ids)
    started = False
    try:
        while not started or (batch.running and batch.done < sampling.max_tokens):
            # Nothing is handed out inside: the caller must not find itself in inference mode.
            with torch.inference_mode():
                if started:
                    batch.shrink()
                    batch.advance()
                else:
                    batch.start(pad_id, capture)
                    started = True
                ended = batch.collect()
            yield from ended
    except torch.OutOfMemoryError:
        release(model)
        raise
    finally:
        if not capture:
            release(model)
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
        self._state = fingerprint(model)

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
        self._width = ids.shape[1]
        rows, columns = len(self.rows), self._width + self.sampling.max_tokens
        if capture:
            rows, columns = bucket_rows(rows), bucket_columns(columns)
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
        """Draw some more tokens without looking at them; one on a CPU, where a look is free."""
        window = WINDOW if self.runner.wanted else 1
        for _ in range(min(window, self.sampling.max_tokens - self.done)):
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
        """Let finished rows leave when the rest fits a smaller bucket, or is much smaller."""
        rows = len(self.running)
        if self.runner.wanted:
            rows = bucket_rows(rows)
            if rows >= self.runner.rows:
                return
        elif rows > COMPACT_BELOW * self.runner.rows:
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

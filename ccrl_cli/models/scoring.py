"""Log-probabilities of given continuations, in batches that share the work of their prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ccrl_cli.models.loading import LoadedModel, free_memory
from ccrl_cli.models.sampling import left_pad


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """One rendered prompt and the texts that may follow it."""

    prompt: str
    continuations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    """A request in tokens.

    Attributes:
        number: place of the request.
        prefix: tokens of the prompt that all continuations share, the last one left out.
        rows: for each continuation the last shared token and what follows it.
    """

    number: int
    prefix: list[int]
    rows: list[list[int]]


def score_continuations(
    loaded: LoadedModel,
    requests: Sequence[ScoringRequest],
    *,
    batch_rows: int = 256,
    on_done: Callable[[int], None] = lambda _count: None,
) -> list[list[float]]:
    """Return log P(continuation | prompt) for each continuation of each request, in nats.

    The log-probability is summed over the tokens in which prompt and continuation, tokenised
    together, differ from the prompt alone. Each prompt runs once, whatever the number of its
    continuations. When memory runs out the batch is halved.

    Args:
        loaded: model and tokenizer, in eval mode.
        requests: prompts as :meth:`LoadedModel.render` gives them.
        batch_rows: continuations in one forward pass.
        on_done: told how many requests were finished.
    """
    scores: list[list[float]] = [[0.0] * len(request.continuations) for request in requests]
    jobs = [part for job in _tokenise(loaded, requests) for part in _split(job, batch_rows)]
    filled = [0] * len(requests)
    for batch in _plan(jobs, batch_rows):
        done = 0
        for job, values in _score(loaded, batch):
            start = filled[job.number]
            scores[job.number][start : start + len(values)] = values
            filled[job.number] += len(values)
            done += filled[job.number] == len(scores[job.number])
        on_done(done)
    return scores


def _tokenise(loaded: LoadedModel, requests: Sequence[ScoringRequest]) -> Iterator[_Job]:
    """Yield each request in tokens, cut where its prompt and its continuations part."""
    for number, (prompt, wholes) in enumerate(_encode(loaded.tokenizer, requests)):
        shared = min([len(prompt), *(_num_shared(prompt, whole) for whole in wholes)])
        if shared < 2:
            raise ValueError("a prompt and its continuation share fewer than two tokens")
        yield _Job(number, prompt[: shared - 1], [whole[shared - 1 :] for whole in wholes])


def _encode(
    tokenizer: Any, requests: Sequence[ScoringRequest]
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Yield each prompt in tokens, and each of its continuations together with it.

    A chat prompt ends a few characters after a special token, at which a tokenizer cuts its text:
    so the continuations are encoded from there on, not with the whole prompt each. Where the first
    one shows that the pieces do not add up to the whole, they are.
    """
    specials = tuple(tokenizer.all_special_tokens)
    tails = [_after_last(request.prompt, specials) for request in requests]
    texts: list[str] = []
    for request, tail in zip(requests, tails, strict=True):
        texts += (request.prompt, tail, request.prompt + "".join(request.continuations[:1]))
        texts += (tail + after for after in request.continuations)
    if not texts:
        return
    # One call: the tokenizer works on all texts at once.
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    for request, tail in zip(requests, tails, strict=True):
        prompt, end, first = (list(next(encoded)) for _ in range(3))
        ends = [list(next(encoded)) for _ in request.continuations]
        head = prompt[: len(prompt) - len(end)] if tail else prompt
        if [*head, *end] == prompt and [first] == [[*head, *each] for each in ends[:1]]:
            yield prompt, [[*head, *each] for each in ends]
            continue
        wholes = [request.prompt + after for after in request.continuations]
        yield (
            prompt,
            [list(ids) for ids in tokenizer(wholes, add_special_tokens=False)["input_ids"]],
        )


def _after_last(prompt: str, specials: Sequence[str]) -> str:
    """Return what follows the last special token of a prompt; all of it without one."""
    places = [(prompt.rfind(token), len(token)) for token in specials if token]
    return prompt[max((at + length for at, length in places if at >= 0), default=0) :]


def _num_shared(prompt: list[int], whole: list[int]) -> int:
    """Return how many first tokens agree; at least one of the whole is left over."""
    limit = min(len(prompt), len(whole) - 1)
    if whole[:limit] == prompt[:limit]:
        return limit
    return next(i for i in range(limit) if whole[i] != prompt[i])


def _split(job: _Job, limit: int) -> Iterator[_Job]:
    for start in range(0, len(job.rows), limit):
        yield _Job(job.number, job.prefix, job.rows[start : start + limit])


def _plan(jobs: Sequence[_Job], limit: int) -> Iterator[list[_Job]]:
    """Yield batches of jobs with prompts of like length, longest first."""
    batch: list[_Job] = []
    count = 0
    # Stable: parts of one request stay in order.
    for job in sorted(jobs, key=lambda job: -len(job.prefix)):
        if batch and count + len(job.rows) > limit:
            yield batch
            batch, count = [], 0
        batch.append(job)
        count += len(job.rows)
    if batch:
        yield batch


def _score(loaded: LoadedModel, batch: list[_Job]) -> Iterator[tuple[_Job, list[float]]]:
    """Score a batch; when memory runs out, in halves."""
    try:
        values = _forward(loaded, batch)
    except torch.OutOfMemoryError:
        free_memory()
        if len(batch) == 1 and len(batch[0].rows) == 1:
            raise
        if len(batch) == 1:
            half = (len(batch[0].rows) + 1) // 2
            halves = [[part] for part in _split(batch[0], half)]
        else:
            middle = len(batch) // 2
            halves = [batch[:middle], batch[middle:]]
        for part in halves:
            yield from _score(loaded, part)
        return
    start = 0
    for job in batch:
        yield job, values[start : start + len(job.rows)]
        start += len(job.rows)


def _stems(rows: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return neighbouring rows that begin alike, as how many rows and how many first tokens.

    A span is asked under every type: the rows of a span part at the type. A row that shares less
    than half of itself with the one before begins a group.
    """
    groups: list[tuple[int, int]] = []
    for before, row in zip([[], *rows], rows, strict=False):
        shared = next(
            (i for i, (one, other) in enumerate(zip(before, row, strict=False)) if one != other),
            min(len(before), len(row)),
        )
        if groups and 2 * shared >= len(row):
            count, length = groups[-1]
            groups[-1] = (count + 1, shared if count == 1 else min(length, shared))
        else:
            groups.append((1, 1))
    return groups


def _forward(loaded: LoadedModel, batch: Sequence[_Job]) -> list[float]:
    """Return the log-probability of each row of a batch, in order.

    The prompts run first, then what rows of one prompt share, then what is left of each row; the
    last token that is shared is always the first that runs next, since it predicts what follows.
    """
    model: Any = loaded.model
    device, pad = model.device, loaded.pad_id
    groups = [_stems(job.rows) for job in batch]
    sizes = [count for group in groups for count, _ in group]
    lengths = [length for group in groups for _, length in group]
    rows = [row for job in batch for row in job.rows]
    firsts = [sum(sizes[:place]) for place in range(len(sizes))]
    with torch.inference_mode():
        ids, mask = left_pad([job.prefix for job in batch], pad, device)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        cache = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        ).past_key_values
        state = _State(cache, mask, positions[:, -1] + 1)
        state.repeat([len(group) for group in groups])
        stems = [rows[first][:length] for first, length in zip(firsts, lengths, strict=True)]
        shared = [0.0] * len(stems)
        if max(lengths) > 1:
            shared = state.run(model, stems, pad)
        state.repeat(sizes)
        kept = [length for size, length in zip(sizes, lengths, strict=True) for _ in range(size)]
        ends = [row[length - 1 :] for row, length in zip(rows, kept, strict=True)]
        own = state.run(model, ends, pad)
    stem_of = [value for size, value in zip(sizes, shared, strict=True) for _ in range(size)]
    return [one + other for one, other in zip(stem_of, own, strict=True)]


class _State:
    """Keys and values of what has run, with the mask of what counts among them.

    Args:
        cache: of B rows.
        mask: (B, L), 0 at padding.
        begin: (B,) position of the next token.
    """

    def __init__(self, cache: Any, mask: torch.Tensor, begin: torch.Tensor) -> None:
        self._cache, self._mask, self._begin = cache, mask, begin

    def repeat(self, counts: Sequence[int]) -> None:
        """Have each row as often as is said, next to one another."""
        if all(count == 1 for count in counts):
            return
        places = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        places = places.to(self._mask.device)
        self._cache.batch_select_indices(places)
        self._mask, self._begin = self._mask[places], self._begin[places]

    def run(self, model: Any, rows: Sequence[Sequence[int]], pad_id: int) -> list[float]:
        """Return the log-probability of each row given its first token.

        All tokens but the last run, so that a next part begins with the last.
        """
        tail, known = _right_pad(rows, pad_id, self._mask.device)
        ran, counted = tail[:, :-1], known[:, 1:]
        if not ran.shape[1]:
            return [0.0] * len(rows)
        self._mask = torch.cat([self._mask, counted], dim=1)
        steps = torch.arange(ran.shape[1], device=ran.device)
        logits = model(
            input_ids=ran,
            attention_mask=self._mask,
            position_ids=self._begin[:, None] + steps,
            past_key_values=self._cache,
            use_cache=True,
        ).logits
        self._begin = self._begin + counted.sum(dim=1)
        return _summed(logits, tail[:, 1:], counted)


def _summed(logits: torch.Tensor, targets: torch.Tensor, known: torch.Tensor) -> list[float]:
    """Return the summed log-probability of the target tokens of each row, in chunks of float32."""
    sums: list[float] = []
    for start in range(0, len(logits), 64):
        part = logits[start : start + 64].float()
        chosen = part.gather(-1, targets[start : start + 64, :, None]).squeeze(-1)
        values = (chosen - part.logsumexp(dim=-1)) * known[start : start + 64]
        sums.extend(values.sum(dim=-1, dtype=torch.float64).tolist())
    return sums


def _right_pad(
    rows: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask, both (B, L), padded on the right to the longest row."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[index, : len(row)] = 1
    return ids.to(device), mask.to(device)

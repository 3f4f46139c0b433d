"""A fixed batch of prompts, answered now and then: distance to the start, reward, retention."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.errors import UsageError
from ccrl_cli.models.loading import LoadedModel
from ccrl_cli.models.sampling import PromptRequest, Sampling, left_pad
from ccrl_cli.trainers.base import GrpoSettings, Start, TrainInput, TrainTask
from ccrl_cli.trainers.rollouts import Decoder, score_answer

Answered = tuple[TrainInput, list[int], list[int]]
"""An input, its prompt tokens, its answer tokens."""


def k3(policy: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return Schulman's k3 estimate of KL(policy || start) of each token, at least 0.

    Args:
        policy: (T,) log-probabilities of sampled tokens under the policy (nats).
        start: (T,) their log-probabilities under the starting policy.
    """
    difference = start - policy
    return difference.exp() - 1 - difference


def kl_of_answers(tokens: torch.Tensor, lengths: Sequence[int]) -> dict[str, float]:
    """Return ``kl``, the mean over all tokens, and ``kl_median``, the median of the answers' means.

    The k3 estimate has a heavy tail: one sampled token that the start finds e^r times as likely as
    the policy does adds e^r. The mean is the estimate; the median says whether answers moved.

    Args:
        tokens: (T,) estimates of the tokens of some answers, in nats.
        lengths: tokens of each answer, at least 1, T in all.
    """
    means = [float(part.mean()) for part in tokens.split(list(lengths))]
    return {"kl": float(tokens.mean()), "kl_median": statistics.median(means)}


class Probe:
    """Draws answers to fixed prompts with fixed seeds and compares policy and start on them.

    The adapter's starting weights are kept; the start is the same model with them put back. So
    it costs one forward pass, whatever ``beta`` is, and no second model.

    Args:
        loaded: model and tokenizer.
        task: has the prompts.
        settings: options of GRPO.
        decode: how answers are drawn.
        start: starting weights by parameter; None: the adapter as it is now.

    Attributes:
        source_start: F1 of the start on each labelled source input, once it was measured.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        task: TrainTask,
        settings: GrpoSettings,
        decode: Decoder,
        start: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self._loaded = loaded
        self._task = task
        self._settings = settings
        self._decode = decode
        self._items = [*task.probe[: settings.probe_size], *task.source_probe]
        self._prompts = [loaded.encode(item.prompt) for item in self._items]
        self._start = start_weights(loaded.model, None) if start is None else start
        self.source_start: list[float] = []

    def __bool__(self) -> bool:
        """Return whether there is anything to measure."""
        return bool(self._items)

    def is_due(self, step: int) -> bool:
        """Return whether the probe is measured after this step."""
        last = step == self._settings.num_steps
        return bool(self._items) and (last or step % self._settings.probe_every_steps == 0)

    def measure(self) -> dict[str, float]:
        """Return what the policy's answers say.

        ``kl`` and ``kl_median``: see `kl_of_answers`, over the target answers.
        ``probe_reward`` and ``probe_f1``: against the pseudo-labels. ``source_f1``: F1 of mentions
        on labelled source inputs, mean over them, and ``source_f1_error``, its standard error;
        ``source_drop_error``, that of the paired differences from the start on the same inputs.
        """
        model = self._loaded.model
        was_training = model.training
        model.eval()
        try:
            answered = self._answers(model)
            own = [row for row in answered if row[0].input_id in self._task.inputs]
            values = self._scores(answered)
            if own:
                policy = self._logprobs(model, own)
                with self._at_start(model):
                    start = self._logprobs(model, own)
                values |= kl_of_answers(k3(policy, start), [len(answer) for _, _, answer in own])
        finally:
            model.train(was_training)
        return values

    def measure_start(self) -> dict[str, float]:
        """Return what the starting policy's answers say of the labelled source inputs."""
        model = self._loaded.model
        was_training = model.training
        model.eval()
        try:
            with self._at_start(model):
                answered = self._answers(model)
        finally:
            model.train(was_training)
        return self._scores([row for row in answered if row[0].input_id not in self._task.inputs])

    def _scores(self, answered: Sequence[Answered]) -> dict[str, float]:
        ends = frozenset(self._loaded.end_ids)
        rows = [
            score_answer(item, self._loaded.text(tokens), tokens, self._task, ends)
            for item, _, tokens in answered
        ]
        own = [row for row in rows if not row.replayed]
        source = [row for row in rows if row.replayed]
        values = {}
        if own:
            values["probe_reward"] = math.fsum(row.total for row in own) / len(own)
            values["probe_f1"] = math.fsum(row.f1 for row in own) / len(own)
        if source:
            found = [row.f1 for row in source]
            values["source_f1"] = math.fsum(found) / len(found)
            values["source_f1_error"] = _standard_error(found)
            if not self.source_start:
                self.source_start = found
            gaps = [start - now for start, now in zip(self.source_start, found, strict=True)]
            values["source_drop_error"] = _standard_error(gaps)
        return values

    def _answers(self, model: Any) -> list[Answered]:
        requests = [
            PromptRequest(place, ids, [derive_seed(self._settings.seed, "probe", place)])
            for place, ids in enumerate(self._prompts)
        ]
        sampling = Sampling(1.0, self._settings.max_completion_tokens)
        found = self._decode(model, requests, sampling)
        return [
            (item, self._prompts[place], found[place][0].token_ids)
            for place, item in enumerate(self._items)
        ]

    def _logprobs(self, model: Any, rows: Sequence[Answered]) -> torch.Tensor:
        """Return the log-probabilities of all answer tokens in one vector."""
        size = self._settings.micro_batch_size
        parts = [
            self._batch_logprobs(model, rows[first : first + size])
            for first in range(0, len(rows), size)
        ]
        return torch.cat(parts)

    def _batch_logprobs(self, model: Any, rows: Sequence[Answered]) -> torch.Tensor:
        ids, mask = left_pad([p + a for _, p, a in rows], self._loaded.pad_id, model.device)
        kept = max(len(answer) for _, _, answer in rows)
        with torch.no_grad():
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0),
                logits_to_keep=kept + 1,
                use_cache=False,
            ).logits[:, -kept - 1 : -1]
        parts = []
        for row, said, (_, _, answer) in zip(logits, ids, rows, strict=True):
            tokens = said[len(said) - len(answer) :, None]
            # A vocabulary in float32 is large: one row at a time.
            logprobs = row[kept - len(answer) :].float().log_softmax(dim=-1)
            parts.append(logprobs.gather(-1, tokens).squeeze(-1))
        return torch.cat(parts)

    @contextmanager
    def _at_start(self, model: Any) -> Iterator[None]:
        """Put the starting weights back for a moment."""
        now = {name: value.detach().clone() for name, value in adapter_weights(model)}
        write_adapter(model, self._start)
        try:
            yield
        finally:
            write_adapter(model, now)


def adapter_weights(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Return the weights of the adapter that is trained."""
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if ".lora_" in name and ".default." in name
    ]


def _standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean; of one value nothing is known, which is 1."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 1.0


def start_weights(model: Any, start: Start | None) -> dict[str, torch.Tensor]:
    """Return the adapter weights of the starting policy by parameter name.

    Args:
        model: the policy, with the adapter that training goes on from.
        start: the starting policy; None: the model as it is now.

    Raises:
        UsageError: the start's adapter has another shape.
    """
    found = {name: value.detach().clone() for name, value in adapter_weights(model)}
    if start is None:
        return found
    if start.adapter is None:  # B = 0: the adapter changes nothing
        return {n: torch.zeros_like(v) if ".lora_B." in n else v for n, v in found.items()}
    from safetensors.torch import load_file

    stored = load_file(str(start.adapter / "adapter_model.safetensors"))
    known = {name: stored.get(name.replace(".default.", ".")) for name in found}
    for name, value in known.items():
        if value is None or value.shape != found[name].shape:
            raise UsageError(
                f"the adapter to go on from and that of the start, {start.adapter}, have other "
                "shapes, so the distance to the start cannot be measured",
                hint="go on from an adapter that was trained from this start",
            )
    return {name: value.to(found[name]) for name, value in known.items() if value is not None}


def write_adapter(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Put weights of the adapter in the place of what it holds."""
    with torch.no_grad():
        for name, parameter in adapter_weights(model):
            parameter.copy_(weights[name])

"""KL of the policy to where it started, on a fixed batch of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.models.decoding import PromptRequest, Sampling, decode_batch, left_pad
from ccrl_cli.models.loading import LoadedModel
from ccrl_cli.models.merging import merged_adapter
from ccrl_cli.trainers.base import GrpoSettings


def k3(policy: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return Schulman's k3 estimate of KL(policy || start) of each token, at least 0.

    Args:
        policy: (T,) log-probabilities of sampled tokens under the policy (nats).
        start: (T,) their log-probabilities under the starting policy.
    """
    difference = start - policy
    return difference.exp() - 1 - difference


class KlProbe:
    """Draws answers to fixed prompts with fixed seeds and compares policy and start on them.

    The adapter's starting weights are kept; the start is the same model with them put back. So
    it costs one forward pass, whatever ``beta`` is, and no second model.
    """

    def __init__(self, loaded: LoadedModel, prompts: Sequence[str], settings: GrpoSettings) -> None:
        self._loaded = loaded
        self._settings = settings
        self._prompts = [loaded.encode(prompt) for prompt in prompts[: settings.probe_size]]
        self._start = {
            name: parameter.detach().clone() for name, parameter in _adapter_weights(loaded.model)
        }

    def is_due(self, step: int) -> bool:
        """Return whether the probe is measured after this step."""
        last = step == self._settings.num_steps
        return bool(self._prompts) and (last or step % self._settings.probe_every_steps == 0)

    def measure(self, trainer: Any) -> float:
        """Return the mean k3 estimate over the tokens of the probe's answers (nats a token)."""
        model = trainer.accelerator.unwrap_model(trainer.model)
        was_training = model.training
        model.eval()
        try:
            rows = self._answers(model)
            policy = self._logprobs(model, rows)
            with self._at_start(model):
                start = self._logprobs(model, rows)
        finally:
            model.train(was_training)
        return float(k3(policy, start).mean())

    def _answers(self, model: Any) -> list[tuple[list[int], list[int]]]:
        requests = [
            PromptRequest(place, ids, [derive_seed(self._settings.seed, "probe", place)])
            for place, ids in enumerate(self._prompts)
        ]
        sampling = Sampling(1.0, self._settings.max_completion_tokens)
        ends, pad = self._loaded.end_ids, self._loaded.pad_id
        with merged_adapter(model):
            found = sorted(decode_batch(model, requests, sampling, end_ids=ends, pad_id=pad))
        return [(self._prompts[place], samples[0].token_ids) for place, samples in found]

    def _logprobs(self, model: Any, rows: list[tuple[list[int], list[int]]]) -> torch.Tensor:
        """Return the log-probabilities of all answer tokens in one vector."""
        ids, mask = left_pad([p + a for p, a in rows], self._loaded.pad_id, model.device)
        kept = max(len(answer) for _, answer in rows)
        with torch.no_grad():
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0),
                logits_to_keep=kept + 1,
                use_cache=False,
            ).logits[:, :-1]
        logprobs = logits.float().log_softmax(dim=-1)
        chosen = logprobs.gather(-1, ids[:, -kept:, None]).squeeze(-1)
        return torch.cat([chosen[i, kept - len(a) :] for i, (_, a) in enumerate(rows)])

    @contextmanager
    def _at_start(self, model: Any) -> Iterator[None]:
        """Put the starting weights back for a moment."""
        now = {}
        with torch.no_grad():
            for name, parameter in _adapter_weights(model):
                now[name] = parameter.detach().clone()
                parameter.copy_(self._start[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in _adapter_weights(model):
                    parameter.copy_(now[name])


def _adapter_weights(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Return the weights of the adapter that is trained."""
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if ".lora_" in name and ".default." in name
    ]

"""Checks before the first update: the two ways of computing a probability agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ccrl_cli.errors import PreconditionError
from ccrl_cli.trainers.probe import k3

MAX_DECODER_KL = 0.05
"""KL of decoder to trainer before the first update, nats a token; bfloat16 gives 0.001.

The mean probability ratio would not do: over the decoder's samples its expectation is 1 for any
two policies.
"""

MAX_START_KL = 0.05
"""KL to the reference before the first update, nats a token; it is 0 but for rounding."""

_HINT = (
    "try --set model.attention=eager or --set model.dtype=float32; "
    "--set training.sanity_check=false trains all the same"
)


def check_first_batch(
    trainer: Any,
    output: dict[str, Any],
    sampled_logprobs: Sequence[Sequence[float] | None],
    size: int,
) -> dict[str, float]:
    """Compare the first rollouts' probabilities with those that the loss will be computed from.

    Args:
        trainer: TRL's trainer.
        output: what it made of the rollouts.
        sampled_logprobs: the decoder's log-probabilities of each rollout's tokens; None of a
            rollout that nobody drew, which is left out.
        size: rollouts that are looked at.

    Returns:
        ``start_ratio``, the mean ratio of the trainer's probability of a sampled token to the
        decoder's, ``start_kl_decoder``, and ``start_kl_reference`` where there is a reference.

    Raises:
        PreconditionError: they do not agree, so that gradients would mean nothing.
    """
    found = _logprobs(trainer, output, size)
    mask = output["completion_mask"][:size].bool()
    sampled = torch.zeros(found.shape, dtype=found.dtype)
    for place, row in enumerate(sampled_logprobs[:size]):
        if row is None:
            mask[place] = False
        else:
            sampled[place, : len(row)] = torch.tensor(row, dtype=found.dtype)
    sampled = sampled.to(found.device)
    ratio = float((found - sampled)[mask].exp().mean())
    apart = float(k3(sampled, found)[mask].mean())
    values = {"start_ratio": ratio, "start_kl_decoder": apart}
    if not apart <= MAX_DECODER_KL:
        raise PreconditionError(
            f"before the first update the trainer and the decoder disagree by {apart:.3g} nats a "
            f"token (limit {MAX_DECODER_KL:g})",
            hint=_HINT,
        )
    if output.get("ref_per_token_logps") is not None:
        reference = _by_answer(output["ref_per_token_logps"][:size], output["prompt_mask"], mask)
        distance = float(k3(found, reference)[mask].mean())
        values["start_kl_reference"] = distance
        if not distance <= MAX_START_KL:
            raise PreconditionError(
                f"before the first update the policy is {distance:.3g} nats a token away from its "
                "reference, which should be itself",
                hint=_HINT,
            )
    return values


def check_first_gradient(model: Any) -> None:
    """Look at the first gradient before it is used.

    Raises:
        PreconditionError: it is not finite.
    """
    if not gradients_are_finite(model):
        raise PreconditionError(
            "the first gradient is not finite, so nothing was trained",
            hint=_HINT.partition(";")[0],
        )


def gradients_are_finite(model: Any) -> bool:
    """Return whether every gradient is finite, looked at in one go."""
    gradients = [p.grad.detach() for p in model.parameters() if p.grad is not None]
    if not gradients:
        return True
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all())


def _logprobs(trainer: Any, output: dict[str, Any], size: int) -> torch.Tensor:
    """Return the trainer's log-probabilities of sampled tokens at temperature 1, (size, C)."""
    ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)[:size]
    mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)[:size]
    temperature, was_training = trainer.temperature, trainer.model.training
    trainer.temperature = 1.0
    trainer.model.eval()  # without dropout
    try:
        with torch.no_grad():
            found = trainer._get_per_token_logps_and_entropies(
                trainer.model, ids, mask, output["completion_ids"].size(1), batch_size=size
            )[0]
    finally:
        trainer.temperature = temperature
        trainer.model.train(was_training)
    return _by_answer(found.float(), output["prompt_mask"], output["completion_mask"][:size])


def _by_answer(
    values: torch.Tensor, prompt_mask: torch.Tensor, answer_mask: torch.Tensor
) -> torch.Tensor:
    """Return values of answer tokens (B, C), each row from its answer's first token on.

    TRL hands out just these. Unsloth moves the padding behind the answer before it computes them,
    and hands out a window (B, E + C) that begins with the shortest prompt's end: an answer stands
    E - P places into it, with P the padding of its row.
    """
    extra = values.shape[1] - answer_mask.shape[1]
    if extra == 0:
        return values
    rows, width = answer_mask.shape
    padding = (prompt_mask[:rows] == 0).sum(dim=1, keepdim=True)
    places = extra - padding + torch.arange(width, device=values.device)
    return values.gather(1, places.clamp(min=0))

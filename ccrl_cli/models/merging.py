"""An adapter folded into its weights for a while: decoding is launch-bound, and this halves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def merged_adapter(model: Any, *, adapter: str = "default") -> Iterator[None]:
    """Add a LoRA adapter's product to the weights, and put the very same weights back afterwards.

    The weights are copied first: subtracting the product again would leave rounding errors that
    add up over a training. Quantised weights, and models without this adapter, stay as they are.

    Args:
        model: a model, with an adapter of PEFT or without.
        adapter: name of the adapter.
    """
    layers = [] if getattr(model, "is_quantized", False) else _lora_layers(model, adapter)
    kept: list[tuple[Any, torch.Tensor]] = []
    try:
        with torch.no_grad():
            for layer in layers:
                weight = layer.get_base_layer().weight
                kept.append((layer, weight.detach().clone()))
                weight.add_(layer.get_delta_weight(adapter).to(weight.dtype))
                layer.merged_adapters.append(adapter)
        yield
    finally:
        with torch.no_grad():
            for layer, weight in kept:
                layer.get_base_layer().weight.copy_(weight)
                layer.merged_adapters.clear()


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Put a model in eval mode with its adapter folded in, and back as it was afterwards."""
    was_training = model.training
    model.eval()
    try:
        with merged_adapter(model):
            yield
    finally:
        model.train(was_training)


def _lora_layers(model: Any, adapter: str) -> list[Any]:
    """Return the layers whose plain weights an adapter changes."""
    try:
        from peft.tuners.lora import Linear
    except ImportError:
        return []
    return [
        module
        for module in model.modules()
        if isinstance(module, Linear)
        and adapter in module.lora_A
        and not module.merged_adapters
        and type(module.get_base_layer()) is torch.nn.Linear
    ]

"""What the generation benchmarks share: prompts, models, the loops that ccrl is held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.generators.base import GenerationRequest
from ccrl_cli.models.loading import LoadedModel
from ccrl_cli.models.sampling import left_pad

#: Shape of Qwen3-8B, for a model of random weights: speed does not depend on their values.
QWEN3_8B = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}


def sample_requests(count: int, samples: int) -> list[GenerationRequest]:
    """Return prompts for sentences of the sample corpus, each asked for `samples` times."""
    from ccrl_cli.config.load import load_profile
    from ccrl_cli.pipelines.common.domains import load_domain

    domain = load_domain(load_profile("quickstart").profile, "target")
    examples = domain.split("train").examples
    found = []
    for number in range(count):
        example = examples[number % len(examples)]
        name = f"{example.id}-{number // len(examples)}"
        seeds = tuple(derive_seed(0, "benchmark", name, k) for k in range(samples))
        found.append(GenerationRequest(name, (domain.prompt(example),) * samples, seeds))
    return found


def load(reference: str) -> tuple[Path, LoadedModel]:
    """Return a model and its folder; in the number format that ccrl chooses for the device."""
    from ccrl_cli.models.download import ensure_model
    from ccrl_cli.models.loading import load_model
    from ccrl_cli.models.weights import Weights

    folder = ensure_model(reference)
    return folder, load_model(Weights(folder))


def random_8b() -> Any:
    """Return a model of Qwen3-8B's shape with random weights on the GPU, in bfloat16."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("qwen3", **QWEN3_8B)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.eval()


def useful(ids: Sequence[int], ends: frozenset[int]) -> int:
    """Return the tokens up to and with the first end token: what lies behind is padding."""
    for place, token in enumerate(ids):
        if token in ends:
            return place + 1
    return len(ids)


def _options(loaded: LoadedModel, temperature: float, max_tokens: int) -> dict[str, Any]:
    return {
        "do_sample": True,
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "max_new_tokens": max_tokens,
        "pad_token_id": loaded.pad_id,
        "eos_token_id": list(loaded.end_ids),
        "repetition_penalty": 1.0,
    }


def one_by_one(
    loaded: LoadedModel, prompts: list[list[int]], samples: int, temperature: float, most: int
) -> int:
    """Return the tokens of a loop that calls `generate` for each sample of each prompt."""
    ends, total = frozenset(loaded.end_ids), 0
    for prompt in prompts:
        ids = torch.tensor([prompt], device=loaded.model.device)
        for _ in range(samples):
            out = loaded.model.generate(ids, **_options(loaded, temperature, most))
            total += useful(out[0, len(prompt) :].tolist(), ends)
    return total


def by_prompt(
    loaded: LoadedModel, prompts: list[list[int]], samples: int, temperature: float, most: int
) -> int:
    """Return the tokens of a loop that calls `generate` for each prompt, for all its samples."""
    ends, total = frozenset(loaded.end_ids), 0
    for prompt in prompts:
        ids = torch.tensor([prompt], device=loaded.model.device)
        out = loaded.model.generate(
            ids, num_return_sequences=samples, **_options(loaded, temperature, most)
        )
        total += sum(useful(row.tolist(), ends) for row in out[:, len(prompt) :])
    return total


def padded(
    loaded: LoadedModel,
    prompts: list[list[int]],
    samples: int,
    temperature: float,
    most: int,
    batch: int = 16,
) -> int:
    """Return the tokens of batches as TRL makes them: every sample its own padded row.

    Prompts come in the order given, `batch` of them in a batch, and a batch lasts until its last
    row has ended.
    """
    ends, total = frozenset(loaded.end_ids), 0
    for start in range(0, len(prompts), batch):
        rows = [prompt for prompt in prompts[start : start + batch] for _ in range(samples)]
        ids, mask = left_pad(rows, loaded.pad_id, loaded.model.device)
        out = loaded.model.generate(ids, attention_mask=mask, **_options(loaded, temperature, most))
        total += sum(useful(row.tolist(), ends) for row in out[:, ids.shape[1] :])
    return total


def rate(run: Callable[[], int], repeats: int = 1) -> float:
    """Return the median tokens a second of `repeats` runs."""
    rates = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        tokens = run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        rates.append(tokens / (time.perf_counter() - started))
    return statistics.median(rates)

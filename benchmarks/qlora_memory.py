"""Peak memory and seconds of a GRPO step on 4-bit weights of Qwen3-8B's shape, two trainers.

    python benchmarks/qlora_memory.py --tokenizer FOLDER     # an NVIDIA GPU

--tokenizer is any chat model's folder (its tokenizer is used; answers of random weights mean
nothing). A folder with random weights in 8B shape is written to --scratch once (16 GB). Then each
trainer, Unsloth and plain TRL with bitsandbytes, runs in a process of its own: NF4 weights, LoRA of
rank 16, gradient checkpointing, G = 8, prompts of 256 and answers of 128 tokens, under a cap of
--cap-gib of GPU memory. Both run through ccrl's trainer with the same options, so only the backend
differs. The first step is left out of the seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

SIZE_OF_TEST = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}


def main() -> None:
    """Run both trainers, each in its own process, and print their figures side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", required=True, type=Path)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "random-8b")
    parser.add_argument("--cap-gib", type=float, default=24.0)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--answer-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a small shape, to try the script")
    parser.add_argument("--only", choices=["unsloth", "trl"])
    parser.add_argument("--worker", choices=["unsloth", "trl"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(_measure(arguments)))
        return
    _write(arguments)
    found = {}
    for name in [arguments.only] if arguments.only else ["unsloth", "trl"]:
        words = [*sys.argv[1:], "--worker", name]
        done = subprocess.run(
            [sys.executable, __file__, *words], capture_output=True, text=True, check=False
        )
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            found[name] = {"failed": (done.stderr or done.stdout).strip()[-600:]}
        else:
            found[name] = json.loads(lines[-1])
        print(name, json.dumps(found[name]), file=sys.stderr)
    print(json.dumps({"cap_gib": arguments.cap_gib, **found, **_ratio(found)}, indent=2))


def _ratio(found: dict[str, Any]) -> dict[str, Any]:
    try:
        slow, fast = found["trl"]["seconds_per_step"], found["unsloth"]["seconds_per_step"]
    except KeyError:
        return {}
    return {"ratio_seconds_trl_to_unsloth": round(slow / fast, 2)}


def _write(arguments: argparse.Namespace) -> None:
    """Write a model folder of random weights, in a process that then ends."""
    if (arguments.scratch / "config.json").is_file():
        return
    code = (
        "import sys; sys.path.insert(0, sys.argv[3]);"
        "import qlora_memory as q; q.write_random(sys.argv[1], sys.argv[2], sys.argv[4] == '1')"
    )
    here = str(Path(__file__).resolve().parent)
    words = [str(arguments.tokenizer), str(arguments.scratch), here, str(int(arguments.tiny))]
    subprocess.run([sys.executable, "-c", code, *words], check=True)


def write_random(tokenizer: str, scratch: str, tiny: bool) -> None:
    """Write random weights in the shape of Qwen3-8B beside a tokenizer."""
    import torch
    from peers import QWEN3_8B
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    shape = {**QWEN3_8B, **(SIZE_OF_TEST if tiny else {})}
    config = AutoConfig.for_model(
        "qwen3",
        **shape,
        max_position_embeddings=4096,
        eos_token_id=words.eos_token_id,
        bos_token_id=words.bos_token_id,
        pad_token_id=words.pad_token_id,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    fresh = Path(scratch).with_name(Path(scratch).name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(str(fresh))
    words.save_pretrained(str(fresh))
    fresh.rename(scratch)


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a few steps with one backend; return peak memory and seconds."""
    from ccrl_cli.models.weights import LoadOptions, Weights
    from ccrl_cli.trainers.registry import PolicySpec, trainer_backend

    backend = trainer_backend(arguments.worker)  # Unsloth first, before transformers
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, arguments.cap_gib * 2**30 / total))
    spec = PolicySpec(
        weights=Weights(arguments.scratch),
        options=LoadOptions(load_in_4bit=on_gpu),
        rank=16,
        alpha=32.0,
        dropout=0.0,
        modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        adapter_seed=0,
        max_tokens=arguments.prompt_tokens + arguments.answer_tokens,
        gradient_checkpointing=True,
    )
    loaded = backend.load(spec)
    weights = torch.cuda.max_memory_reserved() if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    records, stamps = _train(arguments, backend, loaded)
    walls = [after - before for before, after in pairwise(stamps[1:])]
    found: dict[str, Any] = {
        "seconds_per_step": round(statistics.median(walls), 2),
        "seconds": {
            part: round(statistics.median(r[f"seconds_{part}"] for r in records[1:]), 2)
            for part in ("generate", "score", "train")
        },
        "answer_tokens": records[-1]["answer_tokens"],
        "start_kl_decoder": records[0].get("start_kl_decoder"),
    }
    if on_gpu:
        found["device"] = torch.cuda.get_device_name()
        found["peak_reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
        found["peak_allocated_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        found["loading_reserved_gib"] = round(weights / 2**30, 2)
    return found


def _train(arguments: argparse.Namespace, backend: Any, loaded: Any) -> tuple[list, list[float]]:
    """Train on prompts of the wanted length whose answers never end before the limit."""
    from dataclasses import replace

    import numpy as np

    from ccrl_cli.core.alignment import Aligner, tokenize
    from ccrl_cli.core.curriculum import CurriculumSampler, Schedule
    from ccrl_cli.core.pacing import Pacing
    from ccrl_cli.core.rewards import RewardWeights, make_target
    from ccrl_cli.records import Example
    from ccrl_cli.trainers.base import TrainHooks, TrainInput, TrainTask

    loaded = replace(loaded, end_ids=())
    inputs = {}
    for number in range(arguments.prompts * arguments.steps):
        text = f"{number} " + "word " * arguments.prompt_tokens
        ids = loaded.encode(text)[: arguments.prompt_tokens]
        prompt = loaded.tokenizer.decode(ids)
        example = Example("Ada met Bo .", *tokenize("Ada met Bo ."))
        inputs[f"i{number}"] = TrainInput(f"i{number}", prompt, make_target(Aligner(example), ()))
    schedule = Schedule(len(inputs), arguments.steps, arguments.prompts, Pacing("constant"))
    sampler = CurriculumSampler(tuple(inputs), schedule, np.random.Generator(np.random.Philox(0)))
    records: list[dict[str, Any]] = []
    stamps = [time.perf_counter()]

    def on_step(record: dict[str, Any]) -> None:
        records.append(record)
        stamps.append(time.perf_counter())

    task = TrainTask(inputs, RewardWeights())
    with tempfile.TemporaryDirectory() as folder:
        hooks = TrainHooks(on_step=on_step)
        backend.train(loaded, task, sampler, _settings(arguments), Path(folder), hooks)
    return records, stamps


def _settings(arguments: argparse.Namespace) -> Any:
    from ccrl_cli.trainers.base import GrpoSettings

    return GrpoSettings(
        num_steps=arguments.steps,
        seed=0,
        prompts_per_step=arguments.prompts,
        num_generations=arguments.generations,
        micro_batch_size=arguments.micro_batch,
        learning_rate=1e-6,
        lr_scheduler="constant",
        lr_warmup_ratio=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optimizer="adamw_torch",
        beta=0.01,
        epsilon=0.2,
        epsilon_high=0.2,
        loss_type="dr_grpo",
        scale_rewards="none",
        num_iterations=1,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_completion_tokens=arguments.answer_tokens,
        mask_truncated_completions=False,
        multi_objective_aggregation="sum_then_normalize",
        gradient_checkpointing=True,
        save_every_steps=10_000,
        keep_checkpoints=1,
        probe_size=0,
        probe_every_steps=10_000,
        sanity_check=False,
    )


if __name__ == "__main__":
    main()

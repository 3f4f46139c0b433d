"""Warm-up: supervised fine-tuning on the labelled source domain."""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.data.catalog import DatasetSpec, SplitReader, available_splits, without_duplicates
from ccrl_cli.data.prompts import (
    TypeAugmentation,
    answer,
    augment_types,
    get_template,
    render,
)
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.files import replacing_folder
from ccrl_cli.pipelines.common.manifest import hardware, package_versions
from ccrl_cli.pipelines.common.weights import base_weights, load_options, warmup_digest, warmup_path
from ccrl_cli.store.atomic import write_json

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.models.loading import LoadedModel
    from ccrl_cli.models.weights import Weights
    from ccrl_cli.records import Example
    from ccrl_cli.reporting import Reporter


@dataclass(frozen=True, slots=True)
class WarmupResult:
    """What the warm-up did.

    Attributes:
        path: adapter folder (lora) or model folder (full).
        examples: labelled sentences trained on.
        too_long: examples left out because they exceed ``warmup.max_tokens``.
        steps: optimiser steps.
        loss: mean training loss (nats a token) over the last tenth of the steps.
        seconds: wall time.
        data: data sets with the digest of what was read.
    """

    path: str
    examples: int
    too_long: int
    steps: int
    loss: float
    seconds: float
    data: dict[str, str]


def warmup(
    profile: Profile, *, reporter: Reporter, data: SplitReader | None = None
) -> WarmupResult:
    """Fine-tune the profile's model on its labelled source domain.

    Args:
        profile: the profile.
        reporter: told of progress.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        PreconditionError: a package or the model is missing, or no example is left.
        UsageError: the profile names a finished warm-up, which must not be overwritten.
    """
    started = time.perf_counter()
    section = profile.warmup
    if section.folder:
        raise UsageError(
            f"the profile starts from the finished warm-up in {section.folder}",
            hint="unset it to make one of this run: --set warmup.folder=",
        )
    start = base_weights(profile, profile.model.name, reporter)
    digest = warmup_digest(profile)
    out = warmup_path(profile)
    _drop_foreign_checkpoints(out, digest)
    loaded = _load(profile, start)
    labelled, digests = _labelled(profile, data or SplitReader())
    num_steps = section.max_steps or math.ceil(section.epochs * len(labelled) / section.batch_size)
    pairs, too_long = _pairs(profile, loaded, labelled, num_steps * section.batch_size)
    if not pairs:
        raise PreconditionError(
            f"no example of {profile.data.source.reference} fits into warmup.max_tokens = "
            f"{section.max_tokens}",
            hint="raise warmup.max_tokens",
        )
    result = _train(profile, loaded, pairs, num_steps, reporter)
    target = out / ("adapter" if section.method == "lora" else "model")
    _save(profile, loaded, target)
    outcome = WarmupResult(
        path=str(target),
        examples=len(labelled),
        too_long=too_long,
        steps=result.steps,
        loss=round(result.loss, 5),
        seconds=round(time.perf_counter() - started, 1),
        data=digests,
    )
    write_json(
        out / "warmup.json",
        {
            **asdict(outcome),
            "digest": digest,
            "model": profile.model.name,
            "revision": start.revision,
            "profile": profile.warmup.model_dump(),
            "versions": package_versions(),
            "hardware": hardware(),
        },
    )
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return outcome


def _drop_foreign_checkpoints(out: Path, digest: str) -> None:
    """Remove what an interrupted warm-up with other settings left behind, and note ours."""
    place = out / "begun.json"
    begun = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else None
    if begun != digest:
        shutil.rmtree(out / "checkpoints", ignore_errors=True)
        (out / "warmup.json").unlink(missing_ok=True)
        write_json(place, digest)


def _load(profile: Profile, start: Weights) -> LoadedModel:
    """Load the model to train: with an adapter (lora), or with every weight in float32 (full)."""
    from dataclasses import replace

    from ccrl_cli.models.loading import load_model
    from ccrl_cli.trainers.sft import add_adapter

    full = profile.warmup.method == "full"
    options = load_options(profile)
    if full:
        options = replace(options, dtype="float32")
    loaded = load_model(start, options, trainable=not full)
    if full or start.adapter is not None:
        return loaded
    _seed_adapter(profile)
    model = add_adapter(
        loaded.model,
        rank=profile.warmup.lora_rank,
        alpha=profile.warmup.lora_alpha,
        modules=profile.training.lora_target_modules,
    )
    return replace(loaded, model=model)


def _seed_adapter(profile: Profile) -> None:
    """Seed the library generators, from which new adapter weights are drawn."""
    from ccrl_cli.trainers.seeding import seed_libraries

    seed_libraries(derive_seed(profile.run.seed, "adapter") % 2**32)


def _save(profile: Profile, loaded: LoadedModel, target: Path) -> None:
    """Write the adapter, or the whole model with its tokenizer, replacing an older one."""
    from ccrl_cli.models.loading import save_adapter
    from ccrl_cli.models.modes import open_weights

    if profile.warmup.method == "lora":
        save_adapter(loaded.model, target, base=profile.model.name, half=True)
        return
    with replacing_folder(target) as fresh:
        loaded.model.save_pretrained(str(fresh))
        open_weights(fresh)
        loaded.tokenizer.save_pretrained(str(fresh))


def _labelled(
    profile: Profile, reader: SplitReader
) -> tuple[list[tuple[Example, TypeNames]], dict[str, str]]:
    """Return labelled sentences with the type names of their set, and digests by set."""
    target = DatasetSpec(profile.data.target.reference, {"test": profile.data.target.test_split})
    # A target of bare sentences has no test file, and then nothing to keep out.
    has_test = "test" in available_splits(target)
    held_out = reader.load(target, "test").examples if has_test else ()
    rows: list[tuple[Example, TypeNames]] = []
    digests = {}
    source = profile.data.source
    specs = [
        DatasetSpec(
            source.reference, {"train": source.train_split}, source.labels, source.max_train_samples
        ),
        *(DatasetSpec(name) for name in profile.warmup.sets),
    ]
    for spec in specs:
        split = reader.load(spec, "train")
        names = TypeNames.build(
            split.labels,
            {**split.type_names, **profile.data.type_names},
            descriptions=profile.data.type_descriptions,
        )
        kept, _ = without_duplicates(split.examples, held_out)
        rows += [(example, names) for example in kept if example.gold is not None]
        digests[spec.source] = split.digest
    if not rows:
        raise PreconditionError(
            f"{source.reference} has no labelled sentences to warm up on",
            hint="name a labelled data set in data.source",
        )
    return rows, digests


def _pairs(
    profile: Profile,
    loaded: LoadedModel,
    rows: list[tuple[Example, TypeNames]],
    count: int,
) -> tuple[list[tuple[list[int], list[int]]], int]:
    """Return `count` prompts and answers as tokens, each pass with other type lists."""
    section = profile.warmup
    template = get_template(profile.prompt.template)
    special = tuple(loaded.tokenizer.all_special_tokens)
    settings = TypeAugmentation(
        drop=section.drop_types,
        rename=section.rename_types,
        paraphrases=profile.prompt.paraphrases,
    )
    pairs: list[tuple[list[int], list[int]]] = []
    too_long: set[str] = set()
    for visit in range(math.ceil(count / len(rows))):
        order = list(range(len(rows)))
        random.Random(derive_seed(profile.run.seed, "warmup-order", visit)).shuffle(order)
        for place in order[: count - visit * len(rows)]:
            example, names = rows[place]
            gold = example.gold_entities()
            rng = random.Random(derive_seed(profile.run.seed, "warmup", example.id, visit))
            shown = augment_types(rng, {e.type for e in gold}, names.identifiers, names, settings)
            messages = render(
                template,
                example.text,
                shown.types,
                shown.names,
                shown.types,
                special_tokens=special,
            )
            text = answer(shown.keep(gold), shown.names, special_tokens=special)
            prompt = loaded.encode(loaded.render(messages))
            reply = loaded.encode_answer(text)
            if len(prompt) + len(reply) > section.max_tokens:
                too_long.add(example.id)
                continue
            pairs.append((prompt, reply))
    return pairs, len(too_long)


def _train(
    profile: Profile,
    loaded: LoadedModel,
    pairs: list[tuple[list[int], list[int]]],
    num_steps: int,
    reporter: Reporter,
) -> Any:
    """Run the supervised trainer with progress."""
    from ccrl_cli.trainers.sft import SupervisedSettings, train_supervised

    section = profile.warmup
    settings = SupervisedSettings(
        method=section.method,
        max_steps=num_steps,
        learning_rate=section.learning_rate,
        batch_size=section.batch_size,
        micro_batch_size=section.micro_batch_size,
        save_every_steps=max(10, num_steps // 4),
        seed=derive_seed(profile.run.seed, "warmup-trainer") % 2**32,
    )
    with reporter.progress(num_steps, "warm up", unit="steps") as progress:
        done = 0

        def on_step(step: int, record: dict[str, float]) -> None:
            nonlocal done
            progress.advance(step - done, loss=f"{record['loss']:.3f}")
            done = step

        return train_supervised(
            loaded,
            pairs,
            settings,
            warmup_path(profile) / "checkpoints",
            on_step=on_step,
        )

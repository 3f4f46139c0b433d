"""A run directory made in seconds: mock completions by the real pipeline, scores by core.

The answers before and after training are gold labels with two rates of seeded mistakes, so every
number on the page is computed from them; only the training records are drawn from a formula.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.metrics import forgetting
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.generators.base import GenerationRequest
from ccrl_cli.generators.mock import MockGenerator
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.common.manifest import run_manifest
from ccrl_cli.pipelines.evaluation.prediction import Answer, place_answer
from ccrl_cli.pipelines.evaluation.scoring import f1_difference, score_predictions
from ccrl_cli.pipelines.generation.generate import GenerateOptions, generate
from ccrl_cli.records import Entity
from ccrl_cli.reporting import NullReporter
from ccrl_cli.store.runs import RunDirectory

PHASES = ("before", "after")
NOISE = {("target", "before"): 0.5, ("target", "after"): 0.2, ("source", "before"): 0.2,
         ("source", "after"): 0.25}  # fmt: skip


def make_run(folder: Path, name: str = "demo", *, arm: str = "curriculum", seed: int = 0,
             noise: dict[tuple[str, str], float] | None = None,
             overrides: tuple[str, ...] = ()) -> Path:  # fmt: skip
    """Write a run directory and return it."""
    given = [f"run.dir={folder.as_posix()}", f"run.name={name}", f"run.seed={seed}",
             "generation.backend=mock", "generation.constrained=false", "model.adapter=",
             *overrides]  # fmt: skip
    loaded = load_profile("quickstart", given)
    profile = loaded.profile
    if not profile.store_path.exists():
        generate(profile, GenerateOptions(), reporter=NullReporter())
    run = RunDirectory(profile.run_path)
    target = load_domain(profile, "target")
    run.write_manifest({**run_manifest(profile, target, loaded.origins), "arm": arm})
    rates = {**NOISE, **(noise or {})}
    domains = {role: _score(run, profile, role, rates) for role in ("target", "source")}
    source = domains["source"]
    run.write_evaluation({
        "schema": 1, "split": "test", "reportable": False, "created": "2026-01-01T00:00:00+00:00",
        "domains": domains,
        "forgetting": forgetting(source["before"]["f1"], source["after"]["f1"]),
    })  # fmt: skip
    _train(run, seed)
    run.mark_done("train", "0", seconds=12.0)
    return run.path


def _score(run, profile, role, noise):
    domain = load_domain(profile, role)
    split = domain.split("test")
    answers = {when: _answers(profile, domain, split, role, when, noise) for when in PHASES}
    for when, predictions in answers.items():
        rows = [json.dumps(p.row()) + "\n" for p in predictions]
        run.predictions_path(f"{role}-{when}").write_text("".join(rows), encoding="utf-8")
    rng = np.random.default_rng(0)
    scores = {when: asdict(score_predictions(p, domain.labels, rng)) for when, p in answers.items()}
    delta = asdict(f1_difference(answers["after"], answers["before"], rng))
    return {"data": domain.spec.source, "digest": split.digest, "mode": "held-out", **scores,
            "delta_f1": delta}  # fmt: skip


def _answers(profile, domain, split, role, when, noise):
    names = domain.names
    shown = {e.id: [Entity(m.text, names.name(m.type)) for m in e.gold_entities()]
             for e in split.examples}  # fmt: skip
    maker = MockGenerator(shown, [name for _, name in names.pairs], noise=noise[role, when])
    requests = [
        GenerationRequest(e.id, ((),), (derive_seed(profile.run.seed, role, when, e.id),))
        for e in split.examples
    ]
    found = {g.input_id: g.completions[0] for g in maker.generate(requests)}
    return [
        place_answer(e, Answer.of(parse_completion(found[e.id].text, names.by_name), found[e.id]))
        for e in split.examples
    ]


def _train(run, seed):
    rng = np.random.default_rng(seed)
    with run.journal("metrics") as metrics:
        for step in range(1, 25):
            share = (0.25, 0.5, 1.0)[(step - 1) // 8]
            reward = 0.5 + 0.4 * (1 - math.exp(-step / 8)) + rng.normal(0, 0.05)
            overlap = float(min(1.0, reward - 0.1))
            record = {"step": step, "num_open": int(80 * share), "open_share": share,
                      "loss": float(rng.normal(0, 0.1)), "reward": float(reward),
                      "reward_overlap": overlap, "valid_share": 0.9}  # fmt: skip
            if step % 4 == 0:
                record["kl"] = 0.001 * step**1.5
            metrics.append(record)
    with run.journal("stages") as stages:
        for number, share in enumerate((0.25, 0.5, 1.0), start=1):
            stages.append({"step": 8 * number, "stage": number, "steps": 8,
                           "num_open": int(80 * share), "open_share": share,
                           "reward": 0.6 + 0.1 * number, "kl": 0.02 * number,
                           "zero_spread_share": 0.4 - 0.1 * number})  # fmt: skip

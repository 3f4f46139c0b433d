"""Run directories of arms with given counts of right, invented and missed mentions a sentence."""

from __future__ import annotations

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.statistics import micro_f1
from ccrl_cli.pipelines.comparison.arms import RECIPES, arm_profile
from ccrl_cli.pipelines.training.outcome import ARM_STEP
from ccrl_cli.store.atomic import write_json_lines
from ccrl_cli.store.runs import RunDirectory

PLANNED = {"none": (0, 0), "majority": (0, 0), "sft": (8, 0), "grpo": (8, 64)}


def arms_of(folder, *overrides):
    """Return a profile whose arms lie in a folder."""
    given = [f"run.dir={folder.as_posix()}", "run.name=demo", "baselines.seeds=1", *overrides]
    return load_profile("quickstart", given).profile


def row(number, counts):
    """Return a prediction with (right, invented, missed) mentions, a word each."""
    right, invented, _ = counts
    words = [f"w{number}.{place}" for place in range(max(1, sum(counts)))]
    text, start, spans = " ".join(words), 0, []
    for word in words:
        end = start + len(word)
        spans.append({"text": word, "type": "x", "start": start, "end": end})
        start = end + 1
    return {
        "input_id": f"{number:016d}", "text": text, "outcome": "valid", "completion": "[]",
        "finish": "stop", "hallucinated": [], "predicted": spans[: right + invented],
        "gold": [*spans[:right], *spans[right + invented : sum(counts)]],
    }  # fmt: skip


def write_arm(profile, arm, seed, target, source, *, before=None, kl=None, drawn=(), facts=None,
              digest="d", reportable=True, decoded=None):  # fmt: skip
    """Write the directory of one pair; `target` and `source` are (right, invented, missed) rows.

    `decoded` is the profile's way to answer, and the rows of both domains by it.
    """
    recipe = RECIPES[arm]
    own = arm_profile(profile, arm, seed)
    updates, rollouts = PLANNED[recipe.trainer]
    with RunDirectory(own.run_path) as run:
        run.write_manifest({"arm": arm, "seed": seed, "profile": own.model_dump(mode="json")})
        domains, f1 = {}, {}
        for role, counts in (("target", target), ("source", source)):
            phases = {"before": (before or {}).get(role, counts)}
            if recipe.trainer != "none":
                phases["after"] = counts
            scores = {when: _score(run, f"{role}-{when}", rows) for when, rows in phases.items()}
            f1[role] = scores
            domains[role] = {"data": digest, "digest": digest + role, "mode": "held-out", **scores}
            if decoded is not None:
                way, rows = decoded
                domains[role]["decoded"] = {
                    way: {when: _score(run, f"{role}-{when}-{way}", rows) for when in phases}
                }
        after = f1["source"].get("after")
        lost = f1["source"]["before"]["f1"] - after["f1"] if after else None
        document = {"domains": domains, "forgetting": lost, "reportable": reportable}
        run.write_evaluation({**document, "decode": decoded[0] if decoded else "greedy"})
        with run.journal("metrics") as metrics:
            for step in range(1, updates + 1):
                metrics.append({"step": step, "seconds_train": 0.5, "seconds_generate": 1.0,
                                "inputs": list(drawn) if step == 1 else [],
                                **({"kl": kl} if kl is not None else {})})  # fmt: skip
        given = {"arm": arm, "trainer": recipe.trainer, "planned_updates": updates,
                 "updates": updates, "planned_rollouts": rollouts, "rollouts": rollouts,
                 **(facts or {})}  # fmt: skip
        run.mark_done(ARM_STEP, "", seconds=1.0, result=given)
    return own.run_path


def _score(run, name, rows):
    """Write the predictions of a domain and phase, and return their scores."""
    lines = [row(number, one) for number, one in enumerate(rows)]
    write_json_lines(run.predictions_path(name), lines)
    total = [sum(column) for column in zip(*rows, strict=True)]
    return {"f1": float(micro_f1(_array(total)))}


def _array(values):
    import numpy as np

    return np.array(values, dtype=float)

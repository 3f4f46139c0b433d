"""What pseudo-labels are worth, rule by rule, against gold that labels and training never see.

    python benchmarks/label_quality.py --out label-quality.json \
        --run "smollm2-crossner" --run "smollm2-crossner data.target.path=data/crossner_music ..."

Each --run is a profile and its settings (SECTION.KEY=VALUE), as of a run whose completions and type
scores are there: `ccrl generate`, and for the rules of one question `ccrl curriculum score --set
confidence.type_questions=1`. Rules whose type scores are missing are left out. Nothing is
generated or trained. Prints one table; the file holds the same with every type's F1.

Where no rule says otherwise the profile does: the number of questions, the prior. "Right types" has
the gold type on every span that the votes found: what is lost to spans alone. AUROC is of the
confidence of an entity against its being right; ECE is the gap between the two, over ten bins of
equal mass.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.metrics import score_spans
from ccrl_cli.core.placing import align_in_text
from ccrl_cli.core.reliability import auroc, ece
from ccrl_cli.core.statistics import bootstrap_interval, count_array
from ccrl_cli.errors import CcrlError, PreconditionError
from ccrl_cli.pipelines.common.domains import Domain, load_domain
from ccrl_cli.pipelines.labelling.labels import LabelSet, load_labels
from ccrl_cli.pipelines.labelling.samples import SampleSet, load_samples
from ccrl_cli.records import Entity, Example, PseudoLabel

EVIDENCE = "confidence.type_rule=posterior"
ONE = (EVIDENCE, "confidence.type_questions=1")
NO_BONUS = "confidence.unseen_type_bonus=0"
NO_PROTOTYPES = "confidence.type_prototypes=false"
RULES: Mapping[str, Sequence[str]] = {
    "votes alone": ("confidence.type_rule=votes", "confidence.metric=entity_vote"),
    "one question, content-free prior": (
        *ONE,
        NO_BONUS,
        NO_PROTOTYPES,
        "confidence.type_prior=content_free",
    ),
    "one question, prior matching": (*ONE, NO_BONUS, NO_PROTOTYPES),
    "one question, unseen types favoured": (*ONE, NO_PROTOTYPES),
    "one question, prototypes": ONE,
    "prior matching": (EVIDENCE, NO_BONUS, NO_PROTOTYPES),
    "unseen types favoured": (EVIDENCE, NO_PROTOTYPES),
    "as the profile says": (),
}
RIGHT = "right types"


def main() -> int:
    """Measure every rule on every run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="append", required=True, dest="runs", metavar="WORDS")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    try:
        rows = [_measure(shlex.split(words)) for words in arguments.runs]
    except CcrlError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        document = {"schema": 1, "runs": rows}
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(_table(rows), end="")
    return 0


def _measure(words: Sequence[str]) -> dict[str, Any]:
    """Return every rule on one run, by name."""
    name, *values = words
    profile = load_profile(name, values).profile
    domain = load_domain(profile, "target")
    found = load_samples(profile, domain)
    rules: dict[str, Any] = {}
    for rule, settings in RULES.items():
        asked = load_profile(name, [*values, *settings]).profile
        try:
            labels = load_labels(asked, domain, found)
        except PreconditionError as error:
            if "no type scores" not in error.message:
                raise
            continue
        rules[rule] = _score(labels, found, domain)
    rules[RIGHT] = _score(_with_gold_types(labels, found), found, domain)
    return {
        "run": profile.run.name,
        "seed": profile.run.seed,
        "target": Path(profile.data.target.reference).name,
        "inputs": len(found.samples),
        "data": domain.split("train").digest[:16],
        "rules": rules,
    }


def _score(labels: LabelSet, found: SampleSet, domain: Domain) -> dict[str, Any]:
    """Return label F1 with its interval, by type, and what the confidence of entities knows."""
    views, alignments, sure, right = [], [], [], []
    for key, label in labels.labels.items():
        view, alignment = align_in_text(label.entities, found.examples[key])
        gold = view.gold_entities()
        views.append(view.gold or ())
        alignments.append(alignment)
        sure += labels.entity_confidence[key]
        right += [entity in gold for entity in label.entities]
    scores = score_spans(views, alignments, domain.labels)
    each = [
        score_spans([gold], [alignment], domain.labels).micro
        for gold, alignment in zip(views, alignments, strict=True)
    ]
    known = auroc(sure, right)
    interval = bootstrap_interval(count_array(each), np.random.default_rng(0))
    return {
        "f1": _percent(scores.micro.f1),
        "low": _percent(interval.low),
        "high": _percent(interval.high),
        "auroc": None if known is None else round(known, 3),
        "ece": round(ece(sure, right, num_bins=10), 3),
        "types": {kind: _percent(score.f1) for kind, score in scores.per_type.items()},
    }


def _with_gold_types(labels: LabelSet, found: SampleSet) -> LabelSet:
    """Return labels whose spans bear the gold type of an equal span, where there is one."""
    changed = {key: _gold_types(v, found.examples[key]) for key, v in labels.labels.items()}
    return replace(labels, labels=changed, posteriors={})


def _gold_types(label: PseudoLabel, example: Example) -> PseudoLabel:
    kinds = {entity.text: entity.type for entity in example.gold_entities()}
    entities = tuple(Entity(e.text, kinds.get(e.text, e.type)) for e in label.entities)
    return replace(label, entities=entities)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return label F1 as Markdown: a line a rule, a column a run."""
    heads = [f"{row['target']}, seed {row['seed']}" for row in rows]
    lines = [f"| labels | {' | '.join(heads)} | mean |", "|---" * (len(rows) + 2) + "|"]
    for rule in (*RULES, RIGHT):
        values = [row["rules"][rule]["f1"] for row in rows if rule in row["rules"]]
        if len(values) == len(rows):
            cells = " | ".join(f"{value:.1f}" for value in values)
            lines.append(f"| {rule} | {cells} | {sum(values) / len(values):.1f} |")
    return "\n".join(lines) + "\n"


def _percent(fraction: float) -> float:
    return round(100 * fraction, 2)


if __name__ == "__main__":
    raise SystemExit(main())

"""Rounds scored: the quality of each round's labels, and F1 of each round's adapter, against gold.

For reading; nothing here reaches a training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ccrl_cli.config.load import load_profile
from ccrl_cli.data.catalog import SplitReader
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.common.weights import adapter_digest
from ccrl_cli.pipelines.evaluation.answering import ROLES
from ccrl_cli.pipelines.evaluation.evaluate import EvaluateOptions, evaluate
from ccrl_cli.pipelines.labelling.quality import score_labels
from ccrl_cli.pipelines.training.outcome import ROUNDS_FILE
from ccrl_cli.pipelines.training.round_files import read_labels, round_path
from ccrl_cli.records import Score
from ccrl_cli.store.atomic import write_json
from ccrl_cli.store.encoding import load_json
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter


def read_rounds(run: RunDirectory) -> dict[str, Any]:
    """Return what is known of a run's rounds; empty where it has none."""
    place = run.path / ROUNDS_FILE
    return dict(load_json(place.read_bytes())) if place.is_file() else {}


def score_rounds(
    profile: Profile, *, reporter: Reporter, data: SplitReader | None = None
) -> list[dict[str, Any]]:
    """Score the rounds of a run where gold is there, and add it to what is known of them.

    Adds ``oracle_label_f1`` and, with ``evaluation.each_round``, ``target_f1`` and ``source_f1`` of
    the greedy answers; the last round's are those of the run where its adapter is the run's.

    Args:
        profile: the run's.
        reporter: told of progress.
        data: reads the splits of the command; None: this call reads its own.

    Returns:
        One record a round; empty for a training of a single round.
    """
    run = RunDirectory(profile.run_path)
    document = read_rounds(run)
    data = data or SplitReader()
    for facts in document.get("rounds", []):
        folder = RunDirectory(round_path(profile, facts["round"]))
        own = load_profile(str(folder.path / "profile.toml")).profile
        facts["oracle_label_f1"] = _label_f1(own, folder, data)
        if profile.evaluation.each_round:
            facts.update(_scores(run, own, folder, reporter, data))
    if document:
        write_json(run.path / ROUNDS_FILE, document)
    return list(document.get("rounds", []))


def _label_f1(own: Profile, folder: RunDirectory, data: SplitReader) -> float | None:
    """Return micro F1 of a round's labels against gold; None without gold."""
    domain = load_domain(own, "target", data)
    examples = {example.id: example for example in domain.training_inputs()[0]}
    scores = score_labels(read_labels(folder.path), examples, domain.labels)
    return sum((item.score for item in scores.values()), Score()).f1 if scores else None


def _scores(
    run: RunDirectory, own: Profile, folder: RunDirectory, reporter: Reporter, data: SplitReader
) -> Mapping[str, float]:
    """Return F1 of a round's adapter in both domains."""
    if adapter_digest(folder.adapter_path) == adapter_digest(run.adapter_path):
        domains = run.read_evaluation()["domains"] if run.evaluation_path.exists() else {}
        after = {role: (domains.get(role) or {}).get("after") for role in ROLES}
        if all(after.values()):
            return {f"{role}_f1": float(scores["f1"]) for role, scores in after.items() if scores}
    options = EvaluateOptions(phases=("after",), decode="greedy")
    result = evaluate(own, options, reporter=reporter, data=data)
    return {
        f"{role}_f1": domain.after.f1
        for role, domain in result.domains.items()
        if domain.after is not None
    }

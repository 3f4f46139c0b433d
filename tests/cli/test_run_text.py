"""What `ccrl run` prints: the finding first, with what must be said beside it."""

from __future__ import annotations

import json
from types import SimpleNamespace

from ccrl_cli.cli.commands.run import _lines
from ccrl_cli.config.schema import Profile
from ccrl_cli.findings.runs import run_finding
from ccrl_cli.pipelines.curriculum.show import show_curriculum
from ccrl_cli.pipelines.evaluation.evaluate import EvaluationResult
from ccrl_cli.reporting import NullReporter
from made_run import make_run


def test_the_first_line_says_what_the_labeller_alone_gives(tmp_path):
    path = make_run(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    evaluation = json.loads((path / "evaluation.json").read_text(encoding="utf-8"))
    target = evaluation["domains"]["target"]
    target["decoded"] = {"vote": {"before": {"f1": 0.489, "num_sentences": 100},
                                  "after": {"f1": 0.46, "num_sentences": 100}}}  # fmt: skip
    target["over_labeller"] = {"value": -0.029, "low": -0.06, "high": 0.01}
    profile = Profile.model_validate(manifest["profile"])
    result = SimpleNamespace(  # of a RunResult, what the text reads
        curriculum=show_curriculum(profile, reporter=NullReporter()),
        evaluation=EvaluationResult("test", False, "", {}, None, "vote", 0.0, 0),
        finding=run_finding({**evaluation, "decode": "vote"}),
        steps=(),
        rounds=(),
        files={},
    )
    lines = list(_lines(result))
    assert lines[0].startswith(
        "The untrained labeller alone has a target F1 of 48.9 on the same 100 sentences, the "
        "trained model 46.0 (vote answers): whether training adds to that cannot be told (−2.9"
    )
    assert lines[1].startswith("  Not reportable")
    assert any(line.startswith("  One training") for line in lines)
    assert lines.index("Scores") > lines.index("")

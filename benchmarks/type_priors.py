"""Which prior should be taken off type scores? The share of right types among gold spans, by prior.

    python benchmarks/type_priors.py --profile smollm2-crossner [--set SECTION.KEY=VALUE ...]

Reads the type scores of a run (`ccrl generate` or `ccrl curriculum score` made them) and the gold
labels of its inputs, which labels and training never see. A scored span counts where gold has the
same text; its type is the one of highest posterior after the prior is taken off. "macro F1" is the
mean over the types that gold holds, "lost types" are those with an F1 below 10 %.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from sklearn.metrics import f1_score

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.alignment import mention_key
from ccrl_cli.core.type_evidence import matched_prior, type_posterior
from ccrl_cli.errors import CcrlError, PreconditionError
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.labelling.type_evidence import score_identity
from ccrl_cli.store.type_scores import read_type_scores, type_scores_path

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
LOST = 0.1


def main() -> int:
    """Print one line a prior."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", required=True)
    parser.add_argument("--set", action="append", default=[], dest="values")
    arguments = parser.parse_args()
    try:
        profile = load_profile(arguments.profile, arguments.values).profile
        domain = load_domain(profile, "target")
        path = type_scores_path(profile.store_path)
        scores = read_type_scores(path, profile.model.name, score_identity(profile, domain))
        if not scores:
            raise PreconditionError(f"{path} has no scores", hint="`ccrl curriculum score`")
    except CcrlError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    examples = {example.id: example for example in domain.training_inputs()[0]}
    rows, gold = [], []
    for key, record in scores.items():
        kinds = {mention_key(e.text): e.type for e in examples[key].gold_entities()}
        for span in record.spans:
            rows.append(span.logprobs)
            gold.append(kinds.get(mention_key(span.text)))
    table, content_free = np.array(rows), np.array(record.content_free)
    priors = {"none": np.zeros(len(content_free)), "content_free": content_free}
    priors |= {f"matched, {share:g}": matched_prior(table, share) for share in STRENGTHS}
    print(f"{len(scores)} inputs, {len(rows)} spans, {sum(g is not None for g in gold)} of gold")
    print("| prior taken off | right types % | macro F1 % | lost types |\n|---|---|---|---|")
    for name, prior in priors.items():
        best = type_posterior(table, prior).argmax(axis=1)
        known = [(domain.labels[b], g) for b, g in zip(best, gold, strict=True) if g is not None]
        picked, true = [p for p, _ in known], [g for _, g in known]
        kinds_held = sorted(set(true))
        values = f1_score(true, picked, labels=kinds_held, average=None, zero_division=0)
        by_type = dict(zip(kinds_held, values, strict=True))
        right = np.mean([p == g for p, g in known])
        lost = ", ".join(kind for kind, value in by_type.items() if value < LOST)
        macro = np.mean(list(by_type.values()))
        print(f"| {name} | {100 * right:.1f} | {100 * macro:.1f} | {lost or 'none'} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

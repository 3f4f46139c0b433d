"""Gold labels as training targets, for the arm ``oracle`` alone.

This is the only module that turns gold labels into something a trainer may see; an import contract
keeps every other arm's code from it.
"""

from __future__ import annotations

from dataclasses import replace

from ccrl_cli.errors import PreconditionError
from ccrl_cli.pipelines.common.domains import Domain
from ccrl_cli.pipelines.labelling.labels import LabelSet
from ccrl_cli.records import PseudoLabel

RULE = "oracle"
"""Rule and metric of such labels, so that no result of theirs passes for another's."""


def gold_labels(domain: Domain, labels: LabelSet) -> LabelSet:
    """Return the gold labels of the very inputs that have pseudo-labels.

    Args:
        domain: the target domain.
        labels: the pseudo-labels of the other arms.

    Raises:
        PreconditionError: an input has no gold label.
    """
    examples = {example.id: example for example in domain.training_inputs()[0]}
    missing = sum(examples[key].gold is None for key in labels.labels)
    if missing:
        raise PreconditionError(
            f"the arm oracle needs gold labels, and {missing} of {len(labels.labels)} training "
            f"inputs of {domain.spec.source} have none",
            hint="leave the arm out: --arms without oracle",
        )
    gold = {
        key: PseudoLabel(
            input_id=key,
            entities=examples[key].gold_entities(),
            confidence=1.0,
            metric=RULE,
            rule=RULE,
            num_completions=label.num_completions,
            votes=tuple((entity, 1.0) for entity in dict.fromkeys(examples[key].gold_entities())),
        )
        for key, label in labels.labels.items()
    }
    return replace(labels, labels=gold, posteriors={}, by_policy=False)

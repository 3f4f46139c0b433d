"""Type evidence: the stored type scores of some inputs, and what is taken off them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ccrl_cli.core.agreement import PosteriorOf
from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.placing import view_for
from ccrl_cli.core.type_evidence import chosen_types, matched_prior, posteriors, spans_to_score
from ccrl_cli.data.type_prompts import TypePrompt
from ccrl_cli.errors import PreconditionError
from ccrl_cli.pipelines.common.domains import Domain
from ccrl_cli.pipelines.labelling.samples import SampleSet
from ccrl_cli.store.type_scores import TypeScores, read_type_scores, type_scores_path

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.records import Example, Parse


@dataclass(frozen=True, slots=True)
class TypeEvidence:
    """Type scores of some inputs, and what is taken off them.

    Attributes:
        scores: by input id.
        prior: (T,) the prior that all inputs share; None: the content-free prior of
            each input.
    """

    scores: Mapping[str, TypeScores]
    prior: tuple[float, ...] | None

    def posteriors(self, parses: Mapping[str, Sequence[Parse]]) -> dict[str, PosteriorOf]:
        """Return the posteriors of what completions state, by input, as a labeller takes them."""
        return {
            key: posteriors(
                record.spans, self.prior or record.content_free, record.types, parses[key]
            )
            for key, record in self.scores.items()
        }

    def chosen_types(self) -> dict[str, dict[str, str]]:
        """Return the type of highest posterior of each span (normalised text), by input."""
        return {
            key: chosen_types(record.spans, self.prior or record.content_free, record.types)
            for key, record in self.scores.items()
        }


def load_type_evidence(profile: Profile, domain: Domain, found: SampleSet) -> TypeEvidence:
    """Return the type evidence of a sample set.

    Raises:
        PreconditionError: an input was not scored, or not all of its spans.
        IntegrityError: the scores are damaged.
    """
    return weigh_scores(profile, domain, _load(profile, domain, found))


def weigh_scores(
    profile: Profile,
    domain: Domain,
    scores: Mapping[str, TypeScores],
    prior: Sequence[float] | None = None,
) -> TypeEvidence:
    """Return scores as evidence: with the prior that the profile takes off them.

    Args:
        profile: says which prior.
        domain: whose types.
        scores: by input id.
        prior: (T,) a prior that was fitted before, on other spans; None: fit it on these.
    """
    section = profile.confidence
    if section.type_prior == "content_free":
        return TypeEvidence(scores, None)
    if prior is not None:
        return TypeEvidence(scores, tuple(prior))
    rows = [span.logprobs for record in scores.values() for span in record.spans]
    table = np.array(rows, dtype=np.float64).reshape(-1, len(domain.labels))
    return TypeEvidence(scores, tuple(matched_prior(table, section.prior_matching).tolist()))


def _load(profile: Profile, domain: Domain, found: SampleSet) -> dict[str, TypeScores]:
    """Return the scores of each input."""
    path = type_scores_path(profile.store_path)
    known = read_type_scores(path, profile.model.name, score_identity(profile, domain))
    missing = 0
    scores: dict[str, TypeScores] = {}
    for key, spans in spans_of(found.examples, found.parses).items():
        record = known.get(key)
        if record is None or lacks_spans(record, spans) or record.types != domain.labels:
            missing += 1
            continue
        scores[key] = record
    if missing:
        raise PreconditionError(
            f"{missing} of {len(found.samples)} inputs have no type scores in {path}",
            hint="`ccrl curriculum score` makes them (--split chooses the inputs)",
        )
    return scores


def spans_of(
    examples: Mapping[str, Example], parses: Mapping[str, Sequence[Parse]]
) -> dict[str, tuple[str, ...]]:
    """Return the spans whose types are asked for: those that completions name, by input id."""
    return {
        key: spans_to_score(
            Aligner(
                view_for(
                    examples[key].without_gold(), [e for parse in stated for e in parse.entities]
                )
            ),
            stated,
        )
        for key, stated in parses.items()
    }


def type_prompt(
    profile: Profile, domain: Domain, special_tokens: Sequence[str] = (), end: str = ""
) -> TypePrompt:
    """Return how a profile asks for types."""
    return TypePrompt(
        question=profile.confidence.type_question,
        template=domain.template,
        types=domain.labels,
        names=domain.names,
        special_tokens=special_tokens,
        end=end,
    )


def score_identity(profile: Profile, domain: Domain) -> dict[str, Any]:
    """Return what scores depend on besides the weights; known without any ML package."""
    return {"prompt": type_prompt(profile, domain).digest(), "labels": domain.labels_digest}


def lacks_spans(record: TypeScores, spans: Sequence[str]) -> bool:
    """Return whether a record lacks a span."""
    return not {span.text for span in record.spans} >= set(spans)

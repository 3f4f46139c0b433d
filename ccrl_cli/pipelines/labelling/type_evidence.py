"""Type evidence: the stored type scores of some inputs, and what is taken off them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ccrl_cli.core.agreement import PosteriorOf
from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.placing import view_for
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.type_evidence import (
    chosen_types,
    favour_untaught,
    matched_prior,
    posteriors,
    spans_to_score,
)
from ccrl_cli.core.type_prototypes import ScoreMap, fit_prototypes
from ccrl_cli.data.prompts import type_order
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.data.type_prompts import TypePrompt
from ccrl_cli.errors import PreconditionError
from ccrl_cli.pipelines.common.domains import Domain, load_domain
from ccrl_cli.pipelines.labelling.samples import SampleSet
from ccrl_cli.records import content_id
from ccrl_cli.store.type_scores import TypeScores, read_type_scores, type_scores_path

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.records import Example, Parse


Prior = ScoreMap | Literal["content_free", "matching"] | None
"""What was fitted before, the name of a prior to fit, or None: the profile's."""


@dataclass(frozen=True, slots=True)
class TypeEvidence:
    """Type scores of some inputs, and how they are read.

    Attributes:
        scores: by input id.
        prior: what the model's prior, and the place of spans among others, make of all of them.
    """

    scores: Mapping[str, TypeScores]
    prior: ScoreMap

    def posteriors(self, parses: Mapping[str, Sequence[Parse]]) -> dict[str, PosteriorOf]:
        """Return the posteriors of what completions state, by input, as a labeller takes them."""
        return {
            key: posteriors(
                self.prior.spans(record.spans), self._nothing, record.types, parses[key]
            )
            for key, record in self.scores.items()
        }

    def chosen_types(self) -> dict[str, dict[str, str]]:
        """Return the type of highest posterior of each span (normalised text), by input."""
        return {
            key: chosen_types(self.prior.spans(record.spans), self._nothing, record.types)
            for key, record in self.scores.items()
        }

    @property
    def _nothing(self) -> list[float]:
        """What is left to take off mapped scores."""
        return [0.0] * len(self.prior.offsets)


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
    prior: Prior = None,
) -> TypeEvidence:
    """Return scores as evidence: with the prior that the profile takes off them.

    Args:
        profile: the profile.
        domain: whose types were asked for.
        scores: by input id.
        prior: what was fitted before, as :attr:`TypeEvidence.prior` gave it, so that single
            sentences can be weighed; the name of a prior to fit in place of the profile's; None
            fits on these scores what the profile says.

    Raises:
        PreconditionError: the types of the source are not known, and they are asked for.
    """
    if prior is None:
        prior = profile.confidence.type_prior
    if isinstance(prior, str):
        prior = _fitted(profile, domain, scores, prior)
    return TypeEvidence(scores, prior)


def _fitted(
    profile: Profile, domain: Domain, scores: Mapping[str, TypeScores], kind: str
) -> ScoreMap:
    section = profile.confidence
    rows = [span.logprobs for record in scores.values() for span in record.spans]
    table = np.array(rows, dtype=np.float64).reshape(-1, len(domain.labels))
    if kind == "matching":
        prior = matched_prior(table, section.prior_matching)
    else:  # asked of one model in one wording, every input has the same
        blank = np.zeros(len(domain.labels))
        prior = next((np.array(record.content_free) for record in scores.values()), blank)
    if section.unseen_type_bonus:
        taught = taught_types(profile, domain)
        prior = favour_untaught(prior, domain.labels, taught, section.unseen_type_bonus)
    return fit_prototypes(table, prior) if section.type_prototypes else ScoreMap.of_prior(prior)


def taught_types(profile: Profile, domain: Domain) -> frozenset[str]:
    """Return the types of a domain that the source domain has as well, by their prompt names.

    Raises:
        PreconditionError: the profile does not list the types of the source, and it is not there.
    """
    listed = profile.data.source.labels
    if listed is not None:
        source = TypeNames.build(listed, profile.data.type_names)
    else:
        try:
            source = load_domain(profile, "source", domain.reader).names
        except PreconditionError as error:
            raise PreconditionError(
                f"which types are new is told by those of the source: {error.message}",
                hint="list them in data.source.labels, or set confidence.unseen_type_bonus = 0",
            ) from error
    return frozenset(
        label for label in domain.labels if source.identifier(domain.names.name(label)) is not None
    )


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


def type_prompts(
    profile: Profile, domain: Domain, special_tokens: Sequence[str] = (), end: str = ""
) -> tuple[TypePrompt, ...]:
    """Return the ways in which a profile asks for types; the first is as the prompt lists them."""
    return tuple(
        TypePrompt(
            question=profile.confidence.type_question,
            template=domain.template,
            types=domain.labels,
            names=_names(profile, domain, number),
            special_tokens=special_tokens,
            end=end,
            order=_order(domain.labels, number),
        )
        for number in range(profile.confidence.type_questions)
    )


def _names(profile: Profile, domain: Domain, number: int) -> TypeNames:
    """Return the names of the types in a question; the first has the prompt's."""
    others = profile.confidence.type_paraphrases
    names = {t: found[number - 1] for t, found in others.items() if number <= len(found)}
    return domain.names.replaced(names if number else {})


def _order(labels: Sequence[str], number: int) -> tuple[str, ...]:
    if number == 0:
        return tuple(labels)
    return type_order(labels, derive_seed(0, "type-question", number))


def score_identity(profile: Profile, domain: Domain) -> dict[str, Any]:
    """Return what scores depend on besides the weights; known without any ML package."""
    prompts = type_prompts(profile, domain)
    prompt = prompts[0].digest()
    if len(prompts) > 1:
        asked = [f"{'|'.join(p.order or ())}#{p.names.digest}" for p in prompts]
        prompt = content_id("\n".join([prompt, *asked]))
    return {"prompt": prompt, "labels": domain.labels_digest}


def lacks_spans(record: TypeScores, spans: Sequence[str]) -> bool:
    """Return whether a record lacks a span."""
    return not {span.text for span in record.spans} >= set(spans)

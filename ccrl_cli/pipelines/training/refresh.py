"""Dynamic curriculum of a profile: what a trainer needs to refresh labels while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ccrl_cli.core.agreement import PosteriorOf
from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.refresh import Refresher, RefreshSettings
from ccrl_cli.core.type_evidence import with_types
from ccrl_cli.core.typed_labels import in_text
from ccrl_cli.pipelines.generation.type_scores import TypeAsker
from ccrl_cli.pipelines.labelling.labels import LabelSet, make_labeller, without_types
from ccrl_cli.pipelines.labelling.type_evidence import spans_of, weigh_scores
from ccrl_cli.records import Parse
from ccrl_cli.store.type_scores import TypeScores

if TYPE_CHECKING:
    from typing import Any

    from ccrl_cli.config.schema import Profile
    from ccrl_cli.models.loading import LoadedModel
    from ccrl_cli.pipelines.common.domains import Domain
    from ccrl_cli.records import PseudoLabel


def make_refresher(
    profile: Profile, domain: Domain, labels: LabelSet, inputs: Mapping[str, object]
) -> Refresher | None:
    """Return the refresher of a training; None if the profile never refreshes.

    Args:
        profile: the profile.
        domain: whose types a label may hold.
        labels: labels as derived from the store.
        inputs: inputs that are trained on, by id; labels of others are left out.
    """
    section = profile.curriculum
    if not section.refresh_every_steps:
        return None
    teacher = section.asks_teacher
    drawn = profile.generation.num_completions if teacher else profile.training.num_generations
    settings = RefreshSettings(
        every_steps=section.refresh_every_steps,
        window=section.refresh_window,
        source=section.refresh_from,
        min_completions=min(4, drawn),
    )
    trained: dict[str, PseudoLabel] = {
        key: label for key, label in labels.labels.items() if key in inputs
    }
    labeller = make_labeller(profile, domain)
    return Refresher(
        trained,
        labeller if labels.posteriors else without_types(labeller),
        settings,
        labels.chosen_types,
        labels.posteriors,
        fitted=lambda label: in_text(label, Aligner(labels.examples[label.input_id])),
        comparable=labels.by_policy,
    )


def make_type_renewal(
    profile: Profile, domain: Domain, labels: LabelSet, loaded: LoadedModel
) -> TypeRenewal | None:
    """Return who asks a teacher for types; None where no teacher answers, or no label reads types.

    Args:
        profile: the profile.
        domain: whose types a label may hold.
        labels: labels as derived from the store; those of mock completions have no type scores.
        loaded: the policy.
    """
    scored = bool(labels.chosen_types or labels.posteriors)
    if not (scored and profile.curriculum.asks_teacher):
        return None
    return TypeRenewal(profile, domain, labels, loaded)


class TypeRenewal:
    """The types of a teacher's answers, asked for as those of the store's completions were."""

    def __init__(
        self, profile: Profile, domain: Domain, labels: LabelSet, loaded: LoadedModel
    ) -> None:
        self._profile, self._domain, self._loaded = profile, domain, loaded
        self._examples = labels.examples
        self._retypes = bool(labels.chosen_types)
        self._weighs = bool(labels.posteriors)

    def score(self, model: Any, parses: Mapping[str, Sequence[Parse]]) -> dict[str, TypeScores]:
        """Return what the model says of the types of all spans that answers name, by input id.

        Args:
            model: the teacher, in eval mode.
            parses: its answers by input id.
        """
        asker = TypeAsker(self._profile, self._domain, replace(self._loaded, model=model))
        content_free = asker.content_free()
        spans = spans_of(self._examples, parses)
        scores = asker.score({key: self._examples[key].text for key in parses}, spans)
        name, types = self._profile.model.name, self._domain.labels
        return {key: TypeScores(key, name, {}, types, content_free, scores[key]) for key in parses}

    def weigh(
        self, scores: Mapping[str, TypeScores], parses: Mapping[str, Sequence[Parse]]
    ) -> tuple[Mapping[str, Mapping[str, str]], Mapping[str, PosteriorOf]]:
        """Return the type of each span and the posteriors of what answers state, by input id."""
        evidence = weigh_scores(self._profile, self._domain, scores)
        chosen = evidence.chosen_types() if self._retypes else {}
        stated = {key: with_types(list(parses[key]), chosen.get(key, {})) for key in scores}
        return chosen, evidence.posteriors(stated) if self._weighs else {}

"""Pseudo-labels of a run, derived from its completion store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ccrl_cli.core.agreement import Labeller, PosteriorOf
from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.balance import balanced_ranks
from ccrl_cli.core.calibration import calibrate_in_order
from ccrl_cli.core.combination import Combination, GeometricMean
from ccrl_cli.core.placing import view_for
from ccrl_cli.core.typed_labels import entity_confidence, in_text
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.pipelines.labelling.calibration_file import (
    CALIBRATE,
    CalibrationFile,
    read_calibration,
)
from ccrl_cli.pipelines.labelling.samples import SampleSet, load_samples
from ccrl_cli.pipelines.labelling.type_evidence import TypeEvidence, load_type_evidence
from ccrl_cli.records import Example, PseudoLabel
from ccrl_cli.store.type_scores import type_scores_path

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.pipelines.common.domains import Domain


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Pseudo-labels of the inputs of a split, by default the target's training inputs.

    Attributes:
        labels: pseudo-label by input id, in the order of the data.
        examples: the inputs, gold labels removed.
        num_missing: inputs of the split without completions in the store.
        num_invalid: completions that did not parse.
        num_completions: completions read.
        models: models whose completions were pooled.
        reportable: False when a mock backend made any of them.
        calibrator: calibrator that the confidences went through, or ``none``.
        posteriors: by input id, type posteriors of mentions; empty without type scores.
        by_policy: the policy labelled, and no other model.
        chosen_types: by input id, the type of each span (normalised text) where type scores say
            it; empty where the completions do.
    """

    labels: Mapping[str, PseudoLabel]
    examples: Mapping[str, Example]
    num_missing: int
    num_invalid: int
    num_completions: int
    models: tuple[str, ...]
    reportable: bool
    calibrator: str = "none"
    posteriors: Mapping[str, PosteriorOf] = field(default_factory=dict)
    by_policy: bool = False
    chosen_types: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def confidence(self) -> dict[str, float]:
        """Confidence by input id."""
        return {key: label.confidence for key, label in self.labels.items()}

    @property
    def entity_confidence(self) -> dict[str, tuple[float, ...]]:
        """How sure each entity of a label is, by input id: vote share x posterior of its type."""
        return {
            key: entity_confidence(label, self.posteriors.get(key, {}))
            for key, label in self.labels.items()
        }

    @property
    def start_counts(self) -> dict[str, float]:
        """Different mentions in a completion of the policy, in the mean, by input id."""
        if not self.by_policy:
            return {}
        return {key: math.fsum(share for _, share in v.votes) for key, v in self.labels.items()}

    def ranks(self, profile: Profile) -> dict[str, float] | None:
        """What a profile orders the inputs by in place of their confidence, if by anything."""
        if profile.curriculum.balance == "none":
            return None
        entities = {
            key: [(e.type, s) for e, s in zip(self.labels[key].entities, sure, strict=True)]
            for key, sure in self.entity_confidence.items()
        }
        return balanced_ranks(entities, self.confidence)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Completions of the training inputs, read once, and the labels derived from them."""

    samples: SampleSet
    labels: LabelSet


def load_labelled(profile: Profile, domain: Domain) -> Labelled:
    """Read the completions of the training inputs and derive their labels; see `load_labels`."""
    found = load_samples(profile, domain)
    return Labelled(found, load_labels(profile, domain, found))


def check_logprobs(profile: Profile, found: SampleSet) -> None:
    """Raise ValueError if the confidence is that of log-probabilities and no completion has one."""
    if profile.confidence.metric != "logprob":
        return
    if all(value is None for _, logprobs in found.samples.values() for value in logprobs):
        raise ValueError("the logprob metric needs the log-probabilities of the completions")


def load_labels(profile: Profile, domain: Domain, found: SampleSet | None = None) -> LabelSet:
    """Derive the pseudo-labels of the target's training inputs from the store.

    Confidences go through the calibrator that the profile names, if any; it moves thresholds and
    weights, and leaves the order as it is.

    Args:
        profile: the profile.
        domain: the target.
        found: the completions of its training inputs, if they are read already.

    Raises:
        PreconditionError: there is no store, it has no completion of these inputs, or type scores
            or the calibrator are missing.
        UsageError: ``confidence.models`` names a model that the store does not hold, or the metric
            cannot be computed from its completions.
        IntegrityError: the store is damaged.
    """
    found = load_samples(profile, domain) if found is None else found
    try:
        check_logprobs(profile, found)
        labels = derive_labels(profile, domain, found, make_labeller(profile, domain))
    except ValueError as error:
        raise UsageError(
            f"confidence.metric {profile.confidence.metric!r} cannot be computed here: {error}",
            hint="choose another with --metric, for example self_consistency",
        ) from error
    if profile.confidence.calibrator == "none":
        return labels
    return _calibrated(labels, profile)


def derive_labels(
    profile: Profile, domain: Domain, found: SampleSet, labeller: Labeller
) -> LabelSet:
    """Derive the pseudo-labels of a sample set, their confidences as the metric gives them.

    No model can be asked for the types of mock completions: votes stand in for type scores there.

    Raises:
        PreconditionError: the metric or the rule for types needs type scores that are not there.
        ValueError: the metric needs log-probabilities that the backend did not give.
    """
    scored = found.reportable or type_scores_path(profile.store_path).exists()
    if not scored:
        labeller = without_types(labeller)
    retypes = scored and profile.confidence.type_rule == "posterior"
    weighs = "type_posterior" in labeller.metrics
    evidence = load_type_evidence(profile, domain, found) if retypes or weighs else None
    labels = label_samples(found, labeller, evidence, retypes=retypes)
    return replace(labels, by_policy=found.models == (profile.model.name,))


def label_samples(
    found: SampleSet, labeller: Labeller, evidence: TypeEvidence | None, *, retypes: bool
) -> LabelSet:
    """Take labels from completions and type evidence.

    Args:
        found: the completions.
        labeller: takes label and confidence from the completions of one input.
        evidence: type scores of all spans; None: the completions say the types.
        retypes: a span has the type of highest posterior, and votes are for spans alone.

    Raises:
        ValueError: the metric needs log-probabilities or type evidence that is not there.
    """
    chosen: Mapping[str, Mapping[str, str]] = {}
    if evidence and retypes:
        chosen = evidence.chosen_types()
        found = found.with_types(chosen)
    posteriors = evidence.posteriors(found.parses) if evidence else {}
    labels = {}
    for key, (parses, logprobs) in found.samples.items():
        label = labeller(key, parses, logprobs, posteriors.get(key))
        labels[key] = in_text(label, Aligner(view_for(found.examples[key], label.entities)))
    return LabelSet(
        labels=labels,
        examples={key: found.examples[key].without_gold() for key in labels},
        num_missing=found.num_missing,
        num_invalid=sum(label.num_invalid for label in labels.values()),
        num_completions=sum(label.num_completions for label in labels.values()),
        models=found.models,
        reportable=found.reportable,
        posteriors=posteriors,
        chosen_types=chosen,
    )


def without_types(labeller: Labeller) -> Labeller:
    """Return a labeller that needs no type scores: votes stand in for a metric that reads them."""
    if "type_posterior" not in labeller.metrics:
        return labeller
    return replace(labeller, metric="entity_vote", combination=None)


def make_labeller(
    profile: Profile,
    domain: Domain,
    *,
    metric: str | None = None,
    combination: Combination | None = None,
) -> Labeller:
    """Return how a profile takes labels and confidences from completions.

    Args:
        profile: the profile.
        domain: whose types a label may hold.
        metric: another metric than the profile's.
        combination: of ``combined``; None: the profile's weights, else the fit that
            ``ccrl curriculum calibrate`` stored.

    Raises:
        PreconditionError: the metric is ``combined``, and there are neither weights nor a fit.
    """
    section = profile.confidence
    chosen = metric or section.metric
    if chosen == "combined" and combination is None:
        combination = _combination(profile)
    return Labeller(
        rule=section.label,
        metric=chosen,
        positive=section.positive,
        negative=section.negative,
        similarity=section.similarity,
        types=frozenset(domain.labels),
        combination=combination,
    )


def stored_labeller(profile: Profile, domain: Domain) -> Labeller:
    """Return the labeller for the label that a store shows beside fresh completions.

    Type scores and fits are made from a store that is there: until then it shows entity votes.
    """
    metric = profile.confidence.metric
    weights = profile.confidence.weights
    early = metric not in ("type_posterior", "combined") or (
        metric == "combined" and weights and not weights.get("type_posterior")
    )
    return make_labeller(profile, domain, metric=metric if early else "entity_vote")


def _combination(profile: Profile) -> Combination:
    if profile.confidence.weights:
        return GeometricMean(dict(profile.confidence.weights.items()))
    fitted = _stored(profile, "metric 'combined' without confidence.weights")
    if fitted.combination is None:
        raise PreconditionError(
            f"{fitted.path} holds no fit of several metrics",
            hint="run `ccrl curriculum calibrate --metric combined`, or set confidence.weights",
        )
    return fitted.combination


def _calibrated(labels: LabelSet, profile: Profile) -> LabelSet:
    """Return the labels with calibrated confidences, in the same order."""
    kind = profile.confidence.calibrator
    stored = _stored(profile, f"calibrator {kind!r}")
    try:
        values = calibrate_in_order(stored.calibrators[kind], list(labels.confidence.values()))
    except ValueError as error:
        raise PreconditionError(
            f"the {kind} calibrator of {stored.path} cannot be used: {error}",
            hint="choose another with --set confidence.calibrator=isotonic, or none",
        ) from error
    calibrated = {
        key: replace(label, confidence=value)
        for (key, label), value in zip(labels.labels.items(), values.tolist(), strict=True)
    }
    return replace(labels, labels=calibrated, calibrator=kind)


def _stored(profile: Profile, what: str) -> CalibrationFile:
    """Return the stored calibration; it must have been fitted for this profile's confidence."""
    stored = read_calibration(profile)
    if stored is None:
        raise PreconditionError(f"{what} needs a calibration, and none is there", hint=CALIBRATE)
    if stored.differs:
        name, was, now = stored.differs
        raise PreconditionError(
            f"{stored.path} was fitted with {name} = {was!r}, and the profile says {now!r}",
            hint=CALIBRATE,
        )
    return stored

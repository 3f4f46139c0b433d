"""Calibrate: fit confidence to correctness on labelled inputs, measure on others of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ccrl_cli.core.calibration import FITS, Calibrator, Platt, fit_combination
from ccrl_cli.core.combination import METRICS, LogisticCombination
from ccrl_cli.core.discrimination import auroc_interval
from ccrl_cli.core.reliability import ReliabilityBin, brier, ece, reliability_bins, risk_coverage
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.statistics import Interval
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.pipelines.common.domains import Domain, Inputs, load_domain
from ccrl_cli.pipelines.labelling.calibration_file import write_calibration
from ccrl_cli.pipelines.labelling.labels import check_logprobs, derive_labels, make_labeller
from ccrl_cli.pipelines.labelling.quality import LabelScore, score_labels
from ccrl_cli.pipelines.labelling.samples import SampleSet, load_samples

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

Against = Literal["exact", "f1"]
FloatArray = NDArray[np.float64]

COVERAGES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Coverages at which risk is shown."""

SMALLEST_HALF = 10
"""Labelled inputs that either half needs."""


@dataclass(frozen=True, slots=True)
class Measures:
    """How good a confidence is on the held-out half.

    Attributes:
        ece: expected calibration error over bins of equal mass.
        brier: mean squared difference.
        auroc: of confidence against exact match, with its interval; None if all are on one side.
        risk: mean of 1 − target over the surest share of the inputs, by coverage.
        area: mean risk over all coverages.
        bins: reliability diagram: count, mean confidence, mean target.
    """

    ece: float
    brier: float
    auroc: Interval | None
    risk: Mapping[str, float]
    area: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class CalibrationView:
    """Fits of a confidence and what they do on inputs they have not seen.

    Attributes:
        path: file of the fits.
        inputs: labelled inputs, such as ``dev``.
        metric: name of the confidence.
        label: rule of the pseudo-labels.
        against: target of the fits: ``exact`` match with gold, or entity ``f1``.
        num_bins: B of ECE and of the diagram.
        num_fitted: inputs that the fits have seen.
        num_held_out: inputs that everything here is measured on.
        held_out_right: share of the held-out labels that equal gold.
        before: measures of the confidence as it is.
        after: measures after each calibrator.
        calibrators: parameters of each calibrator.
        best: usable calibrator of least ECE; it is chosen on the held-out half, so its own ECE is
            a little too good.
        combination: coefficient of each metric, and the intercept, where ``combined`` was fitted.
        note: what a calibrator can do for a curriculum, and what not.
        reportable: False with a mock backend.
    """

    path: str
    inputs: str
    metric: str
    label: str
    against: str
    num_bins: int
    num_fitted: int
    num_held_out: int
    held_out_right: float
    before: Measures
    after: Mapping[str, Measures]
    calibrators: Mapping[str, Mapping[str, object]]
    best: str
    combination: Mapping[str, float] | None
    note: str
    reportable: bool


@dataclass(frozen=True, slots=True)
class _Half:
    """Confidences of some inputs and what they should have been."""

    confidences: FloatArray
    targets: FloatArray
    exact: FloatArray


def calibrate(
    profile: Profile,
    inputs: Inputs,
    *,
    against: Against = "exact",
    num_bins: int = 10,
    reporter: Reporter,
) -> CalibrationView:
    """Fit every calibrator on one half of labelled inputs, measure on the other, store the fits.

    The halves follow from the seed of the run and the input's identifier.

    Args:
        profile: the profile; its own ``confidence.calibrator`` plays no part.
        inputs: labelled inputs with completions in the store.
        against: what confidence should say: chance of an exact label, or its expected F1.
        num_bins: B, at least 1.
        reporter: told when inputs that are trained on are used.

    Raises:
        PreconditionError: there are no completions, no gold labels, or too few of them.
        UsageError: the metric cannot be computed from these completions.
    """
    domain = load_domain(profile, inputs.role)
    found = load_samples(profile, domain, inputs)
    halves = _split(profile, found)
    _warn_of_training_inputs(profile, inputs, found, reporter)
    values, scores, combination = _confidences(profile, domain, found, halves[0])
    fitted, held = (_half(keys, values, scores, against) for keys in halves)
    calibrators = {kind: fit(fitted.confidences, fitted.targets) for kind, fit in FITS.items()}
    seed = derive_seed(profile.run.seed, "calibration-auroc")
    before = _measure(held.confidences, held, num_bins, seed)
    after = {
        kind: _measure(fit(held.confidences), held, num_bins, seed)
        for kind, fit in calibrators.items()
    }
    report = {"inputs": str(inputs), "against": against, "num_bins": num_bins}
    report |= {"fitted": len(halves[0]), "held_out": len(halves[1])}
    measured = {kind: _plain(measures) for kind, measures in {"before": before, **after}.items()}
    path = write_calibration(profile, calibrators, combination, {**report, "measures": measured})
    return CalibrationView(
        path=str(path),
        inputs=str(inputs),
        metric=profile.confidence.metric,
        label=profile.confidence.label,
        against=against,
        num_bins=num_bins,
        num_fitted=len(halves[0]),
        num_held_out=len(halves[1]),
        held_out_right=float(held.exact.mean()),
        before=before,
        after=after,
        calibrators={kind: fit.to_dict() for kind, fit in calibrators.items()},
        best=min(_usable(calibrators), key=lambda kind: after[kind].ece),
        combination=None
        if combination is None
        else {"intercept": combination.intercept, **combination.coefficients},
        note=_note(calibrators),
        reportable=found.reportable,
    )


def draw_reliability(view: CalibrationView, path: Path) -> None:
    """Write the reliability diagram as a picture.

    Raises:
        PreconditionError: the plotting library is missing.
        UsageError: the suffix is not that of a picture.
    """
    from ccrl_cli.report.learning_figures import reliability_figure

    reliability_figure(
        path,
        _points(view.before),
        {kind: _points(measures) for kind, measures in view.after.items()},
        title=f"{view.metric} on {view.num_held_out} held-out inputs of {view.inputs}",
    )


def _points(measures: Measures) -> list[tuple[float, float, int]]:
    return [(part.mean_confidence, part.mean_target, part.count) for part in measures.bins]


def _split(profile: Profile, found: SampleSet) -> tuple[list[str], list[str]]:
    """Return two halves of the labelled inputs, by a hash of their identifiers."""
    labelled = [key for key in found.samples if found.examples[key].gold is not None]
    if len(labelled) < 2 * SMALLEST_HALF:
        raise PreconditionError(
            f"calibration needs {2 * SMALLEST_HALF} labelled inputs with completions, "
            f"and there are {len(labelled)}",
            hint="generate for a larger labelled split: `ccrl generate --split dev --resume`",
        )
    mixed = sorted(labelled, key=lambda key: derive_seed(profile.run.seed, "calibration", key))
    middle = len(mixed) // 2
    return mixed[:middle], mixed[middle:]


def _confidences(
    profile: Profile, domain: Domain, found: SampleSet, fitted: Sequence[str]
) -> tuple[dict[str, float], dict[str, LabelScore], LogisticCombination | None]:
    """Return confidence and score of each label; ``combined`` without weights is fitted first."""
    section = profile.confidence
    fit_first = section.metric == "combined" and not section.weights
    try:
        if not fit_first:
            check_logprobs(profile, found)
            labels = derive_labels(profile, domain, found, make_labeller(profile, domain))
            scores = score_labels(labels.labels, found.examples, domain.labels)
            return labels.confidence, scores, None
        by_metric = _every_metric(profile, domain, found)
    except ValueError as error:
        raise UsageError(
            f"confidence.metric {section.metric!r} cannot be computed here: {error}",
            hint="choose another with --metric, for example entity_vote",
        ) from error
    labels = derive_labels(
        profile, domain, found, make_labeller(profile, domain, metric="entity_vote")
    )
    scores = score_labels(labels.labels, found.examples, domain.labels)
    right = [float(scores[key].exact) for key in fitted]
    try:
        combination = fit_combination(
            {name: [part[key] for key in fitted] for name, part in by_metric.items()}, right
        )
    except ValueError as error:
        raise PreconditionError(f"several metrics cannot be combined: {error}") from error
    labeller = make_labeller(profile, domain, metric="combined", combination=combination)
    values = derive_labels(profile, domain, found, labeller).confidence
    return values, scores, combination


def _every_metric(
    profile: Profile, domain: Domain, found: SampleSet
) -> dict[str, dict[str, float]]:
    """Return each metric that these completions have, by input; at least entity votes."""
    values = {}
    for name in METRICS[:-1]:
        try:
            labeller = make_labeller(profile, domain, metric=name)
            values[name] = derive_labels(profile, domain, found, labeller).confidence
        except (ValueError, PreconditionError):
            if name not in ("logprob", "type_posterior"):
                raise
    return values


def _half(
    keys: Sequence[str],
    values: Mapping[str, float],
    scores: Mapping[str, LabelScore],
    against: Against,
) -> _Half:
    exact = np.array([float(scores[key].exact) for key in keys])
    f1 = np.array([scores[key].score.f1 for key in keys])
    return _Half(
        np.array([values[key] for key in keys]), exact if against == "exact" else f1, exact
    )


def _measure(confidences: FloatArray, held: _Half, num_bins: int, seed: int) -> Measures:
    curve = risk_coverage(confidences, held.targets)
    places = {share: max(1, round(share * len(confidences))) - 1 for share in COVERAGES}
    return Measures(
        ece=ece(confidences, held.targets, num_bins=num_bins),
        brier=brier(confidences, held.targets),
        auroc=auroc_interval(confidences, held.exact, np.random.default_rng(seed)),
        risk={f"{share:g}": float(curve.risk[place]) for share, place in places.items()},
        area=curve.area,
        bins=reliability_bins(confidences, held.targets, num_bins=num_bins),
    )


def _usable(calibrators: Mapping[str, Calibrator]) -> list[str]:
    """Return the calibrators that keep the order: all but a Platt line that falls."""
    return [
        kind for kind, fit in calibrators.items() if not (isinstance(fit, Platt) and fit.slope < 0)
    ]


def _note(calibrators: Mapping[str, Calibrator]) -> str:
    note = (
        "a monotone calibrator moves thresholds and weights, not the order of the inputs: "
        "what each stage opens stays the same"
    )
    if len(_usable(calibrators)) < len(calibrators):
        note += "; platt has a negative slope here (surer labels were worse) and cannot be used"
    return note


def _plain(measures: Measures) -> dict[str, object]:
    return {
        "ece": measures.ece,
        "brier": measures.brier,
        "auroc": None if measures.auroc is None else asdict(measures.auroc),
        "area": measures.area,
        "risk": dict(measures.risk),
    }


def _warn_of_training_inputs(
    profile: Profile, inputs: Inputs, found: SampleSet, reporter: Reporter
) -> None:
    """Say when gold labels of inputs are read that the run trains on without labels."""
    if inputs.role != "target":
        return
    training = load_domain(profile, "target").training_inputs()[0]
    both = len({example.id for example in training} & set(found.samples))
    if both:
        reporter.warn(
            f"{both} of {len(found.samples)} inputs are training inputs too: calibrating on them "
            "reads gold labels that the run is said not to have"
        )

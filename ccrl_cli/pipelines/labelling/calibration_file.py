"""What ``ccrl curriculum calibrate`` leaves beside a store: fits of confidence, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.core.calibration import Calibrator, calibrator_from_dict
from ccrl_cli.core.combination import Combination, LogisticCombination
from ccrl_cli.errors import IntegrityError
from ccrl_cli.store.atomic import write_json
from ccrl_cli.store.encoding import load_json

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile

SCHEMA = 1
CALIBRATE = "run `ccrl curriculum calibrate` first (it needs labelled inputs with completions)"

_RELEVANT = (
    "metric",
    "weights",
    "label",
    "positive",
    "negative",
    "similarity",
    "models",
    "type_rule",
    "type_question",
    "type_prior",
    "prior_matching",
)


@dataclass(frozen=True, slots=True)
class CalibrationFile:
    """Fits of a profile's confidence.

    Attributes:
        path: the file.
        calibrators: by kind: ``temperature``, ``platt``, ``isotonic``.
        combination: fit of several metrics, if the metric was ``combined``.
        differs: first key of the confidence section whose value was another when it was fitted:
            name, value then, value now; None if the fits belong to the profile.
    """

    path: Path
    calibrators: Mapping[str, Calibrator]
    combination: Combination | None
    differs: tuple[str, Any, Any] | None = None


def calibration_path(profile: Profile) -> Path:
    """Return ``<store>.calibration.json``, the store's own ``.jsonl`` not repeated.

    It belongs to the completions: the arms of a comparison have one store, and so one fit.
    """
    store = profile.store_path
    return store.with_name(store.name.removesuffix(".jsonl") + ".calibration.json")


def write_calibration(
    profile: Profile,
    calibrators: Mapping[str, Calibrator],
    combination: LogisticCombination | None,
    report: Mapping[str, Any],
) -> Path:
    """Write the fits of a profile's confidence with what they were measured to do."""
    path = calibration_path(profile)
    path.parent.mkdir(parents=True, exist_ok=True)
    fitted = None
    if combination is not None:
        fitted = {
            "intercept": combination.intercept,
            "coefficients": dict(combination.coefficients),
        }
    write_json(
        path,
        {
            "schema": SCHEMA,
            "confidence": _settings(profile),
            "calibrators": {kind: fit.to_dict() for kind, fit in calibrators.items()},
            "combination": fitted,
            "report": dict(report),
        },
    )
    return path


def read_calibration(profile: Profile) -> CalibrationFile | None:
    """Return the calibration of a profile's store; None if there is none.

    Raises:
        IntegrityError: the file is damaged.
    """
    path = calibration_path(profile)
    if not path.exists():
        return None
    try:
        value = load_json(path.read_bytes())
        settings, now = value["confidence"], _settings(profile)
        changed = (key for key in _RELEVANT if settings.get(key) != now[key])
        name = next(changed, None)
        combination = value["combination"]
        return CalibrationFile(
            path=path,
            calibrators={
                kind: calibrator_from_dict(fit) for kind, fit in value["calibrators"].items()
            },
            combination=None
            if combination is None
            else LogisticCombination(combination["intercept"], combination["coefficients"]),
            differs=None if name is None else (name, settings.get(name), now[name]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", hint=CALIBRATE) from error


def _settings(profile: Profile) -> dict[str, Any]:
    values = profile.confidence.model_dump(mode="json")
    return {key: values[key] for key in _RELEVANT}

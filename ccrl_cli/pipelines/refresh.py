"""Dynamic curriculum of a profile: what a trainer needs to refresh labels while it trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ccrl_cli.core.refresh import Refresher, RefreshSettings
from ccrl_cli.pipelines.labels import LabelSet, make_labeller

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.pipelines.domains import Domain
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
    settings = RefreshSettings(
        every_steps=section.refresh_every_steps,
        window=section.refresh_window,
        source=section.refresh_from,
        min_completions=min(4, profile.training.num_generations),
    )
    trained: dict[str, PseudoLabel] = {
        key: label for key, label in labels.labels.items() if key in inputs
    }
    return Refresher(trained, make_labeller(profile, domain), settings, labels.chosen_types)

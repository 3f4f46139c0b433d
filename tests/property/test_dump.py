"""A profile written as TOML and read again is the same profile."""

from __future__ import annotations

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_cli.config.dump import to_toml
from ccrl_cli.config.schema import Profile

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
paths = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)
floats = st.floats(min_value=1e-12, max_value=1e12)


@settings(max_examples=60, deadline=None)
@given(
    paths,
    st.lists(texts, unique=True, max_size=4),
    st.dictionaries(texts, st.integers(0, 99).map(str), max_size=3),
    floats,
)
def test_round_trip(path, models, identifiers, rate):
    names = {key: f"name {index}" for index, key in enumerate(identifiers)}
    profile = Profile.model_validate(
        {
            "model": {"name": path},
            "data": {"source": {"path": path}, "target": {"path": path}, "type_names": names},
            "generation": {"models": models},
            "training": {"learning_rate": rate},
        }
    )
    assert Profile.model_validate(tomllib.loads(to_toml(profile))) == profile

"""docs/training.md says every option with its default, every rule, every field of a record."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ccrl_cli.config.training import Guard, Training
from ccrl_cli.core.collapse import RULES, GuardLimits

PAGE = Path(__file__).parents[3] / "docs" / "training.md"
if not PAGE.is_file():
    pytest.skip("the page is in the repository, not in the package", allow_module_level=True)
TEXT = PAGE.read_text(encoding="utf-8")
FIELDS = {**Training.model_fields, **Guard.model_fields}
del FIELDS["guard"]


def shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return "unset" if value is None else str(value)


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_is_there_with_its_default(name):
    field = FIELDS[name]
    assert f"| `{name}` | {shown(field.default)} | {field.description} |" in TEXT


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_explained(rule):
    assert f"| `{rule}` |" in TEXT


def test_the_profile_and_the_rules_have_the_same_defaults():
    given = {name: field.default for name, field in Guard.model_fields.items()}
    limits = GuardLimits()
    assert given.pop("enabled") is True
    assert given.pop("window_steps") == limits.window
    assert given == {name: getattr(limits, name) for name in given}


def test_every_field_of_a_record_is_named():
    package = Path(__file__).parents[3] / "ccrl_cli"
    sources = [
        (package / place).read_text(encoding="utf-8")
        for place in ("core/telemetry.py", "trainers/recording.py", "trainers/probe.py")
    ]
    names = set(re.findall(r'(?:values\["|^ {12}")([a-z_0-9]+)"', "\n".join(sources), re.M))
    assert len(names) > 18
    missing = sorted(name for name in names if f"`{name}`" not in TEXT)
    assert not missing

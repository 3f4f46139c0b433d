"""What is relied on of TRL's private surface is listed, and is still where it was."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest

import ccrl_cli.trainers
from ccrl_cli.trainers.private import PRIVATE_METHODS
from lazily import lazy, needs

GRPOTrainer = lazy("trl", "GRPOTrainer")
WeightedGrpoTrainer = lazy("ccrl_cli.trainers.grpo", "WeightedGrpoTrainer")

pytestmark = needs("torch", "transformers", "trl", "peft")

LISTED = {method.name: method for method in PRIVATE_METHODS}


def parameters(name: str) -> list[str]:
    """Return the parameters of a method but ``self``, as its source says: TRL decorates some."""
    owner = next(kind for kind in GRPOTrainer.mro() if name in vars(kind))
    tree = ast.parse(inspect.getsource(sys.modules[owner.__module__]))
    (found,) = (
        node
        for part in ast.walk(tree)
        if isinstance(part, ast.ClassDef) and part.name == owner.__name__
        for node in part.body
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    return [argument.arg for argument in (*found.args.args, *found.args.kwonlyargs)][1:]


@pytest.mark.parametrize("name", LISTED)
def test_trl_still_has_the_method_with_these_parameters(name):
    found = parameters(name)
    wanted = LISTED[name].parameters
    assert tuple(found[: len(wanted)]) == wanted, f"TRL has moved {name}: it takes {found}"


def test_no_other_private_method_is_overridden():
    own = {
        name
        for name in vars(WeightedGrpoTrainer)
        if name.startswith("_") and not name.startswith("__") and hasattr(GRPOTrainer, name)
    }
    assert own == {name for name, method in LISTED.items() if method.use == "overridden"}


def test_no_other_private_method_is_called():
    folder = Path(ccrl_cli.trainers.__file__).parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    called = set(re.findall(r"(?:trainer|super\(\))\.(_[a-z]\w+)\(", text))
    assert called == set(LISTED)

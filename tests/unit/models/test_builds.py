"""Which PyTorch build fits: the examples of the documentation, and both limits of the driver."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ccrl_cli.models.builds import Card, installed_build, parse_cards, pick_build
from ccrl_cli.models.hardware import find_cards

GUIDE = Path(__file__).parents[3] / "docs" / "installing.md"
if not GUIDE.exists():
    pytest.skip("the table is in the repository's docs", allow_module_level=True)
EXAMPLES = re.findall(
    r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| `(\w+)` \|$", GUIDE.read_text("utf-8"), re.MULTILINE
)


@pytest.mark.parametrize("system", ["Linux", "Windows"])
@pytest.mark.parametrize(("name", "capability", "driver", "build"), EXAMPLES)
def test_the_examples_of_the_documentation(name, capability, driver, build, system):
    (card,) = parse_cards(f"{driver}, {capability}, NVIDIA {name}\n")
    assert str(card) == f"NVIDIA {name} (compute capability {capability})"
    assert pick_build([card], system).name == build


@pytest.mark.parametrize(
    ("driver", "linux", "windows"),
    [
        ("525.59", "cpu", "cpu"),
        ("525.60.13", "cu126", "cpu"),
        ("528.33", "cu126", "cu126"),
        ("579.99", "cu126", "cu126"),
        ("580", "cu130", "cu130"),
    ],
)
def test_the_oldest_driver(driver, linux, windows):
    cards = [Card("A", (8, 9), driver)]
    assert pick_build(cards, "Linux").name == linux
    assert pick_build(cards, "Windows").name == windows
    assert ("or newer" in pick_build(cards, "Windows").reason) == (windows == "cpu")


def test_several_cards_and_none():
    new, old = Card("RTX 4090", (8, 9), "580.88"), Card("GTX 1080", (6, 1), "580.88")
    for cards in ([new, old], [old, new]):
        build = pick_build(cards, "Linux")
        assert (build.name, build.without) == ("cu130", (old,))
    assert pick_build([old], "Linux").without == ()
    assert pick_build([], "Linux").name == "cpu"
    assert pick_build([new], "Darwin").name == "pypi"


def test_odd_answers():
    answer = "\n".join(
        [
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
            "570.10, [N/A], NVIDIA GRID A100D, 20C\r",
        ]
    )
    (card,) = parse_cards(answer)
    assert card == Card("NVIDIA GRID A100D, 20C", None, "570.10")
    assert pick_build([card], "Linux").name == "cu126"
    assert "unknown" in str(card)


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_a_good_answer_with_a_bad_exit_code(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '535.183.01, 8.0, NVIDIA A100'\nexit 14\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cards() == (Card("NVIDIA A100", (8, 0), "535.183.01"),)
    program.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    assert find_cards() == ()


def test_the_build_in_place():
    torch = pytest.importorskip("torch")
    name = installed_build()
    assert name is not None
    assert name.startswith("cu") == (torch.version.cuda is not None)

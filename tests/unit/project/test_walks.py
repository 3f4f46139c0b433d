"""Documents name files that exist, and link to pages that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
WALKS = DOCS / "architecture.md"
if not WALKS.exists():
    pytest.skip("the documentation is not part of an installed package", allow_module_level=True)

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
HEADINGS = (
    "How a label is made", "What opens when", "What an answer earns", "How two arms are compared"
)  # fmt: skip


def walks():
    """Return the text of each walk by its heading."""
    parts = re.split(r"^## (.+)$", WALKS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_file_of_a_walk_exists(heading):
    named = re.findall(r"`(ccrl_cli/[\w/]+\.py)`", walks()[heading])
    assert len(named) >= 4, f"the walk {heading!r} in {WALKS.name} names too few files"
    gone = [name for name in named if not (ROOT / name).is_file()]
    assert not gone, (
        f"docs/architecture.md, walk {heading!r}, names {', '.join(gone)}: moved or removed. "
        "Name the file that does this step now"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    gone = [
        target for target in targets if "://" not in target and not (page.parent / target).exists()
    ]
    assert not gone, f"{page.relative_to(ROOT)} links to what is not there: {', '.join(gone)}"


def test_every_arm_is_in_the_table():
    from ccrl_cli.pipelines.comparison.arms import RECIPES

    rows = re.findall(
        r"^\| `([\w-]+)` \| (\w+) \|", (DOCS / "baselines.md").read_text("utf-8"), re.M
    )
    assert rows == [(recipe.name, recipe.kind) for recipe in RECIPES.values()]

"""Progress by the growth of a folder."""

from __future__ import annotations

import time

from ccrl_cli.models import watch
from ccrl_cli.models.watch import watch_growth
from ccrl_cli.reporting import NullReporter


def test_growth_is_shown_while_it_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_SECONDS_BETWEEN_LOOKS", 0.005)
    (tmp_path / "before").write_bytes(b"x" * 5_000_000)  # does not count
    reporter = NullReporter()
    with watch_growth(tmp_path, 4_000_000, "work", reporter):
        piece = reporter.pieces[0]
        assert (piece.total, piece.description) == (4, "work [MB]")
        (tmp_path / "new").write_bytes(b"x" * 2_900_000)
        deadline = time.monotonic() + 5
        while piece.done < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert piece.done == 2
        (tmp_path / "new").unlink()  # moved elsewhere: what was shown stays
    assert piece.done == 4


def test_an_unknown_total_shows_what_arrived(tmp_path):
    reporter = NullReporter()
    with watch_growth(tmp_path / "later", None, "work", reporter):
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "file").write_bytes(b"x" * 3_000_000)
    assert (reporter.pieces[0].total, reporter.pieces[0].done) == (None, 3)

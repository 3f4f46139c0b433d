"""The reporter of library callers and tests."""

from __future__ import annotations

from ccrl_cli.reporting import NullReporter, Reporter


def work(reporter: Reporter) -> None:
    reporter.info("start")
    reporter.debug("detail")
    reporter.warn("careful")
    with reporter.progress(3, "generate") as progress:
        progress.advance()
        progress.advance(2, loss=0.5)


def test_null_reporter_keeps_what_it_is_told():
    reporter = NullReporter()
    work(reporter)
    assert (reporter.messages, reporter.details, reporter.warnings) == (
        ["start"],
        ["detail"],
        ["careful"],
    )
    (piece,) = reporter.pieces
    assert (piece.total, piece.done, piece.fields) == (3, 3, {"loss": 0.5})

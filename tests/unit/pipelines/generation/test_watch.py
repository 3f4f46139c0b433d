from __future__ import annotations

import pytest

from ccrl_cli.errors import PartialError
from ccrl_cli.pipelines.generation.watch import STOPPED_AFTER, AnswerWatch
from ccrl_cli.records import Completion, Parse

GOOD = Completion("[]", None, 2, "stop"), Parse("valid")
CUT = Completion("<think>", None, 64, "length"), Parse("invalid", reason="cut list")
FILTERED = Completion("", None, 0, "error", reason="content_filter"), Parse("invalid")
EMPTY = Completion("", None, 9, "stop", reasoning="hm"), Parse("invalid", reason="no list")


class Said(list):
    def warn(self, text):
        self.append(text)


def watched(*answers, needs_logprobs=False):
    said = Said()
    watch = AnswerWatch(said, 64, needs_logprobs=needs_logprobs)
    for completion, parse in answers:
        watch.add([completion], [parse])
    watch.end()
    return said


def test_a_run_of_good_answers_says_nothing():
    assert watched(GOOD, GOOD, CUT) == []


def test_answers_that_cannot_be_read_are_said_with_their_reasons():
    (said,) = watched(CUT, EMPTY, EMPTY, GOOD)
    assert "3 of 4 answers cannot be read" in said
    assert "2 reasoning alone" in said
    (said,) = watched(CUT, CUT)
    assert "raise generation.max_tokens (it is 64)" in said


def test_what_a_server_reports_is_said_in_its_own_words():
    (said,) = watched(GOOD, GOOD, GOOD, FILTERED)
    assert "1 error: content_filter" in said


def test_a_run_whose_answers_are_all_unreadable_is_stopped():
    watch = AnswerWatch(Said(), 64, needs_logprobs=False)
    for _ in range(STOPPED_AFTER - 1):
        watch.add([CUT[0]], [CUT[1]])
    with pytest.raises(PartialError, match="stopped: 64 of 64 answers") as caught:
        watch.add([CUT[0]], [CUT[1]])
    assert caught.value.exit_code == 4
    assert "max_tokens" in caught.value.hint


def test_a_run_with_some_good_answers_goes_on():
    watched(*[CUT] * 60, GOOD, GOOD, *[CUT] * 30)


def test_missing_logprobs_are_said_where_they_decide():
    assert watched(GOOD) == []
    (said,) = watched(GOOD, needs_logprobs=True)
    assert "1 of 1 answers have no log-probability" in said

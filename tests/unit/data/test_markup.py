from __future__ import annotations

import pytest

from ccrl_cli.data.examples import from_tokens
from ccrl_cli.data.markup import parse_corpus, parse_sentence
from ccrl_cli.errors import DataError
from ccrl_cli.records import Entity, Span
from written_markup import format_sentence


def test_mentions_become_spans():
    example = parse_sentence("[Vega C|rocket]'s debut thrilled [ESA|space_agency].", "f:1")
    assert example.text == "Vega C's debut thrilled ESA."
    # Vega C ' s debut thrilled ESA .
    assert example.tokens == ("Vega", "C", "'", "s", "debut", "thrilled", "ESA", ".")
    assert example.gold == (Span(0, 2, "rocket"), Span(6, 7, "space_agency"))
    assert example.gold_entities() == (Entity("Vega C", "rocket"), Entity("ESA", "space_agency"))


def test_a_sentence_without_mention_is_labelled_and_empty():
    assert parse_sentence("Nobody was hurt.", "f:1").gold == ()


def test_escapes():
    example = parse_sentence(r"\# a \[b\] c\|d \\ [x\|y|t\]u]", "f:1")
    assert example.text == r"# a [b] c|d \ x|y"
    assert example.gold_entities() == (Entity("x|y", "t]u"),)
    assert format_sentence(example) == r"\# a \[b\] c\|d \\ [x\|y|t\]u]"


def test_comments_blank_lines_line_ends_and_byte_order_mark():
    content = "\ufeff# head\r\n\r\n[A|t] b\r\n  \n#x\nc \u2028 d\x85e\n".encode()
    examples = parse_corpus(content, "f.txt")
    assert [e.text for e in examples] == ["A b", "c \u2028 d\x85e"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[A|t", "not closed"),
        ("A|t", "bar outside"),
        ("[A|t|u]", "bar outside a mention, or a second"),
        ("A] b", "closing bracket"),
        ("[A]", "without surface or type"),
        ("[|t]", "without surface or type"),
        ("[A| ]", "without surface or type"),
        ("[A [B|t]|u]", "inside a mention"),
        ("a \\n b", "unknown escape"),
        ("a \\", "unknown escape"),
        ("[A|unheard]", "unknown type"),
    ],
)
def test_errors_name_file_and_line(line, problem):
    content = f"# comment\nfine\n{line}\n".encode()
    with pytest.raises(DataError, match=problem) as caught:
        parse_corpus(content, "corpus.txt", types=("t", "u"))
    assert caught.value.message.startswith("corpus.txt:3:")
    assert caught.value.hint


def test_bytes_that_are_not_utf8_are_refused_with_their_line():
    with pytest.raises(DataError, match=r"c\.txt:2: byte 0xe9 at position 4"):
        parse_corpus("ok\ncaf\u00e9\n".encode("latin-1"), "c.txt")


@pytest.mark.parametrize("text", ["a\nb", " ", "a\r"])
def test_what_does_not_fit_in_a_line_is_refused(text):
    with pytest.raises(ValueError, match="one line"):
        format_sentence(from_tokens([text]))

from __future__ import annotations

import pytest

from ccrl_cli.data.examples import TaggedRow, from_tagged, from_tokens
from ccrl_cli.data.joining import join_tokens, lay_tokens


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["Mia", "left", "."], "Mia left ."),
        (["我", "在", "北京", "。"], "我在北京。"),
        (["在", "2004", "年"], "在2004年"),
        (["ผม", "ไป", "กรุงเทพ"], "ผมไปกรุงเทพ"),
        (["ทั้ง", "3", "ราย"], "ทั้ง 3 ราย"),
        (["ຂ້ອຍ", "ໄປ"], "ຂ້ອຍໄປ"),
        (["ខ្ញុំ", "ទៅ"], "ខ្ញុំទៅ"),
        (["ကျွန်တော်", "သွား"], "ကျွန်တော်သွား"),
        (["수진은", "왔다"], "수진은 왔다"),
        (["Mia", " ", "left"], "Mia left"),
    ],
)
def test_tokens_are_joined_as_their_script_is_written(tokens, text):
    assert join_tokens(tokens)[0] == text
    for token, (start, end) in zip(tokens, join_tokens(tokens)[1], strict=True):
        assert text[start:end] == token


def test_a_file_of_single_characters_has_its_blanks_as_tokens():
    rows = [
        TaggedRow("a:1", tuple("수진은 대전에 왔다"), ("B-x", "I-x", *"O" * 8)),
        TaggedRow("a:2", tuple("NASA"), ("B-y", *["I-y"] * 3)),
    ]
    first, second = from_tagged(rows).examples
    assert (first.text, second.text) == ("수진은 대전에 왔다", "NASA")
    assert [first.span_text(span) for span in first.gold] == ["수진"]
    assert second.tokens == ("NASA",)


def test_single_letters_of_a_spaced_script_are_words():
    (only,) = from_tagged([TaggedRow("a:1", ("a", "b"), ("B-x", "O"))]).examples
    assert only.text == "a b"


def test_blanks_in_a_mention_are_no_tokens():
    example = from_tokens(["Mia", " ", "Gold"])
    assert (example.text, example.tokens) == ("Mia Gold", ("Mia", "Gold"))


@pytest.mark.parametrize(
    ("tokens", "text", "wanted"),
    [
        (["Dr.", "Lind", ",", "Oslo"], "Dr. Lind, Oslo", ["Dr.", "Lind", ",", "Oslo"]),
        (["-LRB-", "x", "-RRB-"], "(x)", ["(", "x", ")"]),
        (["``", "Hm", "''"], "“Hm”", ["“", "Hm", "”"]),
        (["Zu\u0308rich"], "Zürich", ["Zürich"]),
        (["New York", "won"], "New  York won", ["New  York", "won"]),
        (["Ham\u00adburg"], "Hamburg", ["Hamburg"]),
    ],
)
def test_tokens_are_laid_on_their_text(tokens, text, wanted):
    offsets = lay_tokens(tokens, text)
    assert [text[start:end] for start, end in offsets] == wanted


@pytest.mark.parametrize("tokens", [["Bo"], ["Mia"], ["Mia", "leftover"], ["Mia", "left", "."]])
def test_tokens_of_another_text_are_not_laid(tokens):
    assert lay_tokens(tokens, "Mia left") is None

"""Texts to predict on: every line counts."""

from __future__ import annotations

import gzip

import pytest

from ccrl_cli.data.inputs import InputText, parse_texts, read_texts
from ccrl_cli.errors import DataError, PreconditionError


def test_lines_of_text_keep_empty_ones_and_odd_characters():
    content = "one\n\n  \r\nline\u2028separator\n".encode()
    assert [t.text for t in parse_texts(content, "x")] == ["one", "", "  ", "line\u2028separator"]


def test_json_lines_are_recognised_and_keep_their_id():
    content = b'\n{"text": "a", "id": 7}\n{"text": "", "id": "b"}\n{"text": "c", "id": [1]}\n'
    assert parse_texts(content, "x") == [InputText("a", 7), InputText("", "b"), InputText("c")]


def test_a_text_that_begins_like_json_is_text():
    assert [t.text for t in parse_texts(b'{"no": "text"}\n[1]\n', "x")] == ['{"no": "text"}', "[1]"]


def test_a_bad_line_is_named(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a"}\n{"txt": "b"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"in\.jsonl:2: the line is no JSON object with"):
        read_texts(path)
    path.write_text('{"text": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match=":1"):
        read_texts(path)


def test_files_by_name(tmp_path):
    text, packed, conll = (tmp_path / name for name in ("a.txt", "b.jsonl.gz", "c.conll"))
    text.write_bytes("\ufeffGrüße\n\nzwei".encode())
    packed.write_bytes(gzip.compress(b'{"text": "zipped"}\n'))
    conll.write_text("NASA B-ORG\nflies O\n\nTwo O\n", encoding="utf-8")
    assert [t.text for t in read_texts(text)] == ["Grüße", "", "zwei"]
    assert [t.text for t in read_texts(packed)] == ["zipped"]
    assert [t.text for t in read_texts(conll)] == ["NASA flies", "Two"]


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(PreconditionError, match="does not exist"):
        read_texts(tmp_path / "none.txt")
    folder = tmp_path / "folder.txt"
    folder.mkdir()
    with pytest.raises(PreconditionError, match="cannot be read"):
        read_texts(folder)
    damaged = tmp_path / "d.txt.gz"
    damaged.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="gzip file is damaged"):
        read_texts(damaged)
    with pytest.raises(DataError, match="not known by its name"):
        read_texts(tmp_path / "a.pdf")
    latin = tmp_path / "l.txt"
    latin.write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_texts(latin)

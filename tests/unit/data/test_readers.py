from __future__ import annotations

import csv
import gzip
import hashlib
import json
import sys

import pytest

from ccrl_cli.data.readers import read_examples
from ccrl_cli.errors import DataError, PreconditionError
from ccrl_cli.records import Entity, Span

TOKENS = ["Vega", "C", "flew", "for", "ESA", "ASI", "."]
GOLD = (Span(0, 2, "rocket"), Span(4, 5, "agency"), Span(5, 6, "agency"))
IOB2 = ["B-rocket", "I-rocket", "O", "O", "B-agency", "B-agency", "O"]
IOB1 = ["I-rocket", "I-rocket", "O", "O", "I-agency", "B-agency", "O"]
IOBES = ["B-rocket", "E-rocket", "O", "O", "S-agency", "S-agency", "O"]
BILOU = ["B-rocket", "L-rocket", "O", "O", "U-agency", "U-agency", "O"]
IO = ["rocket", "rocket", "O", "O", "agency", "agency", "O"]


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        path.write_bytes(data)
        return path

    return write_file


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def conll(tokens, tags, separator="\t"):
    return "".join(f"{a}{separator}{b}\n" for a, b in zip(tokens, tags, strict=True)) + "\n"


# --- JSONL --------------------------------------------------------------------------------------


def test_tokens_and_tags(write):
    path = write("a.jsonl", lines({"tokens": TOKENS, "ner_tags": IOB2, "id": 3}))
    result = read_examples(path)
    (example,) = result.examples
    assert example.text == "Vega C flew for ESA ASI ."
    assert example.offsets[:3] == ((0, 4), (5, 6), (7, 11))
    assert example.gold == GOLD
    assert result.labels == ("agency", "rocket")
    assert (result.scheme, result.counts.mentions) == ("IOB2", 3)
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_text_alone_is_unlabelled(write):
    result = read_examples(write("a.jsonl", lines({"text": "Vega's flight"}, {"tokens": ["x"]})))
    assert [e.gold for e in result.examples] == [None, None]
    assert result.examples[0].tokens == ("Vega", "'", "s", "flight")
    assert (result.counts.labelled, result.labels, result.scheme) == (0, (), None)


def test_null_labels_are_unlabelled_and_empty_ones_are_not(write):
    rows = [{"text": "a", "entities": None}, {"text": "b", "entities": []}]
    rows += [{"tokens": ["c"], "ner_tags": None}, {"tokens": ["d"], "ner_tags": ["O"]}]
    result = read_examples(write("a.jsonl", lines(*rows)))
    assert [e.gold for e in result.examples] == [None, (), None, ()]
    assert (result.counts.labelled, result.counts.without_mention) == (2, 2)


def test_entities_with_and_without_positions(write):
    # "Rhea saw Rhea and Rhea": positions take the middle one, the others go left to right
    text = "Rhea saw Rhea and Rhea"
    entities = [
        {"text": "Rhea", "type": "a"},
        {"text": "Rhea", "type": "b", "start": 9, "end": 13},
        {"text": "Rhea", "type": "c"},
    ]
    (example,) = read_examples(
        write("a.jsonl", lines({"text": text, "entities": entities}))
    ).examples
    assert example.gold == (Span(0, 1, "a"), Span(2, 3, "b"), Span(4, 5, "c"))


def test_tokens_with_entities(write):
    row = {"tokens": ["New", "York", "!"], "entities": [{"text": "New York", "type": "place"}]}
    (example,) = read_examples(write("a.jsonl", lines(row))).examples
    assert example.gold_entities() == (Entity("New York", "place"),)


@pytest.mark.parametrize(
    ("entity", "problem"),
    [
        ({"text": "Rhea", "type": "a", "start": 0}, "not both"),
        ({"text": "Rhea", "type": "a", "start": 1, "end": 5}, "is not 'Rhea'"),
        ({"text": "Rhea", "type": "a", "start": -4, "end": 99}, "is not 'Rhea'"),
        ({"text": "Rhex", "type": "a"}, "not in the text"),
        ({"text": "rhea", "type": "a"}, "not in the text"),
        ({"type": "a", "start": 4, "end": 5}, "no visible text"),
        ({"text": "Rhea", "type": "a", "start": 0.0, "end": 4}, "whole number"),
        ({"text": "Rhea"}, 'no "type"'),
        ({"type": "a"}, 'no "text"'),
        ("Rhea", "not an object"),
    ],
)
def test_entities_that_do_not_fit_are_refused(write, entity, problem):
    path = write("a.jsonl", lines({"text": "ok"}, {"text": "Rhea shone", "entities": [entity]}))
    with pytest.raises(DataError, match=problem) as caught:
        read_examples(path)
    assert caught.value.message.startswith(f"{path}:2: ")
    assert caught.value.hint


def test_overlapping_entities_are_refused(write):
    entities = [
        {"text": "New York", "type": "a", "start": 0, "end": 8},
        {"text": "York", "type": "b", "start": 4, "end": 8},
    ]
    path = write("a.jsonl", lines({"text": "New York", "entities": entities}))
    with pytest.raises(DataError, match="overlap"):
        read_examples(path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 200_000, "not JSON"),
        ('{"n": ' + "9" * 5000 + "}", "not JSON"),
        ("{}", 'no "text"'),
        ('{"text": 3}', 'no "text"'),
        ('{"tokens": "ab"}', "list of texts"),
        ('{"tokens": ["a"], "ner_tags": "O"}', "list of tags"),
        ('{"tokens": ["a"], "ner_tags": ["O", "O"]}', "1 tokens but 2 tags"),
        ('{"tokens": ["a"], "ner_tags": [""]}', "tag of token 1 is empty"),
        ('{"tokens": ["a"], "ner_tags": [1]}', "not known"),
        ('{"tokens": ["a"], "ner_tags": [true]}', "list of tags"),
        ('{"text": "a", "entities": 3}', "not a list"),
    ],
)
def test_bad_lines_name_file_and_line(write, line, problem):
    path = write("a.jsonl", f'{{"text": "fine"}}\n\n{line}\n')
    with pytest.raises(DataError, match=problem) as caught:
        read_examples(path)
    assert caught.value.message.startswith(f"{path}:3: ")
    assert caught.value.hint


def test_integer_tags_take_their_names_from_labels(write):
    path = write("a.jsonl", lines({"tokens": ["a", "b"], "ner_tags": [1, 0]}))
    result = read_examples(path, ["O", "B-x", "I-x"])
    assert result.examples[0].gold == (Span(0, 1, "x"),)
    with pytest.raises(DataError, match="holds 1, but there are 1"):
        read_examples(path, ["O"])


def test_hostile_text_loses_nothing(write):
    texts = [
        "x" * 100_000 + " \u2028\u2029\x85\x1c nul\x00 \ufeff bell\x07",
        "lone \ud83d and pair \U0001f680",
        " leading and trailing \t",
        "carriage\rreturn\r",
    ]
    content = b"\xef\xbb\xbf" + lines(*({"text": t} for t in texts)).replace("\n", "\r\n").encode()
    result = read_examples(write("a.jsonl", content))
    assert [e.text for e in result.examples] == texts
    # the same without escapes: the bytes themselves, split at \n alone
    raw = "".join(
        json.dumps({"text": t}, ensure_ascii=False).replace("\n", "\\n") + "\n" for t in texts
    )
    assert [e.text for e in read_examples(write("b.jsonl", raw)).examples] == texts


def test_empty_rows_and_duplicates_are_counted(write):
    rows = [{"text": " "}, {"tokens": []}, {"text": "a b"}, {"tokens": ["a", "b"]}, {"text": "c"}]
    result = read_examples(write("a.jsonl", lines(*rows)))
    assert (result.counts.sentences, result.counts.empty, result.counts.duplicates) == (3, 2, 1)
    assert [e.text for e in result.examples] == ["a b", "a b", "c"]


def test_gzip_hashes_the_stored_bytes(write):
    content = lines({"text": "a"}).encode()
    path = write("a.jsonl.gz", gzip.compress(content))
    result = read_examples(path)
    assert result.examples[0].text == "a"
    assert result.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for damaged in (content, gzip.compress(content)[:-9]):
        with pytest.raises(DataError, match="damaged"):
            read_examples(write("b.jsonl.gz", damaged))


def test_missing_unknown_and_misencoded_files(write, tmp_path):
    with pytest.raises(PreconditionError, match="does not exist"):
        read_examples(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="format"):
        read_examples(write("a.docx", "x"))
    with pytest.raises(DataError, match="UTF-16"):
        read_examples(write("a.txt", "x".encode("utf-16")))
    with pytest.raises(DataError, match=r"b\.txt:2: byte 0xff"):
        read_examples(write("b.txt", b"x\n\xff\n"))


# --- tag schemes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "scheme", "converted"),
    [
        (IOB2, "IOB2", 0),
        (IOB1, "IOB1", 2),  # the first tags of rocket and ESA change from I- to B-
        (IOBES, "IOBES", 3),  # E-rocket, S-agency twice
        (BILOU, "IOBES", 3),
    ],
)
def test_schemes_are_converted_and_counted(write, tags, scheme, converted):
    result = read_examples(write("a.conll", conll(TOKENS, tags)))
    assert result.examples[0].gold == GOLD
    assert result.scheme == scheme
    assert (result.counts.converted_tags, result.counts.repaired_tags) == (converted, 0)


def test_tags_without_prefix_join_neighbours_of_one_type(write):
    result = read_examples(write("a.conll", conll(TOKENS, IO)))
    assert result.examples[0].gold == (Span(0, 2, "rocket"), Span(4, 6, "agency"))
    assert (result.scheme, result.counts.converted_tags) == ("IO", 4)


def test_stray_tags_are_repaired_and_counted(write):
    tags = ["B-x", "I-y", "O", "I-x", "I-x", "O", "O"]
    result = read_examples(write("a.conll", conll(TOKENS, tags)))
    assert result.examples[0].gold == (Span(0, 1, "x"), Span(1, 2, "y"), Span(3, 5, "x"))
    assert (result.scheme, result.counts.repaired_tags) == ("IOB2", 2)
    assert result.counts.converted_tags == 0


def test_prefixed_and_bare_tags_do_not_mix(write):
    content = conll(["a"], ["B-x"]) + conll(["b"], ["y"])
    path = write("a.conll", content)
    with pytest.raises(DataError, match=r"a\.conll:3: a tag without prefix"):
        read_examples(path)


def test_a_type_with_a_dash_is_not_a_prefix(write):
    result = read_examples(write("a.conll", conll(["a", "b"], ["art-film", "O"])))
    assert (result.labels, result.scheme) == (("art-film",), "IO")


# --- CoNLL and text -----------------------------------------------------------------------------


def test_conll_with_documents_comments_columns_and_line_ends(write):
    content = (
        "-DOCSTART- -X- O O\r\n\r\n"
        "# newdoc id = 1\r\n"
        "# NN I-NP O\r\n"  # a token that is a number sign
        "Rhea  NNP I-NP B-x\r\n \r\n\r\n"
        "-DOCSTART- -X- O O\r\n"
        "a\u00a0b NN I-NP O\r\n"
    )
    result = read_examples(write("a.conll", content))
    assert [e.tokens for e in result.examples] == [("#", "Rhea"), ("a\u00a0b",)]
    assert [e.gold for e in result.examples] == [(Span(1, 2, "x"),), ()]


def test_conll_of_one_column_is_unlabelled(write):
    result = read_examples(write("a.conll", "a\nb\n\nc\n"))
    assert [(e.text, e.gold) for e in result.examples] == [("a b", None), ("c", None)]


def test_conll_with_a_missing_column_names_the_line(write):
    with pytest.raises(DataError, match=r"a\.conll:2: 1 columns"):
        read_examples(write("a.conll", "a\tO\nb\n"))


def test_text_is_one_sentence_a_line_as_it_is(write):
    content = " Vega flew. \r\n\nThe answer is O\nx\u2028y\n" + "More words here.\n" * 20
    result = read_examples(write("a.txt", content))
    assert [e.text for e in result.examples[:3]] == [" Vega flew. ", "The answer is O", "x\u2028y"]
    assert (result.counts.empty, result.counts.sentences) == (1, 23)


@pytest.mark.parametrize("tags", [IOB2, IO])
def test_text_that_is_conll_is_read_so(write, tags):
    result = read_examples(write("a.txt", conll(TOKENS, tags) * 2))
    assert result.counts.sentences == 2
    assert result.examples[0].gold


def test_text_that_could_be_either_is_refused(write):
    content = conll(TOKENS, IOB2, " ") + "Nobody flew\n"
    with pytest.raises(DataError, match="7 of 8 lines end in a tag, line 9 does not") as caught:
        read_examples(write("a.txt", content))
    assert ".conll" in caught.value.hint


# --- CSV, TSV, Parquet --------------------------------------------------------------------------


def test_csv_of_texts(write):
    long = "y" * 200_000
    content = f'id,Text\n1,"Vega, ""the"" rocket\nflew"\n2,{long}\n'
    limit = csv.field_size_limit()
    result = read_examples(write("a.csv", content))
    assert [e.text for e in result.examples] == ['Vega, "the" rocket\nflew', long]
    assert csv.field_size_limit() == limit


def test_csv_of_tokens_continues_a_sentence_with_a_blank_id(write):
    content = "Sentence #,Word,POS,Tag\ns1,Vega,NNP,B-x\n,flew,VBD,O\ns2,Rhea,NNP,B-y\n"
    result = read_examples(write("a.csv", content))
    assert [e.gold for e in result.examples] == [(Span(0, 1, "x"),), (Span(0, 1, "y"),)]


def test_tsv_has_no_quotes(write):
    content = 'sentence_id\ttoken\ttag\n1\t"\tO\n1\tVega\tB-x\n'
    (example,) = read_examples(write("a.tsv", content)).examples
    assert example.tokens == ('"', "Vega")
    content = "sentence_id\ttoken\n1\ta\n2\tb\n"
    assert [e.gold for e in read_examples(write("b.tsv", content)).examples] == [None, None]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "a,b\n1,2\n", ":1: the header"),
        ("a.csv", "", ":1: the header"),
        ("a.csv", "text,b\n1,2\n\n3\n", ":4: 1 fields"),
        ("a.csv", 'text\nok\n"open\n', ":3: the record"),
        ("a.tsv", "token\ttag\na\tO\n", ":1: the header"),
    ],
)
def test_bad_tables_name_the_line(write, name, content, problem):
    with pytest.raises(DataError, match=problem):
        read_examples(write(name, content))


def test_parquet_rows_and_stored_tag_names(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    feature = {"feature": {"names": ["O", "B-x"], "_type": "ClassLabel"}, "_type": "Sequence"}
    stored = json.dumps({"info": {"features": {"ner_tags": feature}}})
    table = pyarrow.table(
        {"tokens": [["a", "b"], ["c"]], "ner_tags": [[0, 1], [0]], "extra": [1, 2]}
    )
    path = tmp_path / "a.parquet"
    parquet.write_table(table.replace_schema_metadata({"huggingface": stored}), path)
    assert [e.gold for e in read_examples(path).examples] == [(Span(1, 2, "x"),), ()]
    parquet.write_table(table, path)
    with pytest.raises(DataError, match="row 1"):
        read_examples(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="not Parquet"):
        read_examples(path)


def test_parquet_without_pyarrow_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PreconditionError) as caught:
        read_examples(write("a.parquet", b"PAR1"))
    assert caught.value.hint == "pip install pyarrow"

"""Every reader and the reading of servers' answers over damaged, foreign and hostile input.

No traceback, no hang, no annotation lost without a word: a file is read, or refused in words.
A tenth of the examples runs by default, 20,000 with ``-m slow``.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccrl_cli.core.alignment import mention_key, tokenize
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.pieces import split_text
from ccrl_cli.core.placing import TextPlacer, graphemes, on_tokens
from ccrl_cli.data.readers import read_examples
from ccrl_cli.errors import CcrlError
from ccrl_cli.generators.chat import completion
from ccrl_cli.generators.http import RefusedError, ServerError
from ccrl_cli.records import Completion, Example

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


def sized(few, many):
    """Return the two marks of a test: few examples by default, many in the slow part."""
    return pytest.mark.parametrize(
        "examples", [few, pytest.param(many, marks=pytest.mark.slow)], ids=["few", "many"]
    )


def run(examples, strategy, check):
    settings(max_examples=examples, deadline=None, suppress_health_check=CHECKS)(
        given(strategy)(check)
    )()


FIELDS_OF_ROWS = (
    *("text", "tokens", "ner_tags", "entities", "label", "labels", "spans", "ents", "ner"),
    *("tokenized_text", "data", "annotations", "input", "output", "answer", "words", "meta"),
)
FIELDS_OF_ANSWERS = (
    *("choices", "message", "content", "logprobs", "logprob", "token", "bytes", "usage"),
    *("finish_reason", "error", "code", "refusal", "type", "text", "reasoning"),
)

# --- readers ------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        "Mia",
        "Oslo",
        "北京",
        "부산에서",
        "กรุงเทพ",
        "é",
        "a\u0301",
        "🇩🇪",
        "👩‍🚀",
        "\u200f",
        "x",
        ".",
        "",
    ]
)
TEXTS = st.lists(WORDS, max_size=6).map(" ".join) | st.text(max_size=20)
TAGS = st.sampled_from(["O", "B-PER", "I-PER", "S-x", "PER", "b-per", "PER-B", "_", "", "NNP"])
NUMBERS = st.integers(-2, 12) | st.sampled_from([1.5, None, "3", True])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 30) | TEXTS | TAGS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "start", "end", "label", "type", "value", "result", "id"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
SPANS = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS,
        "start": NUMBERS,
        "end": NUMBERS,
        "label": st.sampled_from(["PER", "", None, ["PER"]]),
        "type": st.just("PER"),
    },
)
ROWS = st.dictionaries(
    st.sampled_from(FIELDS_OF_ROWS),
    VALUES | st.lists(SPANS, max_size=3) | st.lists(TAGS, max_size=4) | st.lists(WORDS, max_size=4),
    max_size=5,
)
LINES = st.lists(
    st.lists(WORDS | TAGS | st.integers(0, 4).map(str), max_size=5).map("\t".join)
    | st.sampled_from(["", "# text = Mia left", "-DOCSTART- O", "#", " \tO", "1-2\tdu\tO", "a\rb"])
    | TEXTS,
    max_size=8,
).map("\n".join)
FILES = (
    st.tuples(st.sampled_from(["a.jsonl", "a.json"]), st.lists(ROWS, max_size=4)).map(
        lambda pair: (
            pair[0],
            json.dumps(pair[1])
            if pair[0] == "a.json"
            else "\n".join(json.dumps(row) for row in pair[1]),
        )
    )
    | st.tuples(st.sampled_from(["a.conll", "a.txt", "a.csv", "a.tsv", "a.iob2", "a.ann"]), LINES)
).map(lambda pair: (pair[0], pair[1].encode("utf-8", "surrogatepass")))
DAMAGED = st.tuples(
    st.sampled_from(["a.jsonl", "a.txt", "a.csv", "a.parquet", "a.arrow", "a.conll.GZ", "a.json"]),
    st.binary(max_size=80) | LINES.map(lambda s: gzip.compress(s.encode("utf-8", "replace"))),
)


@sized(300, 12_000)
def test_a_file_is_read_or_refused_in_words(tmp_path, examples):
    def check(file):
        name, content = file
        place = tmp_path / name
        place.write_bytes(content)
        try:
            result = read_examples(place)
        except CcrlError as caught:
            refused = caught
            result = None
        if result is None:
            assert refused.exit_code in (2, 3)
            assert str(place.parent) in refused.message or "pyarrow" in refused.message
            return
        assert result.examples
        for example in result.examples:
            assert len(example.tokens) == len(example.offsets)
            for token, (start, end) in zip(example.tokens, example.offsets, strict=True):
                assert example.text[start:end] == token
            for span in example.gold or ():
                assert 0 <= span.start < span.end <= len(example.tokens)
                assert span.type.strip()

    run(examples, FILES | DAMAGED, check)


@sized(200, 3_000)
def test_no_annotation_is_lost_without_a_word(tmp_path, examples):
    """Ranges that can be true are read as they stand, in every form that states ranges."""

    @st.composite
    def labelled(draw):
        text = draw(TEXTS.filter(lambda t: t.strip() and "\r" not in t))
        edges = sorted({0, len(text), *draw(st.sets(st.integers(0, len(text)), max_size=4))})
        spans = [(a, b) for a, b in pairwise(edges) if text[a:b].strip() and draw(st.booleans())]
        return text, spans, draw(st.sampled_from(["entities", "label", "spans", "ents", "studio"]))

    def check(drawn):
        text, spans, form = drawn
        row = {"text": text}
        if form == "label":
            row["label"] = [[a, b, "T"] for a, b in spans]
        elif form == "studio":
            values = [{"start": a, "end": b, "labels": ["T"]} for a, b in spans]
            result = [{"type": "labels", "value": value} for value in values]
            row = {"data": {"text": text}, "annotations": [{"result": result}]}
        else:
            row[form] = [{"start": a, "end": b, "label": "T"} for a, b in spans]
        place = tmp_path / "a.jsonl"
        place.write_text(json.dumps(row) + "\n", encoding="utf-8")
        try:
            (example,) = read_examples(place).examples
        except CcrlError as caught:
            refused = caught.message
            example = None
        if example is None:
            assert "holds no sentence" in refused or "no visible text" in refused
            return
        found = [(example.offsets[s.start][0], example.offsets[s.end - 1][1]) for s in example.gold]
        assert len(found) == len(spans)
        for (a, b), (start, end) in zip(spans, found, strict=True):
            assert text[start:end].split() == text[a:b].split()

    run(examples, labelled(), check)


# --- answers ------------------------------------------------------------------------------------

ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS_OF_ANSWERS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=14,
)
CHATS = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {"message": st.dictionaries(st.sampled_from(["content", "reasoning"]), ANSWERS)},
                optional={"finish_reason": ANSWERS, "logprobs": ANSWERS},
            )
            | ANSWERS,
            max_size=2,
        )
    },
    optional={"usage": ANSWERS, "error": ANSWERS},
)


@sized(300, 5_000)
def test_any_answer_of_a_server_is_a_completion_or_an_error(examples):
    def check(content):
        try:
            found = completion(content)
        except (ServerError, RefusedError):
            return
        assert isinstance(found, Completion)
        assert isinstance(found.text, str)
        assert found.finish in ("stop", "length", "error")
        assert found.num_tokens >= 0
        assert found.mean_logprob is None or -1000 < found.mean_logprob <= 0
        parse = parse_completion(found.text, {"person": "per"}, found.finish)
        if found.finish == "error":
            assert parse.outcome == "invalid"

    run(examples, CHATS | ANSWERS, check)


# --- texts of many scripts ----------------------------------------------------------------------

SCRIPTS = (
    *("Oslo", "Київ", "Αθήνα", "ირანი", "Երևան", "القاهرة", "חיפה", "दिल्लीमें", "ঢাকা", "ਦਿੱਲੀ"),
    *("சென்னை", "తెలుగు", "ಬೆಂಗಳೂರು", "കൊച്ചി", "สิงคโปร์", "ວຽງຈັນ", "မန္တလေး", "ភ្នំពេញ", "አዲስ", "부산에서"),
    *(
        "北京",
        "とうきょう",
        "トウキョウ",
        "e\u0301",
        "👩‍🚀",
        "🇩🇪",
        "✈️",
        "\u200d",
        "\u200f",
        "\u00ad",
        "İ",
        "ß",
    ),
)
MIXED = st.lists(st.sampled_from(SCRIPTS) | st.sampled_from([" ", ".", "，", "-"]), max_size=8).map(
    "".join
)


@sized(200, 10_000)
def test_every_substring_between_graphemes_is_placed(examples):
    @st.composite
    def cut(draw):
        text = draw(MIXED.filter(mention_key))
        edges = [0, *(end for _, end in graphemes(text))]
        first = draw(st.integers(0, len(edges) - 2))
        last = draw(st.integers(first + 1, len(edges) - 1))
        return text, edges[first], edges[last], draw(st.sampled_from(["NFC", "NFD", "same"]))

    def check(drawn):
        text, start, end, form = drawn
        mention = text[start:end]
        if not mention_key(mention):
            return
        said = mention if form == "same" else unicodedata.normalize(form, mention)
        example = Example(text, *tokenize(text))
        (place,) = TextPlacer(example).place([said])
        assert place is not None
        assert mention_key(text[place.start : place.end]) == mention_key(mention)
        view, (span,) = on_tokens(example, [(start, end, "x")])
        assert mention_key(view.span_text(span)) == mention_key(mention)
        assert "".join(view.tokens) == "".join(example.tokens)
        covered = 0
        for a, b in split_text(text, 7):
            assert a <= covered < b
            covered = b
        assert covered == len(text)

    run(examples, cut(), check)

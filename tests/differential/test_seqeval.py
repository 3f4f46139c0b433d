"""Our span reading and scores against seqeval, where both are defined."""

import gzip
import itertools
import json
import os
import random
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import Aligner, bio_to_spans, spans_to_bio
from ccrl_cli.core.metrics import score_spans
from ccrl_cli.records import Alignment, Entity, Example, Span
from lazily import lazy, needs

metrics = lazy("seqeval.metrics.v1")
scheme = lazy("seqeval.scheme")
labeling = lazy("seqeval.metrics.sequence_labeling")

pytestmark = needs("seqeval")

IOB2_TAGS = st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y"]), min_size=1, max_size=10)
IOBES_TAGS = st.lists(
    st.sampled_from(["O", *(f"{p}-{t}" for p in "BIES" for t in "xy")]), min_size=1, max_size=10
)
PAIRS = st.lists(IOB2_TAGS.flatmap(lambda t: st.tuples(st.just(t), st.permutations(t))), min_size=1)


def strict(gold, predicted, average):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metrics.precision_recall_fscore_support(
            gold, predicted, average=average, scheme=scheme.IOB2, zero_division=0
        )[:3]


def ratios(score):
    # seqeval says 0 where a ratio has no denominator; so does this reading of our counts.
    found = score.true_positives + score.false_positives
    due = score.true_positives + score.false_negatives
    return (
        score.true_positives / found if found else 0.0,
        score.true_positives / due if due else 0.0,
        2 * score.true_positives / (found + due) if found + due else 0.0,
    )


@given(IOBES_TAGS)
def test_lenient_reading_equals_get_entities(tags):
    expected = [(start, end + 1, kind) for kind, start, end in labeling.get_entities(tags)]
    assert [(s.start, s.end, s.type) for s in bio_to_spans(tags)] == expected


@given(IOB2_TAGS)
def test_strict_reading_equals_scheme(tags):
    (entities,) = scheme.Entities([tags], scheme.IOB2).entities
    expected = [(entity.start, entity.end, entity.tag) for entity in entities]
    assert [(s.start, s.end, s.type) for s in bio_to_spans(tags, strict=True)] == expected


@given(PAIRS)
def test_scores_equal_seqeval_strict(pairs):
    gold, predicted = [list(pair[0]) for pair in pairs], [list(pair[1]) for pair in pairs]
    result = score_spans(
        [bio_to_spans(tags, strict=True) for tags in gold],
        [Alignment(bio_to_spans(tags, strict=True)) for tags in predicted],
        ["x", "y"],
    )
    if not result.num_gold and not result.num_predicted:
        return
    assert ratios(result.micro) == pytest.approx(strict(gold, predicted, "micro"))
    assert result.macro_f1 == pytest.approx(strict(gold, predicted, "macro")[2])


def corpora():
    folder = os.environ.get("CCRL_DATA_DIR")
    return sorted(Path(folder).glob("*/test.jsonl.gz")) if folder else []


def read_rows(path, limit=500):
    """Return the first inputs of a corpus and their tags."""
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in itertools.islice(lines, limit):
            row = json.loads(line)
            ends = list(itertools.accumulate(len(token) + 1 for token in row["tokens"]))
            offsets = tuple(
                (end - 1 - len(token), end - 1)
                for token, end in zip(row["tokens"], ends, strict=True)
            )
            gold = bio_to_spans(row["ner_tags"])
            rows.append(Example(" ".join(row["tokens"]), tuple(row["tokens"]), offsets, gold))
    return rows


@pytest.mark.skipif(not corpora(), reason="CCRL_DATA_DIR names no folder of corpora")
@pytest.mark.parametrize("path", corpora(), ids=lambda path: path.parent.name)
def test_real_corpora_score_alike_and_gold_is_recovered(path):
    rng = random.Random(0)
    corpus = read_rows(path)
    types = sorted({span.type for example in corpus for span in example.gold})
    examples, alignments = [], []
    for example in corpus:
        # A third of the gold mentions is dropped, and a third is given a random type.
        kept = [entity for entity in example.gold_entities() if rng.random() > 1 / 3]
        noisy = [Entity(e.text, rng.choice(types)) if rng.random() < 1 / 3 else e for e in kept]
        alignment = Aligner(example).align(noisy)
        if not alignment.hallucinated:
            examples.append(example)
            alignments.append(alignment)
    assert len(corpus) - len(examples) <= 1
    result = score_spans([example.gold for example in examples], alignments, types)
    gold = [spans_to_bio(example.gold, len(example.tokens)) for example in examples]
    predicted = [
        spans_to_bio(alignment.spans, len(example.tokens))
        for example, alignment in zip(examples, alignments, strict=True)
    ]
    assert ratios(result.micro) == pytest.approx(strict(gold, predicted, "micro"))
    assert result.macro_f1 == pytest.approx(strict(gold, predicted, "macro")[2])

    whole = [Aligner(example).align(example.gold_entities()) for example in corpus]
    ceiling = score_spans([example.gold for example in corpus], whole, types)
    # Not 1: a name that is gold at its second place alone is put at its first, and "Armenian"
    # is put on the tokens "Armenia n" of an earlier place.
    assert ceiling.num_hallucinated <= 1
    assert ceiling.micro.f1 > 0.985


def test_hallucinated_mentions_are_where_we_differ():
    gold = [["B-x", "O"]]
    alignment = Alignment((Span(0, 1, "x"),), (Entity("Mars", "x"),))
    ours = score_spans([bio_to_spans(gold[0])], [alignment], ["x"])
    assert strict(gold, [spans_to_bio(alignment.spans, 2)], "micro")[2] == 1
    # P = 1/2, R = 1
    assert ours.micro.f1 == pytest.approx(2 / 3)

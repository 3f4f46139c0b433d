from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import bio_to_spans
from ccrl_cli.core.metrics import score_spans
from ccrl_cli.records import Alignment, Entity, Score

TAGS = st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y", "I-y", "B-z"]), min_size=6, max_size=6)
SPANS = TAGS.map(bio_to_spans)
MENTIONS = st.lists(
    st.builds(Entity, st.sampled_from(["a", "b", "c"]), st.sampled_from(["x", "y"])), max_size=6
)
CORPUS = st.lists(st.tuples(SPANS, SPANS, MENTIONS), max_size=5)
TYPES = ["x", "y"]


def evaluate(corpus):
    gold = [row[0] for row in corpus]
    return score_spans(gold, [Alignment(row[1], tuple(row[2])) for row in corpus], TYPES)


@given(CORPUS)
def test_counts_add_up(corpus):
    result = evaluate(corpus)
    assert result.num_gold == sum(len(row[0]) for row in corpus)
    assert result.num_predicted == sum(len(row[1]) + len(row[2]) for row in corpus)
    assert sum(result.per_type.values(), Score()) == result.micro
    assert 0 <= result.macro_f1 <= 1
    assert 0 <= result.hallucinated_share <= 1
    assert result.micro.true_positives >= 0


@given(CORPUS, CORPUS)
def test_micro_counts_of_a_corpus_are_the_sum_of_its_parts(left, right):
    assert evaluate(left + right).micro == evaluate(left).micro + evaluate(right).micro


@given(CORPUS, st.randoms(use_true_random=False))
def test_order_of_inputs_does_not_matter(corpus, random):
    shuffled = list(corpus)
    random.shuffle(shuffled)
    assert evaluate(shuffled) == evaluate(corpus)


@given(CORPUS)
def test_dropping_hallucinated_mentions_never_lowers_f1(corpus):
    clean = [(gold, spans, []) for gold, spans, _ in corpus]
    assert evaluate(clean).micro.f1 >= evaluate(corpus).micro.f1


@given(st.lists(SPANS, max_size=5))
def test_gold_against_itself_is_perfect(corpus):
    result = evaluate([(spans, spans, []) for spans in corpus])
    assert (result.micro.f1, result.macro_f1, result.num_exact) == (1, 1, len(corpus))

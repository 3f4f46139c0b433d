import pytest

from ccrl_cli.core.metrics import forgetting, score_spans
from ccrl_cli.records import Alignment, Entity, Score, Span


def test_hand_worked_corpus():
    gold = [
        (Span(0, 1, "per"), Span(2, 4, "loc")),
        (Span(0, 2, "org"),),
        (),
    ]
    predicted = [
        Alignment((Span(0, 1, "per"), Span(2, 3, "loc")), (Entity("Mars", "loc"),)),
        Alignment((Span(0, 2, "loc"), Span(3, 4, "river"))),
        Alignment(()),
    ]
    result = score_spans(gold, predicted, ["per", "loc", "org", "misc"])
    # per: 1 right. loc: predicted 3 (wrong end, Mars, wrong type), gold 1, none right.
    # org: gold 1 missed. river: 1 predicted, unlisted. misc: nothing on either side.
    assert result.per_type == {
        "loc": Score(0, 3, 1),
        "misc": Score(),
        "org": Score(0, 0, 1),
        "per": Score(1, 0, 0),
        "river": Score(0, 1, 0),
    }
    assert result.micro == Score(1, 4, 2)
    # P = 1/5, R = 1/3, F1 = 2·1 / (2·1 + 4 + 2) = 1/4
    assert result.micro.f1 == pytest.approx(0.25)
    # macro over per, loc, org: (1 + 0 + 0) / 3; misc does not occur, river is not listed.
    assert result.macro_f1 == pytest.approx(1 / 3)
    assert (result.num_gold, result.num_predicted, result.num_sentences) == (3, 5, 3)
    assert (result.num_hallucinated, result.num_unknown_type, result.num_exact) == (1, 1, 1)
    assert result.hallucinated_share == pytest.approx(1 / 5)


def test_hallucinated_mentions_lower_precision():
    gold = [(Span(0, 1, "per"),)]
    right = Alignment((Span(0, 1, "per"),))
    padded = Alignment(right.spans, (Entity("Mars", "loc"), Entity("Venus", "loc")))
    assert score_spans(gold, [right], ["per", "loc"]).micro.f1 == 1
    result = score_spans(gold, [padded], ["per", "loc"])
    assert result.micro == Score(1, 2, 0)
    assert result.num_exact == 0
    # per 1, loc 0: hallucinated mentions bring their type into the macro mean.
    assert result.macro_f1 == pytest.approx(0.5)


def test_hallucinated_unknown_type_counts_once_under_its_name():
    result = score_spans([()], [Alignment((), (Entity("x", "zzz"),))], ["per"])
    assert result.per_type == {"per": Score(), "zzz": Score(0, 1, 0)}
    assert (result.num_unknown_type, result.num_hallucinated) == (1, 1)
    assert result.macro_f1 == 1


def test_gold_type_outside_the_label_set_is_missed_in_micro_alone():
    result = score_spans([(Span(0, 1, "zzz"),)], [Alignment(())], ["per"])
    assert result.micro == Score(0, 0, 1)
    assert result.macro_f1 == 1


def test_nothing_against_nothing_is_perfect():
    for gold, predicted in ([], []), ([()], [Alignment(())]):
        result = score_spans(gold, predicted, ["per"])
        assert (result.micro.f1, result.macro_f1, result.hallucinated_share) == (1, 1, 0)


def test_predicted_duplicates_are_false_positives():
    span = Span(0, 1, "per")
    assert score_spans([(span,)], [Alignment((span, span))], ["per"]).micro == Score(1, 1, 0)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 gold inputs but 1 predictions"):
        score_spans([(), ()], [Alignment(())], ["per"])


def test_forgetting_is_positive_when_source_f1_falls():
    assert forgetting(0.9, 0.85) == pytest.approx(0.05)
    assert forgetting(0.8, 0.9) == pytest.approx(-0.1)

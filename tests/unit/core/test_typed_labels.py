"""Labels whose types are given by type scores, worked by hand."""

from __future__ import annotations

import math

import pytest

from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.type_evidence import SpanScore, favour_untaught, mean_scores, type_posterior
from ccrl_cli.core.typed_labels import entity_confidence, in_text
from ccrl_cli.records import Entity, Example, PseudoLabel

TYPES = ("person", "politician", "city")


def score(text: str, *shares: float) -> SpanScore:
    return SpanScore(text, tuple(map(math.log, shares)))


def test_untaught_types_gain_odds():
    # Taught person 0.6, untaught politician 0.3 and city 0.1; ln 4 for the untaught ones:
    # 0.6 : 1.2 : 0.4, of 2.2.
    logprobs = [score("Ada", 0.6, 0.3, 0.1).logprobs]
    prior = favour_untaught([0.0, 0.0, 0.0], TYPES, {"person", "river"}, math.log(4))
    assert type_posterior(logprobs, prior)[0].tolist() == pytest.approx(
        [0.6 / 2.2, 1.2 / 2.2, 0.4 / 2.2]
    )


def test_ways_to_ask_are_averaged_in_nats():
    # sqrt(0.5 x 0.2) : sqrt(0.25 x 0.4) : sqrt(0.25 x 0.4) are equal: two ways that disagree.
    (mean,) = mean_scores([[score("Ada", 0.5, 0.25, 0.25)], [score("Ada", 0.2, 0.4, 0.4)]])
    assert mean.text == "Ada"
    assert type_posterior([mean.logprobs], [0.0] * 3)[0].tolist() == pytest.approx([1 / 3] * 3)
    one = score("Ada", 0.5, 0.25, 0.25)
    assert mean_scores([[one]]) == (one,)
    with pytest.raises(ValueError, match="shorter"):
        mean_scores([[one], []])


@pytest.mark.parametrize("taught", [(), TYPES])
def test_where_all_types_are_alike_nothing_changes(taught):
    logprobs = [score("Ada", 0.6, 0.3, 0.1).logprobs]
    prior = favour_untaught([0.5, -0.25, -0.25], TYPES, taught, 2.0)
    assert type_posterior(logprobs, prior) == pytest.approx(
        type_posterior(logprobs, [0.5, -0.25, -0.25])
    )


def test_the_favour_needs_one_prior_a_type():
    with pytest.raises(ValueError, match="do not pair up"):
        favour_untaught([0.0, 0.0], TYPES, (), 1.0)


def label_of(*entities: Entity, votes: tuple[tuple[Entity, float], ...]) -> PseudoLabel:
    return PseudoLabel("x", entities, 1.0, "entity_vote", "entity_vote", 4, votes=votes)


def test_without_type_scores_an_entity_is_as_sure_as_its_votes():
    ada, rome = Entity("Ada", "person"), Entity("New  Rome", "city")
    label = label_of(ada, rome, votes=((ada, 0.75), (Entity("New Rome", "city"), 0.5)))
    assert entity_confidence(label, {}) == (0.75, 0.5)
    assert entity_confidence(label, {("Ada", "person"): 0.5}) == (0.375, 0.5)


def test_mentions_without_a_place_leave_a_label():
    text = "Ada saw Rome"
    ada, mars = Entity("Ada", "person"), Entity("Mars", "city")
    label = label_of(ada, ada, mars, votes=())
    aligner = Aligner(Example(text, *tokenize(text)))
    assert in_text(label, aligner).entities == (ada,)

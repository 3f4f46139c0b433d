"""What a profile asks about types, and the prior that it takes off the answers."""

from __future__ import annotations

import math

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.type_evidence import SpanScore, matched_prior
from ccrl_cli.core.type_prototypes import ScoreMap, fit_prototypes
from ccrl_cli.errors import DataError, PreconditionError
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.labelling.type_evidence import (
    score_identity,
    taught_types,
    type_prompts,
    weigh_scores,
)
from ccrl_cli.store.type_scores import TypeScores

SOURCE = '{"tokens": ["Ada"], "ner_tags": ["B-PER"]}\n{"tokens": ["Bonn"], "ner_tags": ["B-LOC"]}\n'
TARGET = '{"tokens": ["Ada", "Bonn"], "ner_tags": ["B-politician", "B-location"]}\n'
TYPES = ("location", "politician")


@pytest.fixture
def made(tmp_path):
    """A function from settings to a profile and its target domain."""
    for name, text in (("source", SOURCE), ("target", TARGET)):
        (tmp_path / f"{name}.jsonl").write_text(text, "utf-8")

    def profile_with(*values):
        given = [
            f"data.source.path={tmp_path / 'source.jsonl'}",
            f"data.target.path={tmp_path / 'target.jsonl'}",
            "data.source.name=",
            "data.target.name=",
            "data.type_names.LOC=location",
            "confidence.type_prior=content_free",
            "confidence.type_questions=1",
            "confidence.unseen_type_bonus=0",
            "confidence.type_prototypes=false",
            *values,
        ]
        profile = load_profile("quickstart", given).profile
        return profile, load_domain(profile, "target")

    return profile_with


def scores(*shares):
    spans = (SpanScore("Ada", tuple(map(math.log, shares))),)
    return {"a": TypeScores("a", "m", {}, TYPES, (0.25, -0.25), spans)}


def test_types_of_the_source_are_known_by_the_names_that_prompts_show(made):
    profile, domain = made()
    assert domain.labels == TYPES
    assert taught_types(profile, domain) == {"location"}


def test_the_bonus_turns_a_type_that_the_source_swallows(made):
    profile, domain = made("confidence.unseen_type_bonus=1")
    plain, plain_domain = made()
    swallowed = scores(0.6, 0.4)  # ln 1.5 against the untaught type, and 0.5 more by the blank
    assert weigh_scores(plain, plain_domain, swallowed).chosen_types() == {
        "a": {"Ada": "politician"}
    }
    taken = weigh_scores(profile, domain, swallowed).prior.offsets.tolist()
    assert taken == pytest.approx([-0.25, 1.25])
    matching = ("confidence.type_prior=matching", "confidence.prior_matching=0")
    for bonus, chosen in ((0, "location"), (1, "politician")):
        profile, domain = made(*matching, f"confidence.unseen_type_bonus={bonus}")
        evidence = weigh_scores(profile, domain, swallowed)
        assert evidence.prior.offsets.tolist() == [0.0, float(bonus)]
        assert evidence.chosen_types() == {"a": {"Ada": chosen}}


def test_a_prior_that_was_fitted_before_is_taken_as_it_is(made):
    profile, domain = made("confidence.unseen_type_bonus=1")
    fitted = ScoreMap.of_prior([0.5, 0.0])
    assert weigh_scores(profile, domain, scores(0.6, 0.4), fitted).prior is fitted
    assert weigh_scores(profile, domain, {}).prior.offsets.tolist() == [0.0, 1.0]
    blank = weigh_scores(profile, domain, scores(0.6, 0.4), "content_free").prior
    assert blank.offsets.tolist() == [-0.25, 1.25]


def test_prototypes_are_fitted_where_the_profile_asks_for_them(made):
    profile, domain = made("confidence.type_prototypes=true", "confidence.type_prior=matching")
    spans = [SpanScore(str(n), (-0.1 * n, -2.0 + 0.1 * n)) for n in range(20)]
    many = {"a": TypeScores("a", "m", {}, TYPES, (0.0, 0.0), tuple(spans))}
    table = [span.logprobs for span in spans]
    expected = fit_prototypes(table, matched_prior(table, 0.75))
    assert weigh_scores(profile, domain, many).prior(table) == pytest.approx(expected(table))


def test_a_source_that_is_not_there_is_named_with_what_to_do(made, tmp_path):
    profile, domain = made("confidence.unseen_type_bonus=1")
    (tmp_path / "source.jsonl").unlink()
    with pytest.raises(PreconditionError, match="which types are new") as caught:
        weigh_scores(profile, domain, scores(0.6, 0.4))
    assert "data.source.labels" in caught.value.hint
    listed, _ = made("confidence.unseen_type_bonus=1", 'data.source.labels=["location"]')
    assert taught_types(listed, domain) == {"location"}


def test_each_further_question_has_another_order_and_the_next_names(made):
    names = 'confidence.type_paraphrases.politician=["statesman"]'
    profile, domain = made("confidence.type_questions=3", names)
    first, second, third = type_prompts(profile, domain)
    assert [p.names.name("politician") for p in (first, second, third)] == [
        "politician",
        "statesman",
        "politician",
    ]
    assert first.order == TYPES
    assert all(p.types == TYPES and sorted(p.order) == sorted(TYPES) for p in (second, third))


def test_scores_of_other_questions_are_not_taken_for_these(made):
    found = [
        score_identity(*made(*values))
        for values in (
            (),
            ("confidence.type_questions=2",),
            ("confidence.type_questions=2", 'confidence.type_paraphrases.politician=["mp"]'),
            ('confidence.type_paraphrases.politician=["mp"]',),  # one question: not read
        )
    ]
    assert len({str(identity) for identity in found}) == 3
    assert found[0] == found[3]


def test_a_paraphrase_that_another_type_has_is_refused(made):
    profile, domain = made(
        "confidence.type_questions=2", 'confidence.type_paraphrases.politician=["Location"]'
    )
    with pytest.raises(DataError, match="share the prompt name"):
        type_prompts(profile, domain)

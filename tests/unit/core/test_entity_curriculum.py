"""A curriculum of entities: what opens when, the target, and what an answer earns for it."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.curriculum import Schedule
from ccrl_cli.core.entity_curriculum import EntityCurriculum, ScoredLabel
from ccrl_cli.core.pacing import Pacing
from ccrl_cli.core.rewards import RewardWeights, score
from ccrl_cli.records import Entity, Example, Parse, PseudoLabel

TEXT = "Ada met Bo in Rome and Cy in Oslo ."
ADA, BO, CY = (Entity(name, "person") for name in ("Ada", "Bo", "Cy"))
ROME, OSLO = (Entity(name, "city") for name in ("Rome", "Oslo"))


def scored(entities, scores, *, abstained=(), confidence=0.5, text=TEXT):
    label = PseudoLabel("x", entities, confidence, "m", "entity_vote", 8, 0, abstained)
    return ScoredLabel(Aligner(Example(text, *tokenize(text))), label, scores)


LABELS = {
    "one": scored((ADA, ROME), (0.9, 0.2)),
    "two": scored((BO, CY, OSLO), (0.5, 0.7, 0.8)),
    "none": scored((), (), confidence=0.6),
    "empty": scored((), (), confidence=0.4),
}
# Persons by score: Ada .9, Cy .7, Bo .5. Cities: Oslo .8, Rome .2. Empty labels: .6, .4.


def curriculum(order="confidence", shares=(0.3, 0.6, 1.0), labels=LABELS, rng=None):
    units = sum(len(item.units) for item in labels.values())
    schedule = Schedule(units, 3, 2, Pacing("step", shares=shares))
    return EntityCurriculum(labels, schedule, order, rng)


def opened(found, step):
    return {key: found.is_open(key, step) for key in LABELS}


def test_the_surest_of_every_type_open_first():
    found = curriculum()
    # 30 %: one of three persons, one of two cities, one of two empty labels (rounded up).
    assert opened(found, 0) == {
        "one": (True, False), "two": (False, False, True), "none": (True,), "empty": (False,),
    }  # fmt: skip
    # 60 %: two persons (1.8), two cities (1.2), two empty labels (1.2).
    assert opened(found, 1) == {
        "one": (True, True), "two": (False, True, True), "none": (True,), "empty": (True,),
    }  # fmt: skip
    assert all(all(value) for value in opened(found, 2).values())
    assert [found.num_open(step) for step in range(3)] == [3, 6, 7]


def test_the_least_sure_open_first_in_the_control():
    found = opened(curriculum("anti"), 0)
    assert found["two"] == (True, False, False)  # Bo
    assert found["one"] == (False, True)  # Rome
    assert (found["none"], found["empty"]) == ((False,), (True,))


def test_random_order_opens_as_many_of_each_type():
    seen = set()
    for seed in range(20):
        found = curriculum("random", rng=np.random.default_rng(seed))
        assert found.num_open(0) == 3
        shown = opened(found, 0)
        persons = [shown["one"][0], *shown["two"][:2]]
        assert sum(persons) == 1
        seen.add(tuple(persons))
        again = curriculum("random", rng=np.random.default_rng(seed))
        assert opened(again, 0) == shown
    assert len(seen) == 3
    with pytest.raises(ValueError, match="needs a generator"):
        curriculum("random")
    with pytest.raises(ValueError, match="not one of confidence"):
        curriculum("best")


def earned(target, *entities, overlap="entity_f1"):
    parts = score(Parse("valid", entities), target, RewardWeights(overlap=overlap))
    return parts["overlap"], parts["format"]


@pytest.mark.parametrize("overlap", ["entity_f1", "token_f1", "exact"])
def test_closed_mentions_abstain_and_sure_negatives_count(overlap):
    target = curriculum().target("two", 0)  # Oslo is open, Bo and Cy are closed
    assert earned(target, OSLO, overlap=overlap) == (1, 1)
    assert earned(target, OSLO, BO, CY, overlap=overlap) == (1, 1)
    # A closed mention abstains under every type: its type is what is unsure.
    assert earned(target, OSLO, Entity("Bo", "city"), overlap=overlap) == (1, 1)
    assert earned(target, OSLO, ADA, overlap=overlap)[0] < 1, "nobody voted for Ada"
    assert earned(target, BO, CY, overlap=overlap)[0] == 0


def test_silence_about_closed_mentions_is_not_the_best_answer():
    label = {"one": scored((ADA, BO), (0.2, 0.1)), "two": scored((CY,), (0.9,))}
    found = curriculum(labels=label)
    target = found.target("one", 0)
    assert target.size == 0
    assert sum(earned(target, ADA, BO)) > sum(earned(target))
    assert earned(target) == (1, 0), "an empty list is not well-formed: the label holds mentions"
    assert earned(target, CY)[0] == 0


def test_with_everything_open_the_target_is_the_label():
    last = curriculum().target("two", 2)
    assert (last.size, last.closed) == (3, frozenset())
    assert earned(last, BO, CY, OSLO) == (1, 1)
    assert earned(last) == (0, 0)


def test_an_empty_label_says_nothing_before_it_is_open():
    found = curriculum()
    assert [found.weight("empty", step) for step in range(3)] == [0, 1, 1]
    assert [found.weight(key, 0) for key in ("one", "two", "none")] == [1, 1, 1]
    assert earned(found.target("none", 0)) == (1, 1)
    assert earned(found.target("none", 0), ADA)[0] == 0


def test_a_name_that_is_open_once_is_not_closed_elsewhere():
    text = "Ada and Ada ."
    label = {"one": scored((ADA, Entity("Ada", "city")), (0.9, 0.1), text=text),
             "two": scored((ROME,), (0.5,))}  # fmt: skip
    target = curriculum(labels=label).target("one", 0)
    assert target.closed == frozenset()
    assert target.size == 1

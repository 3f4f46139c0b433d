"""Decoding as labels are made: votes, types by evidence, and what answers depend on.

Answers and type scores are read from the files that an interrupted evaluation leaves behind, so
nothing is asked of a model here.
"""

from __future__ import annotations

import math

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.type_evidence import SpanScore
from ccrl_cli.errors import UsageError
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.evaluation.answerer import Answerer
from ccrl_cli.pipelines.evaluation.answering import View, Way
from ccrl_cli.pipelines.evaluation.decoding import Task, WorkFiles, decode_sentences
from ccrl_cli.pipelines.generation.type_scores import ScoreFile
from ccrl_cli.records import Completion, Entity, Record
from ccrl_cli.reporting import NullReporter
from ccrl_cli.store.atomic import write_json_lines
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.type_scores import TypeScores

WEIGHTS = Weights("nowhere", None, "r", None)


@pytest.fixture(scope="module")
def view():
    return View.load(load_profile("quickstart").profile, "target")


@pytest.fixture(scope="module")
def example(view):
    """A sentence with two entities that are each named once."""
    return next(
        e for e in view.split.examples
        if len({m.text for m in e.gold_entities()}) == len(e.gold_entities()) == 2
    )  # fmt: skip


class Desk:
    """Decodes one sentence whose answers, and type scores, are on disk already."""

    def __init__(self, folder, view, example):
        self.view, self.example = view, example
        self.work = WorkFiles(folder / "samples.jsonl", folder / "types.jsonl", "digest")
        self.first, self.second = (m.text for m in example.gold_entities())

    def mention(self, text, kind):
        return f'{{"text": "{text}", "type": "{self.view.domain.names.name(kind)}"}}'

    def answers(self, *texts):
        profile = load_profile("quickstart").profile
        samples = tuple(Completion(text, -0.1, 5, "stop") for text in texts)
        identity = {"evaluation": "digest"}
        with CompletionStore(self.work.answers) as store:
            store.append(
                Record(self.example.id, self.example.text, profile.model.name, samples, identity)
            )

    def scores(self, favourites):
        """Say that spans are of a type, with odds of e squared to one against each other."""
        profile, domain = load_profile("quickstart").profile, self.view.domain
        place = ScoreFile.of(profile, domain, WEIGHTS, self.work.types)
        spans = tuple(
            SpanScore(text, tuple(2.0 * (kind == name) for name in domain.labels))
            for text, kind in favourites.items()
        )
        record = TypeScores(self.example.id, place.model, place.identity, domain.labels,
                            (0.0,) * len(domain.labels), spans)  # fmt: skip
        write_json_lines(self.work.types, [record.to_json()])

    def decode(self, means, *values, weights=WEIGHTS, greedy=None):
        profile = load_profile("quickstart", values).profile
        task = Task(profile, self.view.domain, {self.example.id: self.example}, means,
                    Answerer(profile, weights), self.work)  # fmt: skip
        return decode_sentences(task, NullReporter(), greedy)[self.example.id]


@pytest.fixture
def desk(tmp_path, view, example):
    return Desk(tmp_path, view, example)


def test_entities_with_half_of_the_votes_are_the_answer(desk):
    a, b = desk.mention(desk.first, "rocket"), desk.mention(desk.second, "scientist")
    desk.answers(f"[{a}]", f"[{a}, {b}]", f"[{a}]", "[]")
    found = desk.decode("majority")
    assert (found.outcome, found.entities) == ("valid", (Entity(desk.first, "rocket"),))
    assert found.confidences == (0.75,)  # no type evidence: votes alone


def test_a_whole_answer_wins_by_majority(desk):
    a, b = desk.mention(desk.first, "rocket"), desk.mention(desk.second, "scientist")
    desk.answers(f"[{a}, {b}]", f"[{a}, {b}]", f"[{b}]", "no")
    found = desk.decode("majority", "confidence.label=majority")
    assert found.entities == (Entity(desk.first, "rocket"), Entity(desk.second, "scientist"))


def test_unreadable_samples_vote_for_nothing_and_count(desk):
    desk.answers(f"[{desk.mention(desk.first, 'rocket')}]", "no", "no", "no")
    found = desk.decode("majority")
    assert (found.outcome, found.entities) == ("valid", ())


@pytest.mark.parametrize("means", ["majority", "vote"])
def test_where_nothing_can_be_read_there_is_no_answer(desk, means):
    desk.answers("no", "neither", "no", "no")
    desk.scores({})
    found = desk.decode(means)
    assert (found.outcome, found.entities, found.text) == ("invalid", (), "no")


def test_votes_are_for_spans_and_evidence_says_the_types(desk):
    """Three answers write three types for one span: no type has half of the votes."""
    said = [desk.mention(desk.first, kind) for kind in ("rocket", "scientist", "mission")]
    desk.answers(*(f"[{text}]" for text in said), "[]")
    desk.scores({desk.first: "spacecraft"})
    assert desk.decode("majority").entities == ()
    found = desk.decode("vote")
    assert found.entities == (Entity(desk.first, "spacecraft"),)
    others = len(desk.view.domain.labels) - 1
    posterior = math.exp(2) / (math.exp(2) + others)
    assert found.confidences == pytest.approx((0.75 * posterior,))  # votes times posterior


def test_typed_keeps_the_spans_of_the_greedy_answer(desk):
    text = f"[{desk.mention(desk.first, 'rocket')}, {desk.mention(desk.second, 'rocket')}]"
    desk.scores({desk.first: "mission", desk.second: "scientist"})
    found = desk.decode("typed", greedy={desk.example.id: Completion(text, -0.3, 9, "stop")})
    assert found.entities == (Entity(desk.first, "mission"), Entity(desk.second, "scientist"))
    assert (found.text, found.finish) == (text, "stop")


def test_a_type_outside_the_list_never_comes_out_of_evidence(desk):
    desk.answers(*[f'[{{"text": "{desk.first}", "type": "spoon"}}]'] * 4)
    desk.scores({desk.first: "mission"})
    assert desk.decode("vote").entities == (Entity(desk.first, "mission"),)
    assert desk.decode("majority").entities == ()


def test_a_server_decodes_by_votes_alone_and_not_typed(desk):
    desk.answers(*[f"[{desk.mention(desk.first, 'rocket')}]"] * 4)
    assert desk.decode("vote", weights=None).entities == (Entity(desk.first, "rocket"),)
    greedy = {desk.example.id: Completion("[]", None, 1, "stop")}
    with pytest.raises(UsageError, match="log-probabilities"):
        desk.decode("typed", weights=None, greedy=greedy)


def test_samples_are_not_held_to_types_by_a_backend_that_cannot(desk):
    with pytest.raises(UsageError, match="cannot hold answers"):
        desk.decode("vote", "generation.constrained=true", "evaluation.backend=unsloth")


def digest(view, way, *values):
    return view.digest(load_profile("quickstart", values).profile, way)


def test_an_answer_depends_on_how_it_was_drawn_and_read(view):
    ways = {means: Way("before", WEIGHTS, means) for means in ("greedy", "typed", "vote")}
    known = {means: digest(view, way) for means, way in ways.items()}
    assert len(set(known.values())) == 3
    drawn = ("generation.temperature=0.5", "run.seed=1", "generation.num_completions=8")
    for value in drawn:
        # A greedy answer is the same for every seed and temperature, so arms may share it.
        assert digest(view, ways["greedy"], value) == known["greedy"], value
        assert digest(view, ways["typed"], value) == known["typed"], value
        assert digest(view, ways["vote"], value) != known["vote"], value
    read = ("confidence.type_prior=matching", "confidence.positive=0.75")
    for value in read:
        assert digest(view, ways["greedy"], value) == known["greedy"], value
        assert digest(view, ways["typed"], value) != known["typed"], value
        assert digest(view, ways["vote"], value) != known["vote"], value
    other = Way("before", Weights("nowhere", None, "s", None), "vote")
    assert digest(view, other) != known["vote"]


def test_samples_are_shared_by_ways_of_reading_them(view):
    profile = load_profile("quickstart").profile
    vote, majority = (Way("before", WEIGHTS, means) for means in ("vote", "majority"))
    assert view.drawn_digest(profile, vote) == view.drawn_digest(profile, majority)
    assert view.digest(profile, vote) != view.digest(profile, majority)
    reread = load_profile("quickstart", ["confidence.positive=0.75"]).profile
    assert view.drawn_digest(reread, vote) == view.drawn_digest(profile, vote)

import json
import time

import pytest

from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.records import Entity, Parse

TYPES = {"person": "per", "political party": "politicalparty", "location": "loc"}
ANN = '{"text": "Ann", "type": "person"}'
BONN = '{"text": "Bonn", "type": "location"}'
ANN_ENTITY = Entity("Ann", "per")
BONN_ENTITY = Entity("Bonn", "loc")


def parse(text):
    return parse_completion(text, TYPES)


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        ("[]", ()),
        ("\ufeff[]", ()),
        (" [ ] \n", ()),
        (f"[{ANN}]", (ANN_ENTITY,)),
        (f"[{ANN}, {BONN}, {ANN}]", (ANN_ENTITY, BONN_ENTITY, ANN_ENTITY)),
        ('[{"type": "location", "text": "Bonn"}]', (BONN_ENTITY,)),
        ('[{"text": "a [b] {c} \\"d\\"", "type": "loc"}]', (Entity('a [b] {c} "d"', "loc"),)),
        ('[{"text": "Z\\u00fcrich", "type": "location"}]', (Entity("Zürich", "loc"),)),
        ('[{"text": "\\ud83d\\ude00", "type": "location"}]', (Entity("😀", "loc"),)),
    ],
)
def test_valid(text, entities):
    assert parse(text) == Parse("valid", entities)


@pytest.mark.parametrize(
    "name", ["political party", "Political Party", " political\t party ", "politicalparty"]
)
def test_type_names_fold_case_and_whitespace_and_identifiers_are_accepted(name):
    answer = parse(json.dumps([{"text": "Greens", "type": name}]))
    assert answer == Parse("valid", (Entity("Greens", "politicalparty"),))


def test_prompt_name_goes_before_identifier():
    types = {"place": "location", "location": "geo"}
    answer = parse_completion('[{"text": "Bonn", "type": "location"}]', types)
    assert answer.entities == (Entity("Bonn", "geo"),)


def test_exact_spelling_goes_before_folded_spelling():
    types = {"Other": "a", "other": "b"}
    text = '[{"text": "x", "type": "other"}, {"text": "x", "type": "Other"}]'
    assert [entity.type for entity in parse_completion(text, types).entities] == ["b", "a"]


def test_unknown_type_is_kept_counted_and_repaired():
    answer = parse(f'[{ANN}, {{"text": "Rhine", "type": "River "}}]')
    assert answer == Parse("repaired", (ANN_ENTITY, Entity("Rhine", "River ")), 1, "unknown type")


@pytest.mark.parametrize(
    ("text", "entities", "reason"),
    [
        (f"```json\n[{ANN}]\n```", (ANN_ENTITY,), "code fence"),
        (f"Here:\n```\n[{ANN}]\n```\nDone.", (ANN_ENTITY,), "code fence"),
        (f'```\n[{ANN}, {{"text": "Bo\n```', (ANN_ENTITY,), "cut tail"),
        ("```json\n[]", (), "code fence"),
        (f"Answer [1]: [{ANN}] as asked.", (ANN_ENTITY,), "text around the list"),
        (f"`x` ``` y ``` [{ANN}]", (ANN_ENTITY,), "text around the list"),
        (f"[{ANN}]\n[{ANN}]\n[{ANN}", (ANN_ENTITY,), "repeated list"),
        ("[]\n[]", (), "repeated list"),
        ('"[]"', (), "JSON inside a JSON string"),
        (json.dumps(f"[{ANN}]"), (ANN_ENTITY,), "JSON inside a JSON string"),
        (f"[[{ANN}]]", (ANN_ENTITY,), "other shape"),
        ('[["Ann", "person"], ["Bonn", "loc"]]', (ANN_ENTITY, BONN_ENTITY), "other shape"),
        ('[["person", "Ann"]]', (ANN_ENTITY,), "other shape"),
        (
            '{"person": ["Ann"], "location": ["Bonn"], "politicalparty": []}',
            (ANN_ENTITY, BONN_ENTITY),
            "object instead of a list",
        ),
        ('{"person": [], "location": []}', (), "object instead of a list"),
        ('{"Ann": "person"}', (ANN_ENTITY,), "object instead of a list"),
        (
            f'{{"notes": ["a"], "answer": {{"entities": [{ANN}]}}}}',
            (ANN_ENTITY,),
            "object instead of a list",
        ),
        (f"[{ANN},]", (ANN_ENTITY,), "loose syntax"),
        ('[{"text": "Ann", "type": "person",}]', (ANN_ENTITY,), "loose syntax"),
        ("[{'text': 'Ann', 'type': 'person'}]", (ANN_ENTITY,), "loose syntax"),
        ('[{"text": "New\nYork", "type": "loc"}]', (Entity("New\nYork", "loc"),), "loose syntax"),
        (f"[{ANN}, ", (ANN_ENTITY,), "cut tail"),
        (f"[{ANN}", (ANN_ENTITY,), "cut tail"),
        (f'[{ANN}, {{"text": "Bo', (ANN_ENTITY,), "cut tail"),
        (f'[{ANN}, {{"text": "Bo\\', (ANN_ENTITY,), "cut tail"),
        (f'[{ANN}, {{"text": "Bonn", "type": "loc"', (ANN_ENTITY,), "cut tail"),
        (f'[{ANN}, {{"text": "Bonn", "span": [1, ', (ANN_ENTITY,), "cut tail"),
        (ANN, (ANN_ENTITY,), "object instead of a list"),
        (f"So: {ANN}.", (ANN_ENTITY,), "object instead of a list"),
        (f'{{"entities": [{ANN}]}}', (ANN_ENTITY,), "object instead of a list"),
        ('{"entities": []}', (), "object instead of a list"),
        ('[{"text": "Ann", "type": "per", "id": 1}]', (ANN_ENTITY,), "extra or duplicate keys"),
        (
            '[{"text": "X", "type": "per", "text": "Ann"}]',
            (ANN_ENTITY,),
            "extra or duplicate keys",
        ),
        (f'[{ANN}, {{"text": "", "type": "per"}}]', (ANN_ENTITY,), "blank text or type"),
        (f'[{ANN}, {{"text": "Bo", "type": " "}}]', (ANN_ENTITY,), "blank text or type"),
        (f'[{ANN}, {{"text": 5, "type": "per"}}]', (ANN_ENTITY,), "mention without text or type"),
        (f'[{ANN}, {{"text": "Bo"}}]', (ANN_ENTITY,), "mention without text or type"),
        (
            f'[{ANN}, {{"text": {ANN}, "type": "per"}}]',
            (ANN_ENTITY,),
            "mention without text or type",
        ),
        (f"[{ANN}, [{BONN}], null]", (ANN_ENTITY,), "element is not an object"),
        ('[{"text": "Ann", "type": "per", "p": NaN}]', (ANN_ENTITY,), "loose syntax"),
        (f"[{ANN}, {'9' * 50_000}]", (ANN_ENTITY,), "element is not an object"),
        (f"[{ANN}, 1e999999]", (ANN_ENTITY,), "element is not an object"),
        ('[{"text": "\\ud800", "type": "loc"}]', (Entity("\ufffd", "loc"),), "lone surrogate"),
        ('[{"text": "\udfff", "type": "loc"}]', (Entity("\ufffd", "loc"),), "lone surrogate"),
    ],
)
def test_repaired(text, entities, reason):
    assert parse(text) == Parse("repaired", entities, 0, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no list"),
        ("There are no entities.", "no list"),
        ("null", "no list"),
        ("NaN", "no list"),
        ('"x"', "no list"),
        ("None: []", "an empty list inside prose"),
        ("[] Nothing fits.", "an empty list inside prose"),
        ("If nothing fits, answer []. Let me re", "an empty list inside prose"),
        ('{"notes": []}', "no element is a mention"),
        ('{"error": {"details": []}}', "no element is a mention"),
        ('[["Ann", "Bonn"]]', "no element is a mention"),
        ('[["person", "location"]]', "no element is a mention"),
        ("<think>\nIf I find nothing I answer []. Let me", "reasoning without an answer"),
        ("[THINK] maybe [] [", "reasoning without an answer"),
        ("analysisIf none, answer []. Let me check", "reasoning without an answer"),
        ("<|channel|>analysis<|message|>[]", "reasoning without an answer"),
        ("[", "no list"),
        ("[{", "cut list"),
        ('[{"text": "An', "cut list"),
        ('{"text": "An', "cut object"),
        ("[5, 6", "no list"),
        ("{}", "no element is a mention"),
        ("[5]", "no element is a mention"),
        ('[{"text": "", "type": "per"}]', "no element is a mention"),
        ('{"entities": "none"}', "no element is a mention"),
        (f"[{ANN}]\n[{BONN}]", "more than one list"),
        (f"[{ANN}] []", "more than one list"),
        (f"```\n[{ANN}]\n```\n```\n[{BONN}]\n```", "more than one list"),
        (f"{ANN}\n{BONN}", "more than one object"),
        (f"[{ANN} {BONN}]", "malformed list"),
        ('[{"text": "An" "type": "per"}]', "malformed list"),
        ("[{'text': 'O'Hara', 'type': 'per'}]", "malformed list"),
        ("[{text: Ann}]", "malformed list"),
        ('x [{"text": "\\q", "type": "per"}]', "malformed list"),
    ],
)
def test_invalid(text, reason):
    assert parse(text) == Parse("invalid", reason=reason)


DRAFT = '[{"text": "Bo", "type": "person"}]'


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\nMaybe {DRAFT}.\n</think>\n\n[{ANN}]",
        f"Maybe {DRAFT}.</think>[{ANN}]",  # the template opened it in the prompt
        f"[THINK]Maybe {DRAFT}[/THINK][{ANN}]",
        f"◁think▷{DRAFT}◁/think▷[{ANN}]",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant"
        f"<|channel|>final<|message|>[{ANN}]<|return|>",
        f"analysisMaybe {DRAFT}.assistantfinal[{ANN}]",
        f"[{ANN}]<|im_end|>\n",
        f"\ufeff[{ANN}]",
        f"<answer>[{ANN}]</answer>",
    ],
)
def test_the_answer_is_what_follows_the_reasoning(text):
    assert parse(text) == Parse("valid", (ANN_ENTITY,))


def test_marks_inside_a_mention_are_text():
    text = '[{"text": "<think> and </think>", "type": "person"}]'
    assert parse(text).entities == (Entity("<think> and </think>", "per"),)


@pytest.mark.parametrize(
    ("text", "finish", "outcome"),
    [
        ("[]", "length", "invalid"),
        ("[]", "error", "invalid"),
        (f"[{ANN}]", "error", "invalid"),
        (f"[{ANN}]", "length", "valid"),
        (f'[{ANN}, {{"text": "Bo', "length", "repaired"),
        (f"Maybe [{ANN}], but let me", "length", "invalid"),
        (f"Maybe [{ANN}], as asked.", "stop", "repaired"),
        (f"[{ANN}]\nThat is bec", "length", "repaired"),
    ],
)
def test_the_finish_decides_what_an_answer_is(text, finish, outcome):
    assert parse_completion(text, TYPES, finish).outcome == outcome


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("political_party", "political party"),
        ("POLITICAL-PARTY", "political party"),
        ("work/art", "work art"),
        ("İl", "il"),
        ("ΠΟΛΗ", "πόλη"),
    ],
)
def test_type_names_fold_joints_and_capitals_of_other_languages(name, listed):
    answer = parse_completion(json.dumps([{"text": "x", "type": name}]), {listed: "t"})
    assert answer == Parse("valid", (Entity("x", "t"),))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{" * 100_000,
        "[{" * 50_000,
        "[ " * 50_000,
        "[]" * 50_000,
        "[" * 50_000 + "]" * 50_000,
        '[{"a":' * 20_000,
        '{"a":' * 20_000 + "1" + "}" * 20_000,
        '"' * 100_000,
        '[{"text": "' + '\\"' * 50_000,
        '[{"x": ["' + '\\"' * 50_000,
        '[{"x": [\\' + '"\\' * 50_000,
        f"[{ANN}, " * 5_000,
        "[{'" * 30_000,
        "```" * 30_000,
        '[{"text": \'' + "a" * 100_000,
        "[" + "9" * 100_000,
        '[{"text": ' + "9" * 100_000,
        '[{"text": "a", "type": "' + "ß" * 100_000 + '"}]',
        "\ud800" * 100_000,
    ],
    ids=range(20),
)
def test_adversarial_text_is_read_in_linear_time(text):
    start = time.process_time()
    assert parse(text).outcome in {"invalid", "repaired"}
    # About 15 ms; a quadratic reader needs 10¹⁰ steps here.
    assert time.process_time() - start < 2.0

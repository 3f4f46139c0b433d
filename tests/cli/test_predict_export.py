"""`ccrl predict` and `ccrl export` with a real, tiny model on disk."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "peft")):
    pytest.skip("needs torch, transformers and peft", allow_module_level=True)

from answering_model import ANSWER, write_adapter, write_answering_model
from ccrl_cli.cli.app import invoke

TYPES = "agency,space_probe"
TEXT = "NASA sent Juno to Jupiter."


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_answering_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def place(tmp_path, monkeypatch, model):
    """A folder with a profile for the tiny model."""
    monkeypatch.chdir(tmp_path)
    Path("ccrl.toml").write_text(
        f"""
[run]
name = "tiny"
[model]
name = '{model}'
dtype = "float32"
[data.source]
name = "sample:newswire"
[data.target]
name = "sample:spaceflight"
[prompt]
template = "compact"
[evaluation]
batch_size = 4
max_tokens = 120
""",
        encoding="utf-8",
    )
    return tmp_path


def run(capsys, *words, code=0):
    assert invoke(words) == code, capsys.readouterr().err
    return capsys.readouterr()


def rows(capsys, *words):
    out, _ = run(capsys, "predict", *words)
    return [json.loads(line) for line in out.split("\n") if line]


def without_confidence(found):
    """The rows without the confidence of their entities, which must be there, in [0, 1]."""
    for row in found:
        assert all(0 <= entity.pop("confidence") <= 1 for entity in row["entities"])
    return found


def give(monkeypatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


# --- predict --------------------------------------------------------------------------------------


def test_offsets_and_hallucinated_mentions(place, capsys):
    found = rows(capsys, TEXT, "ESA launched Juno.", "--types", TYPES)
    assert without_confidence(found) == [
        {
            "text": TEXT,
            "entities": [
                {"text": "NASA", "type": "agency", "start": 0, "end": 4},
                {"text": "Juno", "type": "space_probe", "start": 10, "end": 14},
            ],
            "hallucinated": [],
            "other_types": [],
            "outcome": "valid",
        },
        {
            "text": "ESA launched Juno.",
            "entities": [{"text": "Juno", "type": "space_probe", "start": 13, "end": 17}],
            "hallucinated": [{"text": "NASA", "type": "agency"}],
            "other_types": [],
            "outcome": "valid",
        },
    ]


def test_every_line_of_a_file_has_a_row_in_order(place, capsys):
    lines = [
        "NASA.",
        "",
        "   ",
        "Ju\u0301no \u2014 Juno \U0001f680 NASA",
        "\u2028NASA\u0085",
        "NASA.",
    ]
    Path("in.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    found = rows(capsys, "--file", "in.txt", "--types", TYPES)
    assert [row["text"] for row in found] == lines
    assert [row["outcome"] for row in found] == [
        "valid",
        "empty",
        "empty",
        "valid",
        "valid",
        "valid",
    ]
    for row in found:
        for entity in row["entities"]:
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]
    assert [entity["text"] for entity in found[3]["entities"]] == ["Juno", "NASA"]
    assert found[0] == found[5]


def test_a_long_line_is_read_in_pieces(place, capsys):
    text = "Nothing here to see at all. " * 20 + TEXT + " " + "x" * 700
    (row,) = rows(capsys, text, "--types", TYPES, "--piece", "100")
    start = text.index("NASA")
    assert without_confidence([row])[0]["entities"][0] == {
        "text": "NASA",
        "type": "agency",
        "start": start,
        "end": start + 4,
    }
    assert {e["text"] for e in row["entities"]} == {"NASA", "Juno"}
    # Six pieces or more answered NASA where there is none.
    assert len(row["hallucinated"]) > 10


def test_standard_input_as_json_lines_keeps_ids(place, capsys, monkeypatch):
    give(monkeypatch, b'{"id": "a", "text": "NASA"}\n{"id": 2, "text": ""}\n')
    found = rows(capsys, "--types", TYPES)
    assert [(row["id"], len(row["entities"])) for row in found] == [("a", 1), (2, 0)]


def test_types_may_be_given_one_at_a_time(place, capsys):
    joined = rows(capsys, TEXT, "--types", TYPES)
    words = [word for name in TYPES.split(",") for word in ("--types", name)]
    assert rows(capsys, TEXT, *words, "--types", f" {TYPES.split(',')[0]},") == joined


def test_types_of_the_target_are_the_default(place, capsys):
    out, _ = run(capsys, "predict", "NASA", "--json")
    document = json.loads(out)
    assert document["command"] == "predict"
    assert "spacecraft" in document["result"]["types"]
    assert document["counts"]["texts"] == 1
    # Its answer names types that this target does not have: they stand apart.
    row = document["result"]["rows"][0]
    assert row["entities"] == []
    assert {"text": "NASA", "type": "agency"} in row["other_types"]
    assert document["counts"]["other_types"] == len(row["other_types"])
    assert (document["result"]["decode"], document["result"]["type_prior"]) == ("greedy", None)
    assert document["result"]["adapter"] is None


@pytest.mark.parametrize("decode", ["typed", "vote"])
def test_types_by_evidence_are_types_that_were_asked_for(place, capsys, decode):
    """The tiny model writes agency and space_probe; asked for others, evidence decides."""
    words = ("--types", "ship,planet", "--decode", decode, "--json", TEXT, "Nothing.")
    document = json.loads(run(capsys, "predict", *words)[0])
    result = document["result"]
    assert (result["decode"], result["type_prior"]) == (decode, "content_free")
    for row in result["rows"]:
        assert {entity["type"] for entity in row["entities"]} <= {"ship", "planet"}
        assert row["other_types"] == []
    if decode == "typed":  # the spans are those of the greedy answer
        found = result["rows"][0]["entities"]
        assert [entity["text"] for entity in found] == ["NASA", "Juno"]
        assert all(0.5 <= entity["confidence"] <= 1 for entity in found)  # of two types the surer


def test_confidence_of_a_greedy_answer_is_its_likelihood(place, capsys):
    found = rows(capsys, TEXT, "--types", TYPES, "--decode", "greedy")
    sure = {entity["confidence"] for entity in found[0]["entities"]}
    assert len(sure) == 1
    assert 0 < sure.pop() <= 1


def test_a_server_answers_and_votes_say_the_types(place, capsys):
    from misbehaving_server import MisbehavingServer, chat

    answers = [ANSWER, ANSWER, "[]"]
    with MisbehavingServer(lambda number, _body: chat(answers[number % 3])) as server:
        server.models = (200, {}, b'{"data": [{"id": "served"}]}')
        words = (
            "predict",
            TEXT,
            "--types",
            TYPES,
            "--backend",
            "openai",
            "--json",
            "--set",
            "model.name=served",
            "--set",
            f"generation.server_url={server.url}/v1",
            "--set",
            "generation.num_completions=3",
            "--set",
            "confidence.label=entity_vote",
        )
        out, err = run(capsys, *words, "--decode", "vote")  # fmt: skip
        document = json.loads(out)
        assert "its answers' votes say the types" in err
        assert [(e["text"], e["type"], e["confidence"])
                for e in document["result"]["rows"][0]["entities"]] == [
            ("NASA", "agency", 0.6667),
            ("Juno", "space_probe", 0.6667),
        ]  # fmt: skip
        assert (document["result"]["model"], document["result"]["adapter"]) == ("served", None)
        assert "log-probabilities" in run(capsys, *words, "--decode", "typed", code=2).out


def test_a_server_is_not_asked_for_an_adapter(place, capsys):
    words = ("predict", TEXT, "--backend", "openai", "--types", TYPES)
    assert "does not have the adapter" in run(capsys, *words, "--adapter", "x", code=2).err


def test_the_runs_adapter_is_the_default(place, capsys, model):
    before = rows(capsys, TEXT, "--types", TYPES)
    write_adapter(model, Path("runs/tiny/adapter"), scale=2.0)
    document = json.loads(run(capsys, "predict", TEXT, "--types", TYPES, "--json")[0])
    assert document["result"]["adapter"] == str(Path("runs/tiny/adapter"))
    assert document["result"]["rows"] != before
    assert rows(capsys, TEXT, "--types", TYPES, "--adapter", "") == before
    assert rows(capsys, TEXT, "--types", TYPES, "--adapter", "none") == before


def test_an_answer_that_cannot_be_read_is_said(place, capsys):
    out, err = run(capsys, "predict", TEXT, "--types", TYPES, "--set", "evaluation.max_tokens=1")
    row = json.loads(out)
    assert row["outcome"] == "invalid"
    assert "1 of 1 texts have an answer that cannot be read" in err


def test_a_console_without_utf8_gets_escapes_and_true_offsets(place, capsys, monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="cp1252"))
    assert invoke(["predict", "“…” → NASA", "--types", TYPES]) == 0
    sys.stdout.flush()
    row = json.loads(buffer.getvalue().decode("ascii"))
    assert row["text"] == "“…” → NASA"
    assert row["entities"][0]["start"] == 6


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["a", "--file", "x.txt"], 2, "exclude each other"),
        (["--file", "none.txt"], 3, "does not exist"),
        (["a", "--types", " , "], 2, "names no type"),
        (["a", "--adapter", "nowhere"], 3, "no adapter at 'nowhere'"),
        (["a", "--piece", "0"], 2, "--piece"),
    ],
)
def test_errors(place, capsys, words, code, message):
    assert message in run(capsys, "predict", *words, code=code).err


def test_no_text_at_all(place, capsys, monkeypatch):
    give(monkeypatch, b"")
    assert run(capsys, "predict", "--types", TYPES).out == ""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    assert "there is no text" in run(capsys, "predict", code=2).err


# --- export ---------------------------------------------------------------------------------------


def logits(model, tokenizer):
    import torch

    with torch.no_grad():
        return model(**tokenizer("NASA sent", return_tensors="pt")).logits


@pytest.fixture
def adapter(place, model):
    return write_adapter(model, Path("runs/tiny/adapter"))


def test_a_merged_model_loads_with_plain_transformers(adapter, model, capsys):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, _ = run(capsys, "export", "--json")
    document = json.loads(out)
    folder = Path("runs/tiny/export")
    assert document["result"]["path"] == str(folder)
    assert document["result"]["kind"] == "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    merged = AutoModelForCausalLM.from_pretrained(folder)
    base = AutoModelForCausalLM.from_pretrained(model)
    plain = logits(base, tokenizer)
    apart = PeftModel.from_pretrained(base, str(adapter))
    torch.testing.assert_close(
        logits(merged, tokenizer), logits(apart, tokenizer), atol=1e-5, rtol=1e-5
    )
    assert (logits(merged, tokenizer) - plain).abs().max() > 1e-3
    assert merged.dtype == torch.float32
    assert document["result"]["parameters"] == merged.num_parameters()


def test_an_adapter_alone_loads_with_plain_peft(adapter, model, capsys):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run(capsys, "export", "--adapter-only", "--output", "mine")
    assert {path.name for path in Path("mine").iterdir()} >= {
        *("adapter_config.json", "adapter_model.safetensors", "README.md", "tokenizer.json"),
    }
    tokenizer = AutoTokenizer.from_pretrained("mine")
    loaded = [
        logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), p), tokenizer)
        for p in ("mine", str(adapter))
    ]
    torch.testing.assert_close(*loaded)
    # The base is named as the user names it, so that peft finds it without help.
    config = json.loads(Path("mine/adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(model)


def test_the_number_format_can_be_chosen(adapter, capsys):
    import torch
    from transformers import AutoModelForCausalLM

    run(capsys, "export", "--dtype", "bfloat16", "-o", "half")
    assert AutoModelForCausalLM.from_pretrained("half", dtype="auto").dtype == torch.bfloat16


def test_the_card_carries_the_evaluation_and_code_that_runs(adapter, model, capsys):
    scores = {"f1": 0.5, "f1_low": 0.4, "f1_high": 0.6, "precision": 0.5, "recall": 0.5,
              "num_sentences": 900}  # fmt: skip
    target = {"data": "sample:spaceflight", "mode": "held-out", "before": {**scores, "f1": 0.4},
              "after": scores, "delta_f1": {"value": 0.1, "low": 0.05, "high": 0.15}}  # fmt: skip
    evaluation = {"schema": 1, "split": "test", "reportable": True, "domains": {"target": target}}
    Path("runs/tiny/evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    run(capsys, "export")
    card = Path("runs/tiny/export/README.md").read_text(encoding="utf-8")
    assert "Target F1 rose from 40.0 to 50.0" in card
    assert "| target, greedy | sample:spaceflight | held-out | 40.0 (40.0 to 60.0) | 50.0" in card
    yaml = pytest.importorskip("yaml")
    front = yaml.safe_load(card.split("---")[1])
    assert front["model-index"][0]["results"][0]["metrics"][0] == {"type": "f1", "value": 0.5}
    assert front["library_name"] == "transformers"
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace('folder = "."', f"folder = {str(Path('runs/tiny/export'))!r}")
    exec(compile(code.replace('text = "..."', f"text = {TEXT!r}"), "card", "exec"), {})
    assert capsys.readouterr().out.startswith('[{"text": ')


def test_a_folder_is_not_overwritten_by_surprise(adapter, capsys):
    run(capsys, "export")
    assert "exists" in run(capsys, "export", code=2).err
    run(capsys, "export", "--overwrite")
    Path("notes").mkdir()
    Path("notes/thoughts.txt").write_text("keep", encoding="utf-8")
    assert "is no model folder" in run(capsys, "export", "-o", "notes", "--overwrite", code=2).err
    assert Path("notes/thoughts.txt").exists()
    assert not list(Path().glob("*.new"))


def test_nothing_to_export(place, capsys):
    assert "has no trained adapter to export" in run(capsys, "export", code=3).err


def test_a_push_that_cannot_succeed(adapter, capsys, monkeypatch):
    from huggingface_hub import constants

    assert "is not ORG/NAME" in run(capsys, "export", "--push", "name", code=2).err
    assert not Path("runs/tiny/export").exists()  # refused before any work
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in run(capsys, "export", "--push", "a/b", code=3).err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_nothing")
    err = run(capsys, "export", "--push", "a/b", code=3).err
    assert "a/b cannot be pushed" in err
    assert "hf upload a/b" in err
    assert Path("runs/tiny/export/model.safetensors").is_file()


def test_the_answer_of_the_tiny_model(place, capsys):
    """The tests above rest on this answer."""
    assert json.loads(ANSWER)[0]["text"] == "NASA"


def test_an_adapter_on_warmed_up_weights_does_not_go_alone(adapter, model, capsys):
    """Weights that the warm-up changed are published nowhere."""
    from ccrl_cli.config.load import load_profile
    from ccrl_cli.pipelines.common.weights import warmup_digest

    settings = ["warmup.enabled=true", "warmup.method=full"]
    words = [word for value in settings for word in ("--set", value)]
    assert "run `ccrl warmup` first" in run(capsys, "export", *words, code=3).err
    place = Path("runs/tiny/warmup")
    place.mkdir()
    shutil.copytree(model, place / "model")
    digest = warmup_digest(load_profile(None, settings).profile)
    (place / "warmup.json").write_text(json.dumps({"digest": digest}), encoding="utf-8")
    err = run(capsys, "export", "--adapter-only", *words, code=2).err
    assert "fits no published model" in err
    run(capsys, "export", *words)
    assert Path("runs/tiny/export/config.json").is_file()

"""TOML layers: the line of each key, ``--set`` values, what a layer drops."""

from __future__ import annotations

import pytest

from ccrl_cli.config.layers import Setting, key_lines, merge, read_assignments, read_layer
from ccrl_cli.errors import ProfileError

TEXT = '''# comment
extends = "base"

[run]
name = "a"  # = not a key
[data.target]
labels = [
  "x = 1",
  "y",
]
path = """
[not.a.section]
seed = 3
"""
[training]
epochs = 2
generation = { top_p = 0.5, models = ["m"] }
"data.dotted".x = 1
'''


def test_key_lines():
    assert key_lines(TEXT) == {
        ("extends",): 2,
        ("run", "name"): 5,
        ("data", "target", "labels"): 7,
        ("data", "target", "path"): 11,
        ("training", "epochs"): 16,
        ("training", "generation", "top_p"): 17,
        ("training", "generation", "models"): 17,
        ("training", "data.dotted", "x"): 18,
    }


def test_read_layer_takes_windows_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xef\xbb\xbf[run]\r\nseed = 4\r\n")
    layer, extends = read_layer(path, "p.toml")
    assert layer == {("run", "seed"): Setting(4, "profile p.toml:2")}
    assert extends is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[run]\nseed = = 3\n", "p.toml:2:8 is not valid TOML"),
        ("[run]\nseed = 1\nseed = 2\n", "p.toml:3:"),
        ('[run]\nname = """', "p.toml, at the end is not valid TOML"),
        ("\nextends = 3\n", "p.toml:2: extends must be"),
    ],
)
def test_syntax_errors_name_the_place(tmp_path, text, place):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(ProfileError) as caught:
        read_layer(path, "p.toml")
    assert caught.value.message.startswith(place)
    assert caught.value.hint


def test_unreadable_file(tmp_path):
    path = tmp_path / "p.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="cannot be read"):
        read_layer(path, "p.toml")


KINDS = {("run", "name"): str, ("arms",): tuple}


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("a.b=3", ("a", "b"), 3),
        ("a.b = 1e-5", ("a", "b"), 1e-5),
        ("a.b=true", ("a", "b"), True),
        ("a.b=[1, 2]", ("a", "b"), [1, 2]),
        ("a.b='x'", ("a", "b"), "x"),
        ("a.b=bare words", ("a", "b"), "bare words"),
        ("a.b=x=y", ("a", "b"), "x=y"),
        ("a.b=", ("a", "b"), ""),
        ("a.b=C:\\new", ("a", "b"), "C:\\new"),
        ("run.name=2024", ("run", "name"), "2024"),
        ("run.name=true", ("run", "name"), "true"),
        ("run.name='q'", ("run", "name"), "q"),
        ("arms=a, b", ("arms",), ["a", "b"]),
        ("arms=0.5,1", ("arms",), [0.5, 1]),
        ("arms=x", ("arms",), ["x"]),
        ("arms=['x,y']", ("arms",), ["x,y"]),
        ("arms=", ("arms",), []),
        ("data.type_names.a.b=c", ("data", "type_names", "a.b"), "c"),
        ("data.type_names={a = 'b'}", ("data", "type_names", "a"), "b"),
    ],
)
def test_assignments(assignment, key, value):
    assert read_assignments([assignment], KINDS) == {key: Setting(value, "--set")}


@pytest.mark.parametrize("assignment", ["", "a.b", "=3", "a.=3", ".b=3"])
def test_what_is_no_assignment(assignment):
    with pytest.raises(ProfileError, match="is not an assignment"):
        read_assignments([assignment], KINDS)


def layer(origin: str, **values: object):
    return {tuple(key.split("__")): Setting(value, origin) for key, value in values.items()}


def test_later_layers_win_key_by_key():
    merged = merge([layer("profile", run__a=1, run__b=1), layer("--set", run__b=2)])
    assert {key[-1]: item.value for key, item in merged.items()} == {"a": 1, "b": 2}


def test_another_data_set_drops_what_described_the_old_one():
    below = layer(
        "profile a:1",
        data__target__name="sample:x",
        data__target__labels=["A"],
        data__target__max_train_samples=5,
        data__source__name="sample:y",
    )
    merged = merge([below, layer("--set", data__target__path="mine.jsonl")])
    assert {key[1:]: item.value for key, item in merged.items()} == {
        ("target", "path"): "mine.jsonl",
        ("target", "max_train_samples"): 5,
        ("source", "name"): "sample:y",
    }


def test_type_names_of_a_file_replace_and_of_a_flag_add():
    below = layer("profile a:1", data__type_names__name="x")
    above = merge([below, layer("profile b:1", data__type_names__path="y")])
    assert [key[-1] for key in above] == ["path"]
    added = merge([below, layer("--set", data__type_names__path="y")])
    assert [key[-1] for key in added] == ["name", "path"]


@pytest.mark.parametrize("path", [r"C:\Users\me", r"D:\data\xy"])
def test_a_path_of_windows_in_double_quotes_is_explained(tmp_path, path):
    file = tmp_path / "p.toml"
    file.write_text(f'[data.target]\npath = "{path}"\n', encoding="utf-8")
    with pytest.raises(ProfileError, match=r"p\.toml:2:") as caught:
        read_layer(file, "p.toml")
    assert "write a Windows path in single quotes, or write it with /" in caught.value.hint
    file.write_text(f"[data.target]\npath = '{path}'\n", encoding="utf-8")
    assert read_layer(file, "p.toml")[0]["data", "target", "path"].value == path


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000 + "]" * 5000,
        ".".join("a" * 3000) + " = 1",
        "a = " + "9" * 6000,
        "a = " + "[" * 40 + "]" * 40,
    ],
    ids=["deep array", "deep key", "huge number", "nested"],
)
def test_values_too_deep_or_too_large_are_no_valid_toml(tmp_path, text):
    place = tmp_path / "p.toml"
    place.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match="not valid TOML"):
        read_layer(place, "p.toml")


def test_lines_of_long_values_are_found_without_parsing_each_of_them_again():
    values = "".join(f'  "type {n}",\n' for n in range(3000))
    text = f"[data]\nlabels = [\n{values}]\nb = 1\n"
    lines = key_lines(text)
    assert (lines["data", "labels"], lines["data", "b"]) == (2, 3004)

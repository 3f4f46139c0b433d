"""Files and folders that another program has open: waited for, and never lost."""

from __future__ import annotations

import sys

import pytest

from ccrl_cli.errors import HeldError, PreconditionError
from ccrl_cli.files import move, replacing_folder
from held import hold
from links import link_to


def filled(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text(text)
    return folder


def replace_with(target, text):
    with replacing_folder(target) as fresh:
        (fresh / "weights").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("code", [5, 32, 1224])
def test_move_waits_for_a_program_that_lets_go(tmp_path, monkeypatch, code):
    (tmp_path / "a").write_text("new")
    calls = hold(monkeypatch, lambda *_: True, code, times=3)
    move(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 3
    assert (tmp_path / "b").read_text() == "new"


def test_a_file_that_stays_open_is_named_and_the_new_one_stays(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    calls = hold(monkeypatch, lambda *_: True)
    with pytest.raises(HeldError) as caught:
        move(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 10
    assert caught.value.exit_code == 3
    assert caught.value.message == f"{tmp_path / 'b'} is open in another program"
    assert caught.value.hint == f"close it and repeat; the new one lies in {tmp_path / 'a'}"
    assert (tmp_path / "a").read_text() == "new"
    assert (tmp_path / "b").read_text() == "old"


def test_another_refusal_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("new")
    calls = hold(monkeypatch, lambda *_: True, 17)  # another disk
    with pytest.raises(OSError, match="is open"):
        move(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 1


def test_a_folder_is_replaced_whole(tmp_path):
    target = filled(tmp_path / "new" / "export", "old")
    (target / "second").write_text("old")
    replace_with(target, "new")
    assert (target / "weights").read_text() == "new"
    assert names(target.parent) == ["export"]
    assert names(target) == ["weights"]


def test_a_folder_that_is_not_there_yet_is_made(tmp_path):
    replace_with(tmp_path / "a" / "b", "new")
    assert (tmp_path / "a" / "b" / "weights").read_text() == "new"
    assert names(tmp_path / "a") == ["b"]


def test_an_error_inside_keeps_the_old_folder(tmp_path):
    target = filled(tmp_path / "export", "old")

    def fail():
        with replacing_folder(target) as fresh:
            (fresh / "weights").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (target / "weights").read_text() == "old"
    assert names(tmp_path) == ["export"]


def test_an_old_folder_in_use_keeps_old_and_new(tmp_path, monkeypatch):
    target = filled(tmp_path / "export", "old")
    calls = hold(monkeypatch, lambda source, _: source == target, 5)
    with pytest.raises(HeldError) as caught:
        replace_with(target, "new")
    assert len(calls) == 10
    assert caught.value.message == f"{target} is open in another program"
    assert caught.value.hint.endswith(f"the new one lies in {tmp_path / '.export.new'}")
    assert (target / "weights").read_text() == "old"
    assert (tmp_path / ".export.new" / "weights").read_text() == "new"
    monkeypatch.undo()
    replace_with(target, "newer")
    assert (target / "weights").read_text() == "newer"
    assert names(tmp_path) == ["export"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_go_in(tmp_path, monkeypatch):
    target = filled(tmp_path / "export", "old")
    hold(monkeypatch, lambda source, place: place == target and source.name == ".export.new")
    with pytest.raises(HeldError) as caught:
        replace_with(target, "new")
    assert caught.value.message == f"{tmp_path / '.export.new'} is open in another program"
    assert (target / "weights").read_text() == "old"
    assert (tmp_path / ".export.new" / "weights").read_text() == "new"
    assert names(tmp_path) == [".export.new", "export"]


def test_an_unexpected_refusal_brings_the_old_folder_back_too(tmp_path, monkeypatch):
    target = filled(tmp_path / "export", "old")
    hold(monkeypatch, lambda source, _: source.name == ".export.new", 112)  # the disk is full
    with pytest.raises(OSError, match="is open"):
        replace_with(target, "new")
    assert (target / "weights").read_text() == "old"
    assert names(tmp_path) == ["export"]


def test_leftovers_that_are_still_held_are_passed_by(tmp_path, monkeypatch):
    target = filled(tmp_path / "export", "old")
    kept = filled(tmp_path / ".export.old", "left"), filled(tmp_path / ".export.new", "left")
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: None)
    replace_with(target, "new")
    assert (target / "weights").read_text() == "new"
    assert [(folder / "weights").read_text() for folder in kept] == ["left", "left"]
    monkeypatch.undo()
    replace_with(target, "newer")
    assert (target / "weights").read_text() == "newer"
    assert names(tmp_path) == [".export.old-2", "export"]


def test_a_users_folders_beside_it_are_left_alone(tmp_path):
    target = filled(tmp_path / "export", "old")
    for name in ("export.new", "export.old", "export.old-2"):
        filled(tmp_path / name, "mine")
    replace_with(target, "new")
    assert {(tmp_path / name / "weights").read_text() for name in names(tmp_path)} == {
        "new",
        "mine",
    }
    assert len(names(tmp_path)) == 4


def test_a_link_to_a_folder_stays_and_what_it_points_to_changes(tmp_path):
    target, link = filled(tmp_path / "disk" / "export", "old"), tmp_path / "export"
    link_to(target, link)
    replace_with(link, "new")
    assert link.is_symlink()
    assert (target / "weights").read_text() == "new"
    assert names(tmp_path) == ["disk", "export"]


def test_a_file_in_place_of_the_parent_is_a_precondition(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PreconditionError, match="cannot be written"):
        replace_with(tmp_path / "file" / "export", "new")


@pytest.mark.skipif(sys.platform != "win32", reason="elsewhere an open file can be moved")
def test_a_file_that_is_really_open_loses_nothing(tmp_path):
    target = filled(tmp_path / "export", "old")
    with (target / "weights").open():
        try:
            replace_with(target, "new")
        except HeldError:
            kept, place = "old", tmp_path / ".export.new"
        else:
            kept, place = "new", target
        assert (target / "weights").read_text() == kept
        assert (place / "weights").read_text() == "new"
    replace_with(target, "newer")
    assert (target / "weights").read_text() == "newer"

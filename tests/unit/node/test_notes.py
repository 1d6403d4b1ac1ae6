"""What a node must not forget: notes that survive, that fail loudly when damaged, and the directory's incarnation."""

import json
from dataclasses import replace

import pytest

from appliance.ha.seen import Notes
from appliance.node.notes import NotesError, NotesFile, new_incarnation
from appliance.postgres.incarnation import NONE, Incarnation, forget_incarnation, read_incarnation, write_incarnation


@pytest.fixture
def path(tmp_path):
    return tmp_path / "notes.json"


def test_notes_survive_a_restart(path):
    notes = Notes(epoch=4, pledge=5, fenced_epoch=3, needs_clone=True, rewinds_failed=2)
    NotesFile(path).write(notes)

    assert NotesFile(path).value == notes


def test_a_node_without_notes_begins_with_none(path):
    assert NotesFile(path).value == Notes()


def test_the_file_is_made_at_the_first_start_so_that_its_absence_says_something(path):
    NotesFile(path).create()
    assert NotesFile(path).value == Notes()
    NotesFile(path).write(Notes(epoch=4))
    NotesFile(path).create()
    assert NotesFile(path).value == Notes(epoch=4)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"epoch": "4"}', '{"epoch": null}', "\x00\x00"])
def test_r6_notes_that_cannot_be_read_stop_the_node(path, damage):
    """A pledge may be lost with them: going on as if there were none would be a vote that counts twice."""
    path.write_text(damage)
    with pytest.raises(NotesError, match=r"notes\.json.*pledges are lost"):
        NotesFile(path)


def test_notes_of_an_older_and_of_a_newer_version_are_read(path):
    path.write_text(json.dumps({"epoch": 4, "pledge": 5, "colour": "blue"}))

    assert NotesFile(path).value == Notes(epoch=4, pledge=5)


def test_a_fence_is_noted_and_never_taken_back(path):
    notes = NotesFile(path)
    notes.write(Notes(epoch=4, pledge=5))
    notes.end_epoch(4)
    notes.end_epoch(3)

    assert NotesFile(path).value == Notes(epoch=4, pledge=5, fenced_epoch=4)


def test_equal_notes_are_not_written_again(path):
    notes = NotesFile(path)
    notes.write(Notes(epoch=4))
    path.unlink()
    notes.write(Notes(epoch=4))
    assert not path.exists()
    notes.write(replace(notes.value, epoch=5))
    assert path.exists()


@pytest.mark.parametrize("recovery", [0, 1_795_000_000])
def test_an_incarnation_is_written_read_and_forgotten_but_not_when_it_was_written(tmp_path, recovery):
    assert read_incarnation(tmp_path) == NONE
    incarnation = new_incarnation(recovery)
    write_incarnation(tmp_path, incarnation)
    assert read_incarnation(tmp_path) == incarnation
    assert (len(incarnation.id), incarnation.recovery) == (16, recovery)
    for _ in range(2):
        forget_incarnation(tmp_path)
        assert read_incarnation(tmp_path) == Incarnation("", recovery)
    forget_incarnation(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_r13a_a_file_of_before_recoveries_were_numbered_is_of_none(tmp_path):
    (tmp_path / "appliance.incarnation").write_text("00ff00ff00ff00ff\n")
    assert read_incarnation(tmp_path) == Incarnation("00ff00ff00ff00ff", 0)
    write_incarnation(tmp_path, Incarnation("00ff00ff00ff00ff"))
    assert (tmp_path / "appliance.incarnation").read_text() == "00ff00ff00ff00ff\n", "and is written as it was"


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", b"", b"\n\n\n", b"\nmany\n"])
def test_an_unreadable_incarnation_is_none(tmp_path, damage):
    (tmp_path / "appliance.incarnation").write_bytes(damage)

    assert read_incarnation(tmp_path) == NONE


def test_r13a_what_is_not_kept_of_the_notes_stays_beside_them(path):
    notes = NotesFile(path)
    old = Notes(epoch=9, pledge=11, fenced_epoch=8)
    notes.write(old)
    notes.begin_anew(7)
    assert (notes.value, NotesFile(path).value) == (Notes(recovery=7), Notes(recovery=7))
    assert NotesFile(path.with_name("notes.before-recovery-7.json")).value == old


def test_incarnations_differ():
    assert len({new_incarnation(0).id for _ in range(100)}) == 100

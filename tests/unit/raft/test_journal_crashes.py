"""The journal when the process dies, the power goes or the disk is full: the old state or the new, and never a lie."""

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from raft.api import ReplicaError, ReplicaFailed
from raft.disk import OsDisk
from tests.simulation.raft.virtual_disk import Crash, Medium, VirtualDisk
from tests.unit.raft.journals import (
    BATCHES,
    REST,
    STORY,
    add,
    bytes_on,
    content,
    entries,
    opened,
    reopened,
    snapshot,
)

REPOSITORY = Path(__file__).parents[3]
SHARES = (0.0, 0.3, 0.6, 1.0)
"""How much of the call in which the process dies still happens."""

LOSSES = {
    "kill": lambda medium: medium.kill(),
    "power": lambda medium: medium.lose_power(),
    **{f"power {seed}": lambda medium, seed=seed: medium.lose_power(random.Random(seed)) for seed in range(4)},
}


def told(steps):
    """The content after each step, the new journal's first."""
    journal = opened(VirtualDisk(Medium()))
    states = [content(journal)]
    for step in steps:
        step(journal)
        states.append(content(journal))
    return states


STATES = told(STORY)


def until_the_crash(medium, crash_at, share):
    """Live through the story; answer how many states had been reached, or None if there was no crash."""
    disk = VirtualDisk(medium)
    disk.crash_in(crash_at, share)
    reached = 0
    try:
        journal = opened(disk)
        for step in STORY:
            reached += 1
            step(journal)
    except Crash:
        return reached
    return None


def crash_points():
    """Every call of a whole life that changes something on the disk."""
    disk = VirtualDisk(Medium())
    journal = opened(disk)
    for step in STORY:
        step(journal)
    return range(1, disk.calls + 1)


def test_the_story_has_every_kind_of_call():
    disk = VirtualDisk(Medium())
    calls = set()
    disk.on_call = lambda call: calls.add(call.split()[0])
    journal = opened(disk)
    for step in STORY:
        step(journal)
    assert calls == {"create", "write", "sync", "rename"}
    assert len(crash_points()) == 42


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("share", SHARES)
def test_a_crash_at_any_call_leaves_the_old_or_the_new_and_life_goes_on(share, loss):
    for crash_at in crash_points():
        medium = Medium()
        reached = until_the_crash(medium, crash_at, share)
        LOSSES[loss](medium)
        found = reopened(medium)
        assert found in STATES[max(0, reached - 1) : reached + 1], f"crash at call {crash_at}"
        assert "journal.new" not in medium.names

        journal = opened(VirtualDisk(medium))
        for step in STORY[STATES.index(found) :]:
            step(journal)
        assert content(journal) == STATES[-1]
        medium.lose_power()
        assert reopened(medium) == STATES[-1]


@pytest.mark.parametrize("share", SHARES)
def test_what_was_read_after_a_crash_survives_the_next_loss_of_power(share):
    """A killed process leaves in memory what it had not synced; who reads it and relies on it must have it on disk."""
    for crash_at in crash_points():
        medium = Medium()
        until_the_crash(medium, crash_at, share)
        medium.kill()
        found = reopened(medium)
        medium.lose_power()
        assert reopened(medium) == found, f"crash at call {crash_at}"


def begin_anew(journal):
    journal.begin_anew(1, REST)
    journal.sync()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("share", SHARES)
def test_a_new_beginning_is_whole_or_has_not_begun(share, loss):
    """In a process that does nothing else, as an administrator's command is one."""
    before, after = told([*BATCHES, begin_anew])[-2:]
    for crash_at in range(1, 8):
        medium = Medium()
        journal = opened(VirtualDisk(medium))
        for step in BATCHES:
            step(journal)
        medium.kill()
        disk = VirtualDisk(medium)
        disk.crash_in(crash_at, share)
        with pytest.raises(Crash):
            begin_anew(opened(disk))
        LOSSES[loss](medium)
        found = reopened(medium)
        assert found in (before, after), f"crash at call {crash_at}"
        if found == before:
            begin_anew(opened(VirtualDisk(medium)))
        medium.lose_power()
        assert reopened(medium) == after


@pytest.mark.parametrize("loss", ["kill", "power", "power 1"])
def test_a_crash_while_starting_after_a_crash_loses_nothing_more(loss):
    for crash_at in crash_points():
        for second in range(1, 9):
            medium = Medium()
            reached = until_the_crash(medium, crash_at, 0.6)
            medium.lose_power(random.Random(crash_at))
            disk = VirtualDisk(medium)
            disk.crash_in(second, 0.6)
            with contextlib.suppress(Crash):
                opened(disk)
            LOSSES[loss](medium)
            found = reopened(medium)
            assert found in STATES[max(0, reached - 1) : reached + 1], f"crash at calls {crash_at} and {second}"


# -- errors of the disk ------------------------------------------------------------------------------


def failed_note(medium):
    return json.loads(bytes_on(medium, "failed"))


@pytest.mark.parametrize("step", STORY, ids=lambda step: step.__name__)
def test_a_failed_sync_ends_the_journal_for_good(step):
    """In a batch or in a rewrite; and what the disk never got is not relied on after the next start."""
    index = STORY.index(step)
    medium = Medium()
    disk = VirtualDisk(medium)
    journal = opened(disk)
    for before in STORY[:index]:
        before(journal)
    disk.fail_sync_in(1)
    with pytest.raises(ReplicaFailed, match=r"cannot write journal /virtual/journal: .*Input/output error"):
        step(journal)
    calls = disk.calls
    for again in (journal.sync, journal.sync, lambda: journal.compact(journal.snapshot or snapshot(1, 0), 2)):
        with pytest.raises(ReplicaFailed, match="cannot write journal"):
            again()
    assert failed_note(medium)["errno"] == 5

    journal.close()
    assert disk.calls == calls, "nothing is tried again"
    disk.close()
    found = reopened(medium)
    assert found in STATES[index : index + 2]
    medium.lose_power()
    assert reopened(medium) == found
    assert "failed" not in medium.names


@pytest.mark.parametrize("step", STORY, ids=lambda step: step.__name__)
def test_whatever_call_of_the_disk_fails_ends_the_journal_for_good(step):
    """A rename and the sync of the directory too: a name that is not durable is no journal."""
    index = STORY.index(step)
    for calls in itertools.count(1):
        medium = Medium()
        disk = VirtualDisk(medium)
        journal = opened(disk)
        for before in STORY[:index]:
            before(journal)
        disk.fail_in(calls)
        try:
            step(journal)
        except ReplicaFailed:
            with pytest.raises(ReplicaFailed, match="cannot write journal"):
                journal.sync()
        else:
            assert disk.errors == 0, "it goes on after an error of the disk"
            break
        journal.close()
        medium.lose_power()
        assert reopened(medium) in STATES[index : index + 2]
    assert calls > 2


def test_a_failed_sync_while_starting_is_no_start():
    medium = Medium()
    reopened(medium)
    before = bytes_on(medium)
    disk = VirtualDisk(medium)
    disk.fail_sync_in(1)
    with pytest.raises(ReplicaError, match=r"cannot open journal /virtual/journal: .*Input/output error"):
        opened(disk)
    assert bytes_on(medium) == before
    assert set(medium.names) == {"journal", "reserve"}


def test_last_words_say_what_where_and_when():
    medium = Medium()
    disk = VirtualDisk(medium)
    journal = opened(disk)
    journal.set_term(7, "n2")
    add(journal, 1, 2)
    journal.set_commit(2)
    add(journal, 3)
    disk.fail_sync_in(1)
    with pytest.raises(ReplicaFailed) as error:
        journal.sync()
    assert failed_note(medium) == {
        "failure": str(error.value),
        "errno": 5,
        "term": 7,
        "commit_index": 2,
        "last_index": 4,
    }
    assert "reserve" not in medium.names
    medium.lose_power()
    assert failed_note(medium)["errno"] == 5, "durable"


def test_last_words_that_cannot_be_said_change_nothing():
    disk = VirtualDisk(Medium())
    journal = opened(disk)
    journal.set_term(1, None)

    def fail(call):
        raise OSError(5, "Input/output error")

    disk.on_call = fail
    with pytest.raises(ReplicaFailed, match="Input/output error"):
        journal.sync()
    with pytest.raises(ReplicaFailed, match="Input/output error"):
        journal.sync()


@pytest.mark.parametrize("room_bytes", range(0, 400, 7))
def test_a_full_disk_keeps_every_synced_batch(room_bytes):
    medium = Medium()
    disk = VirtualDisk(medium)
    journal = opened(disk)
    medium.capacity_bytes = medium.size_bytes() + room_bytes
    states = [content(journal)]

    def live():
        for step in STORY:
            step(journal)
            states.append(content(journal))

    with pytest.raises(ReplicaFailed, match="No space left on device: make room there, then start this replica again"):
        live()
    assert failed_note(medium)["errno"] == 28
    assert "journal.new" not in medium.names
    medium.capacity_bytes = None
    disk.close()
    assert reopened(medium) == states[-1]
    assert set(medium.names) == {"journal", "reserve"}
    assert len(medium.names["reserve"].content) == 64 * 1024


def test_a_full_disk_at_the_start_is_no_start_and_takes_nothing():
    medium = Medium()
    disk = VirtualDisk(medium)
    journal = opened(disk)
    for step in STORY[:4]:
        step(journal)
    disk.close()
    found, needed_bytes = reopened(medium), len(bytes_on(medium))
    assert found == STATES[4]
    for room_bytes in (0, 10, needed_bytes - 1):
        medium.capacity_bytes = medium.size_bytes() + room_bytes
        with pytest.raises(ReplicaError, match=r"cannot open journal .*No space left on device"):
            reopened(medium)
        medium.kill()
        assert set(medium.names) == {"journal", "reserve"}
    medium.capacity_bytes = medium.size_bytes() + needed_bytes
    assert reopened(medium) == found


def test_a_reserve_that_was_not_finished_is_made_anew():
    medium = Medium()
    reopened(medium)
    whole = bytes_on(medium, "reserve")
    del medium.names["reserve"].content[1000:]
    reopened(medium)
    assert bytes_on(medium, "reserve") == whole
    medium.lose_power()
    assert bytes_on(medium, "reserve") == whole


# -- the real thing ----------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A file system of half a MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tested", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def fill(path, *, leave_bytes):
    free = os.statvfs(path.parent)
    path.write_bytes(b"x" * (free.f_bavail * free.f_frsize - leave_bytes))


def add_and_sync(journal, count):
    """Answers what was durable last, and why there was no more."""
    durable = content(journal)
    try:
        for _ in range(count):
            journal.add(b"x" * 1000, journal.last_index + 1, 1)
            journal.sync()
            durable = content(journal)
    except ReplicaFailed as error:
        return durable, str(error)
    return durable, None


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_file_system_that_fills_up_loses_no_synced_batch(small):
    disk = OsDisk(small / "raft")
    journal = opened(disk)
    journal.set_term(1, None)
    fill(small / "ballast", leave_bytes=100_000)
    durable, why = add_and_sync(journal, 1000)
    assert "No space left on device" in why
    assert len(durable["entries"]) > 80
    assert json.loads((small / "raft" / "failed").read_text())["errno"] == 28
    assert not (small / "raft" / "reserve").exists()
    journal.close()

    fill(small / "more", leave_bytes=0)
    with pytest.raises(ReplicaError, match=r"cannot open journal .*No space left on device"):
        opened(disk)
    (small / "more").unlink()
    (small / "ballast").unlink()
    again = opened(disk)
    assert content(again) == durable
    assert sorted(os.listdir(small / "raft")) == ["journal", "lock", "reserve"]
    again.close()
    disk.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_file_system_without_room_for_a_rewrite_keeps_the_old_file(small):
    disk = OsDisk(small / "raft")
    journal = opened(disk)
    journal.set_term(1, None)
    add_and_sync(journal, 50)
    journal.set_commit(50)
    durable, _ = add_and_sync(journal, 50)
    fill(small / "ballast", leave_bytes=20_000)
    with pytest.raises(ReplicaFailed, match="No space left on device"):
        journal.compact(snapshot(40, 1), 2)
    assert sorted(os.listdir(small / "raft")) == ["failed", "journal", "lock"]
    journal.close()
    (small / "ballast").unlink()
    again = opened(disk)
    assert content(again) == durable
    again.close()
    disk.close()


def test_a_write_error_of_the_system_stops_the_journal(tmp_path):
    """In a process of its own: the limit on file size stands in for a full disk, and needs no rights."""
    code = """
import resource, sys
from pathlib import Path
from raft.api import ReplicaFailed
from raft.disk import OsDisk
from raft.journal import Journal
journal = Journal(OsDisk(Path(sys.argv[1])), "c", "n1", draw_id=lambda: "id-n1")
journal.set_term(1, None)
journal.add(b"acknowledged", 2, 1)
journal.sync()
resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size_bytes + 100, resource.RLIM_INFINITY))
journal.add(b"x" * 1000, 3, 1)
for attempt in range(2):
    try:
        journal.sync()
    except ReplicaFailed as error:
        assert "cannot write journal" in str(error) and "File too large" in str(error)
    else:
        sys.exit("a write error was not noticed")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=20, env=variables)
    disk = OsDisk(tmp_path)
    journal = opened(disk)
    assert [command for command, _, _ in entries(journal)] == [b"acknowledged"]
    assert journal.cut_bytes == 100
    journal.close()
    disk.close()


def test_a_process_killed_while_it_writes_and_compacts_keeps_what_it_said(tmp_path):
    code = """
import sys
from pathlib import Path
from raft.disk import OsDisk
from raft.journal import Journal
from raft.members import Members
from raft.snapshot import Snapshot
journal = Journal(OsDisk(Path(sys.argv[1])), "c", "n1", draw_id=lambda: "id-n1")
journal.set_term(journal.term + 1, None)
while True:
    index = journal.last_index + 1
    journal.add(b"%d" % index, index, journal.term)
    if index % 5 == 0:
        journal.set_commit(index)
        journal.compact(Snapshot(index, journal.term, Members(), b"%d" % index), index - 7)
    journal.sync()
    print(index, flush=True)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    said = 1
    for lines in (3, 25, 36):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables) as process:
            for _ in range(lines):
                said = int(process.stdout.readline())
            process.kill()
            said = max([said, *(int(line) for line in process.stdout.read().split(b"\n") if line)])
        disk = OsDisk(tmp_path)
        journal = opened(disk)
        assert journal.last_index >= said
        assert [(command, index) for command, index, _ in entries(journal)] == [
            (b"%d" % index, index) for index in range(journal.first_index, journal.last_index + 1)
        ]
        if journal.snapshot is not None:
            assert journal.snapshot.content == b"%d" % journal.snapshot.index
        journal.close()
        disk.close()
    assert said > 60

"""From what PostgreSQL and its files say to what the rules see."""

from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import Recovered
from appliance.ha.facts import strange
from appliance.ha.seen import DirectoryKind
from appliance.node.observe import directory_seen, identified, instance_seen, upstream_address
from appliance.postgres.control import ControlData, ControlState
from appliance.postgres.directory import Directory
from appliance.postgres.incarnation import NONE, Incarnation, write_incarnation
from appliance.postgres.instance import Known, read_answer
from tests.unit.cluster.building import state
from tests.unit.ha.building import primary

CONTROL = ControlData(
    system_identifier="7423", state=ControlState.IN_PRODUCTION, checkpoint_lsn=100, timeline=2,
    min_recovery_lsn=0, min_recovery_timeline=0, checksums=True, wal_log_hints=False, wal_segment_bytes=1 << 24,
    max_connections=100, max_worker_processes=8, max_wal_senders=10, max_prepared_xacts=0, max_locks_per_xact=64,
)  # fmt: skip
FOUND = Directory(DirectoryKind.CLUSTER, control=CONTROL)
LOOKED = """{"in_recovery": true, "wal_file": null, "flushed_lsn": null, "received_lsn": "0/3000060",
 "replayed_lsn": "0/3000028", "replay_timestamp": null, "replay_pause": "not paused",
 "replay_waits_for": "RecoveryWalStream", "postmaster_start_time": 1700000000.5,
 "primary_conninfo": "user=x host=10.0.0.1 port=5432", "sync_version": null,
 "checkpoint_timeline": 1, "recovery_timeline": 1,
 "receiver": {"status": "streaming", "received_tli": 2}, "walsenders": null, "slots": [
  {"slot_name": "appliance_pg2", "slot_type": "physical", "active": true, "wal_status": "reserved"},
  {"slot_name": "appliance_pg3", "slot_type": "physical", "active": false, "wal_status": "lost"},
  {"slot_name": "backup", "slot_type": "physical", "active": false, "wal_status": null}],
 "conf_load_time": "now", "pending_restart": ["max_connections"]}"""


INC = Incarnation("inc", 7)
LOST = apply(state(), Recovered(7, {})).state


@pytest.mark.parametrize(
    ("written", "was_primary", "shut_down"),
    [
        (ControlState.IN_PRODUCTION, True, False),
        (ControlState.SHUT_DOWN, True, True),
        (ControlState.SHUTTING_DOWN, True, False),
        (ControlState.IN_CRASH_RECOVERY, True, False),
        (ControlState.SHUT_DOWN_IN_RECOVERY, False, True),
        (ControlState.IN_ARCHIVE_RECOVERY, False, False),
        (ControlState.STARTING_UP, False, False),
    ],
)
def test_the_control_file_says_who_wrote_it_last(written, was_primary, shut_down):
    seen = directory_seen(replace(FOUND, control=replace(CONTROL, state=written)), INC, 0)

    assert (seen.was_primary, seen.shut_down) == (was_primary, shut_down)
    assert (seen.system_identifier, seen.checkpoint_lsn, seen.incarnation) == ("7423", 100, "inc")


def test_the_newest_timeline_of_the_control_file_counts():
    """Right after a promotion the last checkpoint is still on the old timeline."""
    promoted = replace(CONTROL, timeline=2, min_recovery_timeline=3)

    assert directory_seen(replace(FOUND, control=promoted), INC, 0).timeline == 3


def test_r13_an_unfinished_rewind_takes_the_incarnation_away():
    seen = directory_seen(replace(FOUND, rewind_unfinished=True), INC, 0)
    assert (seen.incarnation, seen.recovery) == ("", 7), "after which recovery it was written stays (R13a)"


def test_r13a_an_incarnation_that_cannot_be_read_just_now_is_a_problem_and_not_another_history(tmp_path):
    """Else a primary without a file descriptor to spare would be stopped for it."""
    assert identified(FOUND, tmp_path) == (FOUND, NONE)
    write_incarnation(tmp_path, INC)
    assert identified(FOUND, tmp_path) == (FOUND, INC)
    (tmp_path / "appliance.incarnation").unlink()
    (tmp_path / "appliance.incarnation").mkdir()
    seen = directory_seen(*identified(FOUND, tmp_path), 0)
    assert seen.problem == f"{tmp_path}/appliance.incarnation cannot be read: Is a directory"
    assert strange(LOST, replace(primary(), directory=seen)) is None


def test_a_directory_that_cannot_be_read_is_a_problem_and_no_member():
    seen = directory_seen(replace(FOUND, control=None, problem="of PostgreSQL 14"), INC, 99)

    assert (seen.problem, seen.incarnation, seen.system_identifier, seen.stray_pid) == ("of PostgreSQL 14", "", "", 99)


def test_an_answer_of_a_standby():
    answer, _ = read_answer(LOOKED, Known(), 150014)
    seen = instance_seen(answer)

    assert (seen.in_recovery, seen.timeline, seen.checkpoint_timeline) == (True, 2, 1)
    assert (seen.lsn, seen.received_lsn, seen.replayed_lsn) == (0x3000060, 0x3000060, 0x3000028)
    assert (seen.receiver_running, seen.streaming, seen.upstream) == (True, True, "10.0.0.1:5432")
    assert seen.slots == {"appliance_pg2", "appliance_pg3", "backup"}
    assert (seen.idle_slots, seen.lost_slots) == ({"appliance_pg3", "backup"}, {"appliance_pg3"})
    assert seen.pending_restart


def test_a_standby_that_never_received_anything_has_what_it_replayed():
    nothing_received = LOOKED.replace('"received_lsn": "0/3000060"', '"received_lsn": null')
    answer, _ = read_answer(nothing_received.replace('"receiver": {', '"receiver": null, "x": {'), Known(), 150014)
    seen = instance_seen(answer)

    assert (seen.lsn, seen.received_lsn, seen.receiver_running, seen.streaming) == (0x3000028, 0, False, False)
    assert seen.timeline == 1


@pytest.mark.parametrize(
    ("conninfo", "address"),
    [
        ("user=replicator host=10.0.0.1 port=5432 passfile=/x", "10.0.0.1:5432"),
        ("host=fd00::1 port=5433", "[fd00::1]:5433"),
        ("", ""),
        ("host=10.0.0.1", ""),
        ("host=10.0.0.1 port=abc", ""),
        ("nonsense", ""),
    ],
)
def test_the_upstream_is_read_from_our_own_connection_string(conninfo, address):
    assert upstream_address(conninfo) == address

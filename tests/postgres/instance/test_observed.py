"""What the node's observer makes of a real PostgreSQL: checkpoints that fail, files that cannot be read."""

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest

from appliance.cluster.config import Policy
from appliance.cluster.state import Appointment, ClusterState, Config, LeaseStatus, Member, NodeRole, Position
from appliance.ha.seen import Notes, PlaceSeen, StorageSeen
from appliance.ha.storage import Room
from appliance.node.clock import boottime_s
from appliance.node.guard_client import GuardStatus, Postmaster
from appliance.node.observe import LOOK_LIMIT_S, Observer, Signalled
from appliance.postgres.control import ControlState
from appliance.postgres.directory import inspect
from appliance.postgres.monitor import ORDER_LIMIT_S
from appliance.postgres.settings import settings_differ

TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'CHECKPOINT'"
UNINITIALISED = ClusterState()
ME = Member("pg1", NodeRole.DATA, "127.0.0.1:7400", "http://127.0.0.1:8008", "127.0.0.1:5432")


@pytest.fixture
def node(primary):
    return observed(primary)


def observed(primary, probe=None):
    """Its observer, beside a guard that says what a guard would say."""
    postmaster = Postmaster(primary.process.pid, 0.0, primary.data_dir)
    guard = GuardStatus(1, 1, True, postmaster, False, None, None, None, None)
    local = SimpleNamespace(
        log_begin=0,
        monitor=primary.monitor,
        data_dir=primary.data_dir,
        binaries=primary.binaries,
        log_file=primary.root / "log",
        job=None,
        replaced_kept_s=lambda: None,
        told_conninfo=None,
        certificate=lambda: None,
        room=Room(),
        settings_differ=lambda state, policy, source: settings_differ(primary.data_dir, primary.settings),
    )
    signalled = Signalled()
    observer = Observer(ME, local, signalled, probe=probe)

    def look(state=UNINITIALISED):
        return observer.look(state, Policy(), guard, Notes(), None, None, {})

    def checkpoint(operation):
        """As the executor begins one."""
        signalled.checkpoint_operation = operation
        signalled.checkpointing = primary.monitor.checkpoint(20)

    return SimpleNamespace(look=look, checkpoint=checkpoint, signalled=signalled)


class Probe:
    """Says what the test says."""

    def __init__(self, stalled_s):
        self.stalled_s, self.patience_s = stalled_s, 0.0

    def look(self, patience_s):
        self.patience_s = patience_s
        return StorageSeen(PlaceSeen(stalled_s=self.stalled_s))


def test_files_on_a_disk_that_hangs_are_compared_when_it_answers_again(primary):
    """Reading them would wait with it; until then they may differ."""
    probe = Probe(1.1)
    node = observed(primary, probe)
    assert node.look().settings_changed
    probe.stalled_s = 0.0
    assert not node.look().settings_changed
    probe.stalled_s = 1.1
    assert not node.look().settings_changed, "what was compared before still holds"


def test_an_order_that_postgresql_does_not_answer_counts_as_time_that_the_disk_was_watched(primary):
    """Else a disk that keeps every order waiting would never count as hung."""
    probe = Probe(0.0)
    observed(primary, probe).look()
    assert probe.patience_s > LOOK_LIMIT_S + ORDER_LIMIT_S


def test_a_stop_that_only_waits_for_a_hung_standby_shows_and_is_clean_if_it_is_cut_short(primary, member):
    """A walsender waits for wal_sender_timeout; what is written is all there by then."""
    standby = member("pg2")
    assert standby.clone(primary).ok
    standby.follow(primary)
    standby.start(standby=True)
    standby.until(lambda seen: seen.streaming)
    standby.caught_up(primary)
    node = observed(primary)
    receiver = int(standby.value("SELECT pid FROM pg_stat_wal_receiver"))
    os.kill(receiver, signal.SIGSTOP)
    try:
        assert node.look().shut_down_s is None
        node.signalled.stop_s = boottime_s()
        primary.process.send_signal(signal.SIGINT)
        until(node, lambda seen: seen.shut_down_s is not None and seen.shut_down_s > 0.5)
        assert primary.process.poll() is None
        primary.crash()
    finally:
        os.kill(receiver, signal.SIGCONT)
    assert inspect(primary.data_dir, primary.binaries).control.state is ControlState.SHUT_DOWN


def until(node, claim, limit_s=10.0):
    until_s = time.monotonic() + limit_s
    while not claim(seen := node.look()):
        assert time.monotonic() < until_s, seen
        time.sleep(0.02)
    return seen


@contextmanager
def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_checkpoint_that_failed_was_not_made_and_another_one_may_be(primary, node):
    with stopped(int(primary.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))):
        node.checkpoint("op1")
        assert node.look().checkpointing
        until(node, lambda seen: primary.sql(TERMINATE) != [])
        seen = until(node, lambda seen: not seen.checkpointing)
    assert seen.checkpointed_operation == ""
    assert "terminating connection" in seen.failed_checkpoint.error
    assert seen.failed_checkpoint.seconds < 1.0

    node.checkpoint("op1")
    seen = until(node, lambda seen: not seen.checkpointing)
    assert (seen.checkpointed_operation, seen.failed_checkpoint) == ("op1", None)


def test_t2_a_detached_standby_votes_on_the_timeline_of_its_wal(pair, member):
    """Its receiver went over to the new timeline; until the next restartpoint the control file names the old one."""
    primary, standby = pair
    third = member("pg3")
    assert third.clone(primary).ok
    third.follow(primary)
    third.start(standby=True)
    primary.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    for one in (standby, third):
        one.caught_up(primary)
    primary.crash()
    standby.promote(4)
    third.follow(standby)
    third.reload()
    third.until(lambda seen: seen.streaming and seen.timeline == 4)
    standby.sql("INSERT INTO public.t VALUES (2)")
    end = third.caught_up(standby).position_lsn
    third.follow(None)
    third.reload()
    node = observed(third)
    # Between the receiver's end and its next wait recovery looks through archive and pg_wal: no vote in that moment.
    seen = until(node, lambda seen: not seen.instance.receiver_running and seen.instance.replay_waits)

    assert seen.instance.checkpoint_timeline == 1
    assert (seen.instance.timeline, seen.instance.lsn) == (4, end)


def test_t2_recovery_waits_for_more_only_when_all_local_wal_is_replayed(pair):
    primary, standby = pair
    standby.sql("SELECT pg_wal_replay_pause()")
    standby.until(lambda seen: seen.replay_paused)
    primary.sql("CREATE TABLE public.t AS SELECT generate_series(1, 1000) AS id")
    end = primary.seen().flushed_lsn
    standby.until(lambda seen: seen.received_lsn >= end)
    node = observed(standby)
    seen = node.look().instance
    assert seen.replayed_lsn < end <= seen.received_lsn == seen.lsn
    assert not seen.replay_waits
    standby.sql("SELECT pg_wal_replay_resume()")
    seen = until(node, lambda seen: seen.instance.replay_waits).instance

    assert seen.replayed_lsn == seen.lsn >= end


def test_settings_that_cannot_be_rendered_are_to_be_applied_which_says_why(primary, node):
    assert not node.look().settings_changed
    primary.settings = replace(primary.settings, parameters={"work mem": "1MB"})

    assert node.look(replace(UNINITIALISED, config=Config(1))).settings_changed


@pytest.mark.parametrize("content", ["garbage\n", "1\t0/"])
def test_a_history_that_cannot_be_read_is_not_known(primary, node, content):
    (primary.data_dir / "pg_wal" / "00000002.history").write_text(content)
    mine = Appointment(2, "pg1", "", 2, Position(1, 0))

    assert node.look(replace(UNINITIALISED, appointment=mine, lease=LeaseStatus.HELD)).switch == {}

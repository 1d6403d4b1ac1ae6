"""A diverged primary comes back by pg_rewind, or the job says that only a clone helps (safety R12, R15)."""

import signal
import time
from dataclasses import replace

from appliance.ha.history import Standing
from appliance.postgres.control import ControlState
from appliance.postgres.credentials import REWIND_ROLE
from appliance.postgres.directory import inspect, processes_in, rewind_mark
from appliance.postgres.history import place_placeholders, read_history, remove_placeholders_above_real
from appliance.postgres.incarnation import read_incarnation
from appliance.postgres.settings import write_standby_signal
from appliance.postgres.specs import Rewind
from tests.postgres.instance.histories import stands


def failed_over(primary, standby, timeline=3):
    """The primary has WAL that nobody else has, and died; the standby is the new primary, checkpoint done."""
    left_behind(standby, primary)
    standby.promote(timeline)
    assert standby.value("SELECT to_regclass('public.lost')") is None
    standby.sql("CREATE TABLE public.kept AS SELECT 1 AS id")
    standby.monitor.checkpoint(limit_s=20)
    standby.until(lambda seen: seen.checkpoint_timeline == timeline)


def left_behind(standby, primary):
    """The standby takes no more WAL, and then the primary writes some. A clone can have caught up before its receiver
    starts, and one that is not there yet would pass for one that has ended."""
    standby.until(lambda seen: seen.streaming)
    standby.caught_up(primary)
    standby.follow(None)
    standby.reload()
    standby.until(lambda seen: seen.receiver is None)
    primary.sql("CREATE TABLE public.lost AS SELECT 1 AS id")


def rejoins(one, source):
    one.follow(source)
    one.start(standby=True)
    one.until(lambda seen: seen.streaming)
    one.caught_up(source)
    assert one.value("SELECT count(*) FROM public.kept") == "1"
    assert one.value("SELECT to_regclass('public.lost')") is None


def test_r14_a_crashed_primary_whose_recovery_as_a_standby_was_interrupted_just_follows(primary, member):
    """Its control file says "in crash recovery", as a primary's does; where its WAL ends shows when it is recovered."""
    standby = member("pg2")
    assert standby.clone(primary).ok
    standby.follow(primary)
    standby.start(standby=True)
    primary.sql("CREATE TABLE public.kept AS SELECT g AS id FROM generate_series(1, 300000) AS g")
    standby.caught_up(primary)
    primary.crash()
    standby.promote(3)
    before = stands(primary, standby, 3)
    primary.follow(None)
    primary.start(standby=True, wait=False)
    control = lambda: inspect(primary.data_dir, primary.binaries, stopping=True).control  # noqa: E731
    until_s = time.monotonic() + 10
    while control().state is not ControlState.IN_CRASH_RECOVERY:
        assert time.monotonic() < until_s
    primary.stop(signal.SIGKILL)
    assert control().state is ControlState.IN_CRASH_RECOVERY, "it was not interrupted"

    assert before is Standing.DIVERGED, "nobody knows better, and a rewind finds out"
    assert stands(primary, standby, 3) is Standing.ANCESTOR
    primary.follow(standby)
    primary.start(standby=True)
    primary.until(lambda seen: seen.streaming)
    primary.caught_up(standby)
    assert primary.value("SELECT count(*) FROM public.kept") == "300000"


def test_r15_a_crashed_primary_with_a_table_of_its_own_rejoins(primary, member, root):
    space, wal_dir = root / "space", root / "wal"
    space.mkdir()
    wal_dir.mkdir()
    primary.sql(f"CREATE TABLESPACE s LOCATION '{space}'")
    primary.sql("CREATE TABLE public.spaced TABLESPACE s AS SELECT 1 AS id")
    standby = member("pg2", wal_dir=wal_dir)
    primary.monitor.create_slot("pg2")
    assert standby.clone(primary, slot="pg2").ok
    standby.follow(primary, slot="pg2")
    standby.start(standby=True)
    failed_over(primary, standby)
    primary.sql("INSERT INTO public.spaced VALUES (2)")
    link = next((primary.data_dir / "pg_tblspc").iterdir()).readlink()
    primary.crash()
    job = primary.rewind(standby, 3)
    assert job.ok, job
    assert read_incarnation(primary.data_dir).id == "pg1 rewound", "neither its own nor its source's (R13)"
    assert not rewind_mark(primary.data_dir).exists()
    assert inspect(primary.data_dir, primary.binaries).standby_signal
    assert next((primary.data_dir / "pg_tblspc").iterdir()).readlink() == link
    rejoins(primary, standby)
    assert primary.value("SELECT count(*) FROM public.spaced") == "1"
    assert primary.value("SELECT count(*) FROM pg_replication_slots") == "0"
    assert primary.value("SHOW cluster_name") == "pg1", "its own settings are rendered again"

    # and back: the node with the separate WAL directory is rewound
    failed_over_back(primary, standby)
    link = (standby.data_dir / "pg_wal").readlink()
    standby.crash()
    job = standby.rewind(primary, 4)
    assert job.ok, job
    assert (standby.data_dir / "pg_wal").readlink() == link
    rejoins(standby, primary)


def failed_over_back(standby, primary):
    left_behind(standby, primary)
    standby.promote(4)
    standby.monitor.checkpoint(limit_s=20)
    standby.until(lambda seen: seen.checkpoint_timeline == 4)


def test_a_crashed_primary_that_was_to_start_as_a_standby_rejoins(pair):
    """Its node died between writing standby.signal and the start."""
    primary, standby = pair
    failed_over(primary, standby)
    primary.crash()
    write_standby_signal(primary.data_dir)
    standby.stop()
    job = primary.rewind(standby, 3)
    assert not job.ok
    assert inspect(primary.data_dir, primary.binaries).standby_signal
    standby.start()
    job = primary.rewind(standby, 3)
    assert job.ok, job
    rejoins(primary, standby)


def test_a_standby_that_got_more_than_the_new_primary_rejoins(pair, member):
    primary, ahead = pair
    behind = member("pg3")
    assert behind.clone(primary).ok
    behind.follow(None)
    behind.start(standby=True)
    primary.sql("CREATE TABLE public.lost AS SELECT 1 AS id")
    ahead.caught_up(primary)
    primary.crash()
    behind.promote(2)
    behind.sql("CREATE TABLE public.kept AS SELECT 1 AS id")
    behind.monitor.checkpoint(limit_s=20)
    behind.until(lambda seen: seen.checkpoint_timeline == 2)
    (switch,) = read_history(behind.data_dir / "pg_wal", 2)
    assert ahead.seen().position_lsn > switch.switch_lsn
    ahead.follow(behind)
    ahead.reload()
    time.sleep(1)
    # Its receiver comes and goes, and may say "streaming" in between: what counts is that nothing arrives.
    assert ahead.seen().timeline == 1, "PostgreSQL itself does not let it follow"
    assert ahead.sql("SELECT to_regclass('public.kept') IS NULL, to_regclass('public.lost') IS NOT NULL") == [
        ["t", "t"]
    ]
    ahead.stop()
    job = ahead.rewind(behind, 2)
    assert job.ok, job
    rejoins(ahead, behind)


def test_nothing_is_rewound_where_nothing_diverged(pair):
    primary, standby = pair
    primary.sql("CREATE TABLE public.kept AS SELECT 1 AS id")
    standby.caught_up(primary)
    primary.stop()  # a clean shutdown sends everything, its last checkpoint included
    standby.promote(2)
    standby.monitor.checkpoint(limit_s=20)
    standby.until(lambda seen: seen.checkpoint_timeline == 2)
    job = primary.rewind(standby, 2)
    assert job.ok, job
    rejoins(primary, standby)


def test_r15_missing_wal_means_that_only_a_clone_helps(pair):
    primary, standby = pair
    failed_over(primary, standby)
    primary.stop()
    for path in (primary.data_dir / "pg_wal").glob("0000000*"):
        if path.is_file():
            path.unlink()
    job = primary.rewind(standby, 3)
    assert not job.ok
    assert job.needs_clone
    assert "pg_rewind ended with 1" in job.error
    job = primary.clone(standby)
    assert job.ok, job
    rejoins(primary, standby)


def test_r15_wal_that_the_source_has_no_more_means_that_only_a_clone_helps(pair):
    """pg_rewind itself is content, and the directory would never become consistent."""
    primary, standby = pair
    failed_over(primary, standby)
    primary.crash()
    standby.settings = replace(standby.settings, parameters={**standby.settings.parameters, "wal_keep_size": "0"})
    standby.reload()
    for _ in range(3):
        standby.sql("CREATE TABLE public.more AS SELECT 1 AS id")
        standby.sql("DROP TABLE public.more")
        standby.sql("SELECT pg_switch_wal()")
        standby.sql("CHECKPOINT")
    job = primary.rewind(standby, 3)
    assert not job.ok
    assert job.needs_clone
    assert "what the source has begins at" in job.error
    assert inspect(primary.data_dir, primary.binaries).rewind_unfinished
    assert primary.clone(standby).ok
    rejoins(primary, standby)


def test_a_rewind_that_was_killed_while_it_wrote_leaves_a_mark(pair):
    primary, standby = pair
    failed_over(primary, standby)
    primary.crash()
    rewind_mark(primary.data_dir).write_text("")
    assert inspect(primary.data_dir, primary.binaries).rewind_unfinished
    job = primary.rewind(standby, 3)
    assert not job.ok
    assert job.needs_clone
    assert primary.clone(standby).ok
    assert not inspect(primary.data_dir, primary.binaries).rewind_unfinished


def test_a_rewind_that_is_killed_under_way_is_not_started_but_cloned(pair):
    primary, standby = pair
    failed_over(primary, standby)
    primary.crash()
    database = standby.conninfo(REWIND_ROLE, primary, dbname="postgres")
    job = primary.job(Rewind(primary.binaries, primary.data_dir, database, 3))
    while not rewind_mark(primary.data_dir).exists():
        time.sleep(0.001)
    job.kill()
    seen = job.look()
    assert seen.ok is False
    assert "signal 9" in seen.error
    assert inspect(primary.data_dir, primary.binaries).rewind_unfinished
    assert processes_in(primary.data_dir) == []
    assert primary.clone(standby).ok
    rejoins(primary, standby)


def test_an_unreachable_source_is_no_reason_for_a_clone(pair):
    primary, standby = pair
    failed_over(primary, standby)
    primary.crash()
    standby.stop()
    job = primary.rewind(standby, 3)
    assert not job.ok
    assert not job.needs_clone
    assert "connection to server" in job.error
    assert not inspect(primary.data_dir, primary.binaries).rewind_unfinished


def test_another_cluster_is_no_source(primary, member):
    stranger = member("other")
    assert stranger.initialise().ok
    stranger.start()
    primary.stop()
    job = primary.rewind(stranger, 1)
    assert not job.ok
    assert job.needs_clone
    assert "different systems" in job.error
    assert not inspect(primary.data_dir, primary.binaries).rewind_unfinished


def test_an_interrupted_standby_must_be_shut_down_first(pair):
    primary, standby = pair
    standby.crash()
    job = standby.rewind(primary, 1)
    assert not job.ok
    assert not job.needs_clone
    assert "was not shut down" in job.error


def test_a_running_directory_is_refused(pair):
    primary, standby = pair
    job = standby.rewind(primary, 1)
    assert not job.ok
    assert "in use by the postmaster" in job.error


def test_placeholders_of_a_promotion_that_never_was_do_not_disturb_a_rewind(pair):
    primary, standby = pair
    failed_over(primary, standby, timeline=2)
    primary.stop(signal.SIGQUIT)
    place_placeholders(primary.data_dir / "pg_wal", 1, 9)
    job = primary.rewind(standby, 2)
    assert job.ok, job
    rejoins(primary, standby)
    assert remove_placeholders_above_real(primary.data_dir / "pg_wal") == ()

"""Which walsender counts, by which set, and from when on (R8), on each installed release of PostgreSQL."""

import os
import signal
import time

import pytest

from appliance.postgres.settings import NOBODY
from tests.postgres.instance.commits import (
    Commit,
    acknowledged,
    any_of,
    checkpointed,
    load,
    process_of,
    sender,
    stopped,
    table,
    walsender_pid,
    write,
)

COUNT = "SELECT count(*) FROM public.t"


@pytest.fixture
def primary(copies):
    one = copies("pg1")
    one.start()
    table(one)
    return one


@pytest.fixture
def standby_of(primary, copies):
    """Starts standbys of it that stream."""

    def start(name, **more):
        one = copies(name, **more)
        one.follow(primary)
        write(one, 0, NOBODY)
        one.start(standby=True)
        one.until(lambda seen: seen.streaming)
        one.caught_up(primary)
        return one

    return start


def priority(primary, standby):
    return sender(primary.seen(), standby).sync_priority


def test_a_walsender_that_has_not_loaded_the_new_set_counts_by_the_old_one(primary, standby_of):
    """T5: k 2 -> 1 with S {pg2, pg3} -> {pg2}. pg3 alone confirms, by the k of pg2's walsender and the S of its own."""
    two, three = standby_of("pg2", parameters={"wal_receiver_status_interval": "1"}), standby_of("pg3")
    load(primary, 1, any_of(2, two, three))
    checkpointed(primary)
    with stopped(walsender_pid(primary, two)):
        waiting = Commit(primary).waits()
        acknowledged(primary, three, primary.monitor.mark_wal())
        time.sleep(1.2)  # pg2 says again what it has, and its walsender will read it after the reload
        receiver, old = process_of(two, "walreceiver"), walsender_pid(primary, three)
        os.kill(receiver, signal.SIGSTOP)
        os.kill(old, signal.SIGSTOP)
        load(primary, 2, any_of(1, two))
        waiting.waits()
    try:
        assert waiting.ends() < 1
        assert (two.value(COUNT), three.value(COUNT)) == ("0", "1")
        assert priority(primary, three) == 1
        assert sender(primary.seen(), three).flushed_lsn < primary.monitor.mark_wal()
    finally:
        os.kill(old, signal.SIGCONT)
        os.kill(receiver, signal.SIGCONT)


def test_a_walsender_that_has_acknowledged_a_mark_counts_by_the_new_set(primary, standby_of):
    """R8 (b)."""
    two, three = standby_of("pg2"), standby_of("pg3")
    load(primary, 1, any_of(1, two, three))
    checkpointed(primary)
    old = walsender_pid(primary, three)
    with stopped(process_of(two, "walreceiver")):
        assert Commit(primary).ends() < 1
        with stopped(old):
            load(primary, 2, any_of(1, two))
            mark_lsn = primary.monitor.mark_wal()
            time.sleep(0.2)
            seen = sender(primary.seen(), three)
            assert seen.sync_priority == 1
            assert seen.flushed_lsn < mark_lsn
        acknowledged(primary, three, mark_lsn)
        waiting = Commit(primary).waits()
    assert waiting.ends() < 1
    assert (walsender_pid(primary, three), priority(primary, three)) == (old, 0)


def test_a_reload_alone_ends_no_wait_a_mark_does(primary, standby_of):
    """A walsender counts anew only when its standby says something, after 10 s if nothing is written."""
    two = standby_of("pg2")
    load(primary, 1, any_of(2, two, "pg3"))
    checkpointed(primary)
    waiting = Commit(primary).waits()
    load(primary, 2, any_of(1, two))
    primary.until(lambda seen: sender(seen, two).sync_priority == 1)
    waiting.waits()
    primary.monitor.mark_wal()
    assert waiting.ends() < 1


def test_what_has_acknowledged_a_mark_counts_by_the_set_that_was_shown_before_it(primary, standby_of):
    """R8 (b), in both directions, many times: never once does the mark come back before the set is in force."""
    two, three = standby_of("pg2"), standby_of("pg3")
    load(primary, 1, any_of(1, two))
    checkpointed(primary)
    for version in range(2, 32):
        listed = two if version % 2 else three
        load(primary, version, any_of(1, listed))
        mark_lsn = primary.monitor.mark_wal()
        for standby in (two, three):
            seen = acknowledged(primary, standby, mark_lsn)
            assert sender(seen, standby).sync_priority == (standby is listed)
        with stopped(process_of(listed, "walreceiver")):
            if version > 29:
                Commit(primary).waits()


def test_how_long_a_change_takes(primary, standby_of, measured):
    standbys = standby_of("pg2"), standby_of("pg3")
    load(primary, 1, any_of(1, *standbys))
    for version in range(2, 12):
        began_s = time.monotonic()
        load(primary, version, any_of(1 + version % 2, *standbys))
        shown_s = time.monotonic()
        mark_lsn = primary.monitor.mark_wal()
        marked_s = time.monotonic()
        while any(sender(primary.seen(), standby).flushed_lsn < mark_lsn for standby in standbys):
            pass
        ended_s = time.monotonic()
        measured("from the reload until a new connection shows it", shown_s - began_s)
        measured("to mark the WAL", marked_s - shown_s)
        measured("until both have acknowledged it", ended_s - marked_s)
        measured("in all", ended_s - began_s)


def test_a_walsender_that_is_ended_comes_again_with_the_new_set(primary, standby_of):
    three = standby_of("PG-3.x")
    load(primary, 1, any_of(1, three))
    old = walsender_pid(primary, three)
    with stopped(old):
        load(primary, 2, any_of(1, "pg2"))
        primary.monitor.end_walsenders("pg-3.X")
        time.sleep(0.2)
        assert walsender_pid(primary, three) == old, "one that hangs is still there, so R8 still waits for it"
        assert priority(primary, three) == 1
    others = "SELECT pid FROM pg_stat_replication WHERE pid <> $1::int AND flush_lsn IS NOT NULL"
    primary.until(lambda seen: len(seen.walsenders) == 1 and primary.sql(others, str(old)))
    assert priority(primary, three) == 0

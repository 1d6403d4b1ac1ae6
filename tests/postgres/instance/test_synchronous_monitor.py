"""The node's own connection where commits wait, and what it takes for a loaded set, on each installed release."""

import time

import pytest

from appliance.postgres.auto_conf import foreign_auto_conf
from appliance.postgres.errors import PostgresError
from appliance.postgres.instance import UNKNOWN_SYNC_VERSION
from appliance.postgres.monitor import Monitor
from appliance.postgres.settings import CONTROLLED, NOBODY, settings_differ, write_settings
from tests.postgres.instance.commits import Commit, any_of, checkpointed, load, sender, stopped, table, write


@pytest.fixture
def primary(copies):
    """Nobody can confirm its commits."""
    one = copies("pg1")
    write(one, 1, any_of(1, "pg2"))
    one.start()
    table(one)
    return one


def test_nothing_that_the_node_does_waits_for_a_standby(primary):
    for setting in ("synchronous_commit = remote_apply", "default_transaction_read_only = on"):
        primary.sql(f"ALTER ROLE postgres SET {setting}")
        primary.sql(f"ALTER DATABASE postgres SET {setting}")
    Commit(primary, default_transaction_read_only="off").waits()
    monitor, began_s = Monitor(primary.root, primary.port), time.monotonic()
    try:
        assert monitor.look(1)
        monitor.create_slot("pg2")
        assert monitor.shown_sync_version() == 1
        first, second = monitor.mark_wal(), monitor.mark_wal()
        assert first < second <= monitor.look(1).flushed_lsn
        monitor.end_walsenders("pg2")
        monitor.drop_slot("pg2")
        assert monitor.checkpoint(10, twice=True)
        while monitor.checkpointing:
            time.sleep(0.005)
        assert monitor.checkpoint_error is None
    finally:
        monitor.close()
    assert time.monotonic() - began_s < 2


@pytest.mark.parametrize(("twice", "checkpoints"), [(False, 1), (True, 2)])
def test_a_checkpoint_is_made_twice_for_what_was_loaded_to_be_in_force(primary, twice, checkpoints):
    """R8 (a)."""
    primary.sql("ALTER SYSTEM SET log_checkpoints = on")
    load(primary, 2, NOBODY)
    before = primary.log().count("checkpoint complete")
    assert primary.monitor.checkpoint(20, twice=twice)
    while primary.monitor.checkpointing:
        time.sleep(0.005)
    assert primary.monitor.checkpoint_error is None
    assert primary.log().count("checkpoint complete") - before == checkpoints


def test_a_mark_cannot_be_made_on_a_standby(primary, copies):
    standby = copies("pg2")
    standby.follow(primary)
    standby.start(standby=True)
    with pytest.raises(PostgresError, match="recovery"):
        standby.monitor.mark_wal()


def test_a_walsender_has_flushed_nothing_until_its_standby_says_so(primary, copies):
    standby = copies("pg2")
    standby.follow(primary)
    standby.start(standby=True)
    primary.until(lambda seen: seen.walsenders and sender(seen, standby).flushed_lsn >= seen.flushed_lsn)
    with stopped(int(standby.value("SELECT pid FROM pg_stat_wal_receiver"))):
        mark_lsn = primary.monitor.mark_wal()
        time.sleep(0.2)
        assert 0 < sender(primary.seen(), standby).flushed_lsn < mark_lsn
    primary.until(lambda seen: sender(seen, standby).flushed_lsn >= mark_lsn)


def shown(member):
    """By a new connection, and by the one that looks."""
    assert member.monitor.shown_sync_version() == member.seen().sync_version
    return member.seen().sync_version


def reloaded(member):
    before = member.value("SELECT pg_conf_load_time()")
    member.sql("SELECT pg_reload_conf()")
    member.until(lambda seen: member.value("SELECT pg_conf_load_time()") != before)


def test_a_set_that_alter_system_wins_over_is_not_loaded_and_a_reload_by_the_node_ends_that(primary):
    assert shown(primary) == 1
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = ''")
    primary.sql("ALTER SYSTEM SET work_mem = '5MB'")
    reloaded(primary)
    assert shown(primary) == UNKNOWN_SYNC_VERSION
    assert settings_differ(primary.data_dir, primary.settings)
    assert write_settings(primary.data_dir, primary.settings)
    assert not settings_differ(primary.data_dir, primary.settings)
    reloaded(primary)
    assert shown(primary) == 1
    assert foreign_auto_conf(primary.data_dir, CONTROLLED) == {}
    assert primary.value("SHOW work_mem") == "5MB"
    checkpointed(primary)
    Commit(primary).waits()


def test_names_that_postgresql_refuses_are_not_taken_for_loaded(primary):
    """The reload takes every other value all the same, the version too."""
    write(primary, 2, "ANY 1 ()")
    primary.reload()
    primary.until(lambda seen: primary.value("SHOW appliance.sync_version") == "2")
    assert primary.value("SHOW synchronous_standby_names") == any_of(1, "pg2")
    assert shown(primary) == UNKNOWN_SYNC_VERSION


def test_a_version_that_somebody_gave_a_role_is_none_of_a_loaded_set(primary):
    primary.sql("ALTER ROLE postgres SET appliance.sync_version = 'mine'")
    primary.monitor.close()
    assert shown(primary) == UNKNOWN_SYNC_VERSION


def test_what_is_shown_comes_from_a_new_connection(primary):
    """R8: only that was begun after every other process had been told to load."""
    primary.sql("SET appliance.sync_version = 9")
    assert primary.seen().sync_version == 9
    assert primary.monitor.shown_sync_version() == 1


def test_where_the_appliance_wrote_nothing_no_set_is_loaded(copies):
    one = copies("pg1")
    one.start()
    assert shown(one) == 0
    (one.data_dir / "appliance.conf").write_text("")
    one.process.send_signal(1)
    one.until(lambda seen: seen.sync_version == UNKNOWN_SYNC_VERSION)

"""Standbys whose primary told them its timeline and was lost: what their files hide, what they wait for (R6, R14)."""

import time
from types import SimpleNamespace

from appliance.cluster.config import Policy
from appliance.cluster.lsn import format_lsn
from appliance.cluster.state import ClusterState
from appliance.node.config import NodeConfig
from appliance.node.local import LocalPostgres
from appliance.postgres.history import history_path, read_history, settle_history
from appliance.postgres.segments import segment_name, timeline_at
from appliance.postgres.shadows import remove_shadows
from tests.postgres.instance.test_follow import standby_of
from tests.postgres.instance.test_observed import observed

SEGMENT = 16 << 20
SENT_AT_ONCE = 128 << 10
"""MAX_SEND_SIZE in walsender.c"""


def told_of(standby, timeline, parent, lsn):
    text = f"{parent}\t{format_lsn(lsn)}\tno recovery target specified\n"
    history_path(standby.data_dir / "pg_wal", timeline).write_text(text)


def shadowed(primary, standby, rows=20_000):
    """All that the standby has flushed, and a primary of timeline 2 that sent it the beginning of the last segment."""
    primary.sql("SELECT pg_switch_wal()")
    primary.sql("CHECKPOINT")
    primary.sql("CREATE TABLE public.t AS SELECT id, repeat('x', 20) FROM generate_series(1, $1::int) AS id", str(rows))
    end = standby.caught_up(primary).position_lsn
    primary.crash()
    standby.crash()
    wal_dir = standby.data_dir / "pg_wal"
    whole = wal_dir / segment_name(1, end, SEGMENT)
    assert end % SEGMENT > 2 * SENT_AT_ONCE
    told_of(standby, 2, 1, end)
    shadow = wal_dir / segment_name(2, end, SEGMENT)
    shadow.write_bytes(whole.read_bytes()[:SENT_AT_ONCE] + bytes(SEGMENT - SENT_AT_ONCE))
    standby.follow(None)
    return end, shadow


def test_r6_a_shadow_hides_what_a_standby_has_flushed_until_it_is_removed(pair):
    """The first part is about PostgreSQL: were it to read the older file too, nothing would have to be removed."""
    primary, standby = pair
    end, shadow = shadowed(primary, standby)
    wal_dir = standby.data_dir / "pg_wal"
    standby.start(standby=True)
    short = standby.until(lambda seen: seen.replay_waits)
    assert short.replayed_lsn <= end // SEGMENT * SEGMENT + SENT_AT_ONCE
    standby.crash()

    assert timeline_at(wal_dir, end, SEGMENT) == 1
    assert remove_shadows(wal_dir) == (shadow.name,)
    assert timeline_at(wal_dir, end, SEGMENT) == 1
    standby.start(standby=True)
    standby.until(lambda seen: seen.replay_waits and seen.replayed_lsn >= end)
    standby.promote(3)
    assert standby.value("SELECT count(*) FROM public.t") == "20000"


def test_r14_a_standby_that_never_came_to_its_target_names_it_as_its_parent(pair):
    """PostgreSQL's own doing (writeTimeLineHistory): so the earliest switch is where two timelines part (R14)."""
    primary, standby = pair
    end = standby.caught_up(primary).position_lsn
    primary.crash()
    standby.stop()
    told_of(standby, 2, 1, end + 5 * SEGMENT)
    standby.follow(None)
    standby.start(standby=True)
    standby.until(lambda seen: seen.replay_waits)
    standby.promote(3)
    first, second = read_history(standby.data_dir / "pg_wal", 3)
    assert (first.timeline, second.timeline) == (1, 2)
    assert second.switch_lsn <= end + 100 < first.switch_lsn


def test_r6_where_wal_ends_with_a_switch_of_segments_it_is_of_the_timeline_that_switched(pair, member):
    """The rest of the segment is nothing but zeros, page headers too."""
    primary, second = pair
    third = standby_of(member, "pg3", primary)
    third.caught_up(primary)
    primary.crash()
    second.promote(3)
    third.follow(second)
    third.reload()
    second.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    second.sql("SELECT pg_switch_wal()")
    third.caught_up(second)
    end = second.seen().flushed_lsn
    third.follow(None)
    third.reload()
    seen = third.until(lambda seen: seen.receiver is None and seen.replay_waits)
    assert (seen.position_lsn, end % SEGMENT) == (end, 0)
    assert timeline_at(third.data_dir / "pg_wal", end, SEGMENT) == 3


def test_r6_the_node_removes_shadows_whenever_it_starts_postgresql(pair):
    primary, standby = pair
    _, shadow = shadowed(primary, standby)
    listen = f"127.0.0.1:{standby.port}"
    places = {"listen": listen, "data_dir": str(standby.data_dir), "socket_dir": str(standby.root)}
    config = NodeConfig.read(
        {
            "name": standby.name,
            "cluster": "c",
            "members": {standby.name: "127.0.0.1:7400"},
            "state_dir": str(standby.root),
            "postgresql": {**places, "parameters": {"shared_buffers": "16MB"}},
        }
    )
    there = []
    guard = SimpleNamespace(
        clean=lambda data_dir: None, start_postgres=lambda *_, **__: there.append((shadow.exists(), whole.exists()))
    )
    whole = shadow.with_name(f"00000001{shadow.name[8:]}")
    local = LocalPostgres(config, standby.binaries, guard, standby.monitor)
    local.start_standby(ClusterState(), Policy(), "")
    assert there == [(False, True)]


def test_r14_a_standby_that_waits_for_a_dead_timeline_streams_when_it_is_started_anew(primary, member):
    """It was told of timeline 2, and 3 left 1. The first part is about PostgreSQL: a running one never gets over it."""
    second, third = standby_of(member, "pg2", primary), standby_of(member, "pg3", primary)
    for one in (second, third):
        one.caught_up(primary)
    primary.crash()
    second.stop()
    told_of(second, 2, 1, third.seen().position_lsn)
    second.follow(None)
    second.start(standby=True)
    second.until(lambda seen: seen.replay_waits)
    third.promote(3)
    third.sql("CREATE TABLE public.t AS SELECT 1 AS id")

    second.follow(third)
    second.reload()
    node = observed(second)
    until_s = time.monotonic() + 4.5
    while time.monotonic() < until_s:
        seen = node.look().instance
        assert not seen.streaming
        time.sleep(0.1)
    assert seen.silent_s > 4
    assert seen.histories == {2, 3}
    assert (seen.timeline, seen.replay_waits) == (1, True)
    assert "is not a child of database system timeline" in second.log()

    second.stop()
    second.start(standby=True)
    second.until(lambda seen: seen.streaming)
    second.caught_up(third)
    assert second.value("SELECT count(*) FROM public.t") == "1"
    seen = node.look().instance
    assert (seen.silent_s, seen.histories) == (0.0, frozenset())


def test_r14_a_history_is_mended_before_anybody_follows_who_could_not(primary, member):
    """The new primary was told of timeline 2 and has no WAL of it: PostgreSQL looks for the end of 1 in a file of 2."""
    second, third = standby_of(member, "pg2", primary), standby_of(member, "pg3", primary)
    third.caught_up(primary)
    third.follow(None)
    third.reload()
    third.until(lambda seen: seen.receiver is None)
    primary.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    end = second.caught_up(primary).position_lsn
    primary.crash()
    second.stop()
    told_of(second, 2, 1, end)
    second.follow(None)
    second.start(standby=True)
    second.until(lambda seen: seen.replay_waits)
    second.promote(3)
    wal_dir = second.data_dir / "pg_wal"
    assert [switch.timeline for switch in read_history(wal_dir, 3)] == [1, 2]

    third.follow(second)
    third.reload()
    time.sleep(2)
    assert not third.seen().streaming
    assert "has already been removed" in third.log()
    third.follow(None)
    third.reload()
    settle_history(wal_dir, 3)
    assert [switch.timeline for switch in read_history(wal_dir, 3)] == [1]
    third.stop()
    third.start(standby=True)
    third.follow(second)
    third.reload()
    third.until(lambda seen: seen.streaming)
    third.caught_up(second)
    assert third.value("SELECT count(*) FROM public.t") == "1"

"""Following another primary by reload, and promotions onto assigned timelines (safety R6, R14)."""

import time

from appliance.postgres.history import history_path, place_placeholders, read_history

SENDER = "SELECT max(sender_port) FROM pg_stat_wal_receiver"


def standby_of(member, name, source):
    one = member(name)
    assert one.clone(source).ok
    one.follow(source)
    one.start(standby=True)
    one.until(lambda seen: seen.streaming)
    return one


def follows(one, source) -> float:
    """Seconds from the reload until it streams from `source`."""
    began_s = time.monotonic()
    one.follow(source)
    one.reload()
    one.until(lambda seen: seen.streaming and one.value(SENDER) == str(source.port))
    return time.monotonic() - began_s


def test_a_promotion_takes_the_assigned_timeline_and_standbys_and_cascades_follow(primary, member):
    second, third = standby_of(member, "pg2", primary), standby_of(member, "pg3", primary)
    cascade = standby_of(member, "pg4", third)
    primary.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    for one in (second, third, cascade):
        one.caught_up(primary)
    primary.crash()

    second.promote(4)
    seen = second.seen()
    assert (seen.in_recovery, seen.timeline) == (False, 4)
    assert follows(third, second) < 1.5
    second.sql("INSERT INTO public.t VALUES (2)")
    for one in (third, cascade):
        one.caught_up(second)
        assert one.value("SELECT count(*) FROM public.t") == "2"
        assert one.seen().timeline == 4
    assert [switch.timeline for switch in read_history(third.data_dir / "pg_wal", 4)] == [1]

    for one in (third, cascade):
        one.stop()
        one.start(standby=True)
        one.until(lambda seen: seen.streaming)

    second.crash()
    third.promote(5)  # the next number needs no placeholder, only what is there
    assert third.seen().timeline == 5
    follows(cascade, third)
    third.sql("INSERT INTO public.t VALUES (3)")
    cascade.caught_up(third)
    assert cascade.seen().timeline == 5


def test_a_clone_without_the_old_histories_has_all_of_them_when_it_opens(primary, member):
    second = standby_of(member, "pg2", primary)
    second.caught_up(primary)
    primary.crash()
    second.promote(3)
    clone, third = standby_of(member, "pg3", second), standby_of(member, "pg4", second)
    wal_dir = clone.data_dir / "pg_wal"
    assert not history_path(wal_dir, 2).exists()
    for one in (clone, third):
        one.caught_up(second)
    second.crash()
    clone.promote(6)
    assert clone.seen().timeline == 6
    assert all(history_path(wal_dir, number).exists() for number in range(2, 7))
    assert [switch.timeline for switch in read_history(wal_dir, 6)] == [1, 3]
    follows(third, clone)
    clone.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    third.caught_up(clone)
    assert third.seen().timeline == 6


def test_t12_a_primary_keeps_its_placeholders_and_whoever_is_on_an_older_timeline_follows(primary, member):
    """Without one, a follower asks for that number's history again and again and never streams."""
    second, third = standby_of(member, "pg2", primary), standby_of(member, "pg3", primary)
    for one in (second, third):
        one.caught_up(primary)
    third.stop()
    primary.crash()
    second.promote(4)
    second.crash()
    second.start()  # in place, as a primary
    placeholder = history_path(second.data_dir / "pg_wal", 3)
    content = placeholder.read_text()
    placeholder.unlink()
    third.follow(second)
    third.start(standby=True)
    time.sleep(2)
    assert third.seen().timeline == 1, "it may begin to stream over and over, and gets nowhere"
    placeholder.write_text(content)
    third.until(lambda seen: seen.streaming and seen.timeline == 4)


def test_t12_placeholders_left_behind_do_not_keep_a_standby_from_following(pair):
    """A node placed them and was fenced before it promoted."""
    _, standby = pair
    placed = place_placeholders(standby.data_dir / "pg_wal", 1, 5)
    assert placed == (2, 3, 4)
    standby.stop()
    standby.start(standby=True)  # as every start as a standby: removes them first
    standby.until(lambda seen: seen.streaming)
    assert not history_path(standby.data_dir / "pg_wal", 2).exists()


def test_a_standby_without_a_source_serves_reads_and_takes_no_wal(pair):
    primary, standby = pair
    standby.follow(None)
    standby.reload()
    seen = standby.until(lambda seen: seen.receiver is None)
    before = seen.position_lsn
    primary.sql("CREATE TABLE public.t AS SELECT 1 AS id")
    time.sleep(1)
    seen = standby.seen()
    assert seen.position_lsn == before
    assert not seen.streaming
    assert follows(standby, primary) < 1.5
    standby.caught_up(primary)


def test_a_standby_finds_its_primary_again_soon_after_it_is_back(pair):
    primary, standby = pair
    primary.crash()
    standby.until(lambda seen: seen.receiver is None)
    primary.start()
    began_s = time.monotonic()
    standby.until(lambda seen: seen.streaming)
    assert time.monotonic() - began_s < 1.5


def test_a_promoted_primary_says_when_its_first_checkpoint_is_done(pair):
    primary, standby = pair
    primary.crash()
    standby.promote(2)
    assert standby.monitor.checkpoint(limit_s=20)
    seen = standby.until(lambda seen: seen.checkpoint_timeline == 2)
    assert seen.timeline == 2

"""When commits wait for a synchronous standby and when they do not, on each installed release of PostgreSQL."""

import threading
import time

import psycopg
import pytest

from appliance.postgres.errors import PostgresUnreachable
from appliance.postgres.settings import NOBODY
from tests.postgres.instance.commits import (
    INSERT,
    Commit,
    acknowledged,
    any_of,
    checkpointed,
    load,
    process_of,
    stopped,
    table,
    write,
)


@pytest.fixture
def alone(copies):
    """A primary whose commits wait for nobody."""
    primary = copies("pg1")
    primary.start()
    table(primary)
    return primary


@pytest.fixture
def couple(alone, copies):
    """With a standby that was not appointed, as members start them."""
    standby = copies("pg2")
    standby.follow(alone)
    write(standby, 0, NOBODY)
    standby.start(standby=True)
    standby.until(lambda seen: seen.streaming)
    standby.caught_up(alone)
    return alone, standby


def test_a_set_may_be_shown_before_commits_wait_for_it(alone):
    """T7, R8 (a)."""
    with stopped(process_of(alone, "checkpointer")):
        load(alone, 1, any_of(1, "pg2"))
        assert Commit(alone).ends() < 1
        assert alone.monitor.checkpoint(20, twice=True)
        assert Commit(alone).ends() < 1
        assert alone.monitor.checkpointing
    while alone.monitor.checkpointing:
        pass
    assert alone.monitor.checkpoint_error is None
    Commit(alone).waits()


def test_the_first_commit_after_a_start_waits(alone):
    write(alone, 1, any_of(1, "pg2"))
    alone.crash()
    alone.start()
    assert alone.seen().sync_version == 1
    Commit(alone).waits()


@pytest.mark.parametrize("checkpointer", ["running", "hung"])
def test_the_first_commit_after_a_promotion_waits_for_the_set_that_was_loaded_just_before(couple, copies, checkpointer):
    """R5. The names changed, not whether there are any: so nothing depends on the checkpointer's having seen them."""
    primary, standby = couple
    primary.stop()
    with stopped(*[process_of(standby, "checkpointer")] * (checkpointer == "hung")):
        write(standby, 7, any_of(1, "pg3"))
        standby.reload()
        standby.until(lambda seen: seen.sync_version == 7)
        standby.promote(2)
        first = Commit(standby).waits()
        other = copies("pg3")
        other.follow(standby)
        write(other, 0, NOBODY)
        other.start(standby=True)
        assert first.ends() < 3
        assert Commit(standby).ends() < 1


def test_a_promoted_standby_that_was_never_appointed_acknowledges_nothing(couple):
    primary, standby = couple
    with stopped(process_of(standby, "checkpointer")):
        standby.promote(2)
        Commit(standby).waits()
    assert primary.value("SELECT count(*) FROM public.t") == "0"


def test_a_standby_that_ran_without_names_may_acknowledge_after_its_promotion_whatever_it_shows(couple):
    """T7 once more: why an appointed node that ran in asynchronous mode needs a checkpoint before it opens."""
    primary, standby = couple
    load(standby, 0, "")
    checkpointed(standby)
    primary.stop()
    with stopped(process_of(standby, "checkpointer")):
        load(standby, 7, any_of(1, "pg3"))
        standby.promote(2)
        assert standby.monitor.shown_sync_version() == 7
        assert Commit(standby).ends() < 1


def test_a_restartpoint_before_the_promotion_makes_the_first_commit_wait(couple):
    primary, standby = couple
    load(standby, 0, "")
    checkpointed(standby)
    primary.stop()
    load(standby, 7, any_of(1, "pg3"))
    checkpointed(standby)
    with stopped(process_of(standby, "checkpointer")):
        standby.promote(2)
        Commit(standby).waits()


def test_a_waiting_commit_ends_when_the_set_shrinks_to_who_lives(couple, measured):
    primary, standby = couple
    load(primary, 1, any_of(2, standby, "pg3"))
    checkpointed(primary)
    for version in (2, 4, 6):
        waiting = Commit(primary).waits()
        began_s = time.monotonic()
        load(primary, version, any_of(1, standby))
        mark_lsn = primary.monitor.mark_wal()
        waiting.ends()
        measured("from the reload to a living standby until the wait has ended", time.monotonic() - began_s)
        acknowledged(primary, standby, mark_lsn)
        load(primary, version + 1, any_of(2, standby, "pg3"))


def test_a_waiting_commit_ends_when_nobody_is_waited_for_any_more(couple, measured):
    primary, standby = couple
    for version in (1, 3, 5):
        load(primary, version, any_of(2, standby, "pg3"))
        checkpointed(primary)
        waiting = Commit(primary).waits()
        began_s = time.monotonic()
        load(primary, version + 1, "")
        waiting.ends()
        measured("from the reload to nobody until the wait has ended", time.monotonic() - began_s)


def test_waits_for_nobody_end_when_the_checkpointer_has_seen_it_others_do_not_need_it(couple):
    """So a checkpoint that does not pause, as one by command, holds up what shrinks to nobody, and nothing else."""
    primary, standby = couple
    load(primary, 1, any_of(2, standby, "pg3"))
    checkpointed(primary)
    waiting = Commit(primary).waits()
    with stopped(process_of(primary, "checkpointer")):
        load(primary, 2, any_of(1, standby))
        primary.monitor.mark_wal()
        assert waiting.ends() < 1
        load(primary, 3, "")
        primary.monitor.mark_wal()
        waiting = Commit(primary).waits()
    assert waiting.ends() < 1


def test_a_set_of_which_nobody_can_confirm_waits_also_with_more_than_it_has(couple):
    primary, standby = couple
    load(primary, 1, any_of(2, standby))
    checkpointed(primary)
    Commit(primary).waits()
    load(primary, 2, any_of(1))
    assert primary.value("SHOW synchronous_standby_names") == NOBODY
    Commit(primary).waits()


class Client(threading.Thread):
    """A usual client that commits, and is told things."""

    def __init__(self, member, options, statement):
        super().__init__()
        self.statement = statement
        self.told, self.error, self.status = [], None, ""
        self.connection = psycopg.connect(
            host=str(member.root), port=member.port, user="postgres", dbname="postgres", options=options
        )
        self.connection.add_notice_handler(lambda notice: self.told.append((notice.severity, notice.message_primary)))
        self.connection.autocommit = True
        self.pid = str(self.connection.info.backend_pid)
        self.start()

    def run(self):
        try:
            self.status = self.connection.execute(self.statement).statusmessage
        except psycopg.Error as error:
            self.error = error

    def ended(self):
        self.join(5)
        assert not self.is_alive()
        self.connection.close()
        return self


def waiting_client(member, options="", statement=INSERT):
    client = Client(member, options, statement)
    asked = "SELECT wait_event FROM pg_stat_activity WHERE pid = $1::int"
    member.until(lambda seen: member.value(asked, client.pid) == "SyncRep")
    return client


def test_a_cancelled_wait_is_told_as_a_warning_and_the_commit_is_here_only(couple):
    primary, standby = couple
    with stopped(process_of(standby, "walreceiver")):
        load(primary, 1, any_of(1, standby))
        checkpointed(primary)
        client = waiting_client(primary)
        primary.sql("SELECT pg_cancel_backend($1::int)", client.pid)
        client.ended()
        assert (client.error, client.status) == (None, "INSERT 0 1")
        assert client.told == [("WARNING", "canceling wait for synchronous replication due to user request")]
        assert primary.value("SELECT count(*) FROM public.t") == "1"
        assert standby.value("SELECT count(*) FROM public.t") == "0"


LIMITS = {"statement_timeout": 14, "idle_in_transaction_session_timeout": 14, "transaction_timeout": 17}


def test_no_limit_of_time_ends_the_wait_of_a_statement(couple, server):
    primary, _ = couple
    load(primary, 1, NOBODY)
    checkpointed(primary)
    limits = " ".join(f"-c {name}=200ms" for name, since in LIMITS.items() if server.major >= since)
    client = waiting_client(primary, limits)
    client.join(1)
    assert client.is_alive(), (client.status, client.error, client.told)
    primary.sql("SELECT pg_cancel_backend($1::int)", client.pid)
    client.ended()


def test_a_statement_timeout_ends_the_wait_of_a_commit_within_a_procedure(alone):
    load(alone, 1, NOBODY)
    checkpointed(alone)
    client = waiting_client(
        alone, "-c statement_timeout=1s", "DO $$ BEGIN INSERT INTO public.t DEFAULT VALUES; COMMIT; END $$"
    ).ended()
    assert client.told == [("WARNING", "canceling wait for synchronous replication due to user request")]
    assert alone.value("SELECT count(*) FROM public.t") == "1"


def test_a_session_that_is_ended_while_it_waits_has_no_acknowledgement(alone):
    load(alone, 1, NOBODY)
    checkpointed(alone)
    client = waiting_client(alone)
    alone.sql("SELECT pg_terminate_backend($1::int)", client.pid)
    client.ended()
    assert client.status == ""
    assert isinstance(client.error, psycopg.OperationalError)
    waiting = Commit(alone).waits()
    alone.stop()
    with pytest.raises(PostgresUnreachable):
        waiting.ends()


def test_the_level_of_a_session_decides_whether_it_waits(alone):
    load(alone, 1, NOBODY)
    checkpointed(alone)
    for level in ("off", "local"):
        assert Commit(alone, synchronous_commit=level).ends() < 1
    for level in ("remote_write", "on", "remote_apply"):
        Commit(alone, synchronous_commit=level).waits()

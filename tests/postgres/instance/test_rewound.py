"""A rewound standby answers nobody before it has the WAL that its pages come from; its source may be lost meanwhile."""

import time

import pytest

from appliance.ha.history import Standing
from appliance.postgres.directory import inspect
from tests.postgres.instance.histories import stands
from tests.postgres.instance.test_rewind import failed_over, rejoins


@pytest.fixture
def rewound(pair, member):
    """A diverged primary right after its rewind to pg2, to lack the last of that one's WAL; and pg3, which has it."""
    primary, second = pair
    third = member("pg3")
    assert third.clone(primary).ok
    third.follow(primary)
    third.start(standby=True)
    third.caught_up(primary)
    detach(third)
    failed_over(primary, second)
    third.follow(second)
    third.reload()
    primary.crash()
    second.sql("SELECT pg_switch_wal()")
    second.sql("CREATE TABLE public.late AS SELECT 1 AS id")
    third.caught_up(second)
    return primary, second, third


def detach(standby):
    standby.until(lambda seen: seen.streaming)
    standby.follow(None)
    standby.reload()
    standby.until(lambda seen: seen.receiver is None)


def loses_its_source(rewound, second):
    """A rewind copies the WAL first and then asks how far the source is: what came between is still to be streamed."""
    assert rewound.rewind(second, 3).ok
    newest = max(path for path in (rewound.data_dir / "pg_wal").glob("0*") if len(path.name) == 24)
    newest.unlink()
    second.crash()
    rewound.follow(second)


def test_it_follows_another_primary_by_reload_though_it_answers_nobody(rewound):
    primary, second, third = rewound
    loses_its_source(primary, second)
    primary.start(standby=True, wait=False)
    time.sleep(1)
    assert primary.monitor.look(1) is None
    assert "Consistent recovery state has not been yet reached" in primary.log()

    third.promote(4)
    assert stands(primary, third, 4) is Standing.ANCESTOR
    primary.follow(third)
    primary.reload()
    primary.until(lambda seen: seen.streaming)
    primary.caught_up(third)
    assert primary.value("SELECT count(*) FROM public.late") == "1"


def test_r14_where_history_left_out_the_wal_that_it_needs_it_is_diverged(rewound):
    """It would wait, or end with an error at each start, for ever."""
    primary, second, third = rewound
    detach(third)
    second.sql("CREATE TABLE public.unconfirmed AS SELECT 1 AS id")
    loses_its_source(primary, second)
    third.promote(4)
    third.monitor.checkpoint(limit_s=20)
    third.until(lambda seen: seen.checkpoint_timeline == 4)

    control = inspect(primary.data_dir, primary.binaries).control
    assert control.checkpoint_lsn < control.min_recovery_lsn
    assert stands(primary, third, 4) is Standing.DIVERGED
    primary.follow(third)
    primary.start(standby=True, wait=False)
    time.sleep(2)
    assert primary.monitor.look(1) is None
    primary.stop()
    assert primary.clone(third).ok
    rejoins(primary, third)
    assert primary.value("SELECT to_regclass('public.unconfirmed')") is None

"""What PostgreSQL leaves on disk and in its log, and how clients find it: read as PostgreSQL means it."""

import signal
from dataclasses import replace

import psycopg
import pytest

from appliance.postgres.dsn import dsn
from appliance.postgres.last_words import last_words
from appliance.postgres.segments import segment_name

SEGMENT_BYTES = 16 << 20


def test_a_segment_has_the_name_that_postgresql_gives_it(primary):
    for lsn in ("0/1", "0/1000000", "0/1000001", "0/FF000001", "1/0", "1/1"):
        named = primary.value("SELECT pg_walfile_name($1::pg_lsn)", lsn)
        high, low = (int(part, 16) for part in lsn.split("/"))
        # PostgreSQL up to 15 names the segment before a boundary, from 16 on the one behind it.
        before, behind = (segment_name(1, (high << 32) + low + more, SEGMENT_BYTES) for more in (0, 1))
        assert named in {before, behind}
        assert before == behind == named or low % SEGMENT_BYTES == 0


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"shared_preload_libraries": "no_such"}, 'could not access file "no_such": No such file or directory'),
        ({"shared_buffers": "1000TB"}, 'invalid value for parameter "shared_buffers": "1000TB" (Value exceeds'),
        ({"max_connections": "400000"}, "outside the valid range"),
    ],
    ids=["library", "value", "command line"],
)
def test_why_postgresql_did_not_start_is_in_its_own_words(primary, parameters, said):
    primary.stop()
    primary.settings = replace(primary.settings, parameters=parameters)
    begin = (primary.root / "log").stat().st_size
    primary.start(wait=False)
    primary.process.wait(10)

    assert primary.process.returncode == 1
    words = last_words(primary.root / "log", begin)
    assert said in words
    assert "administrator command" not in words, "that was said in the run before"


def test_a_client_finds_the_primary_by_the_uri_of_all_members(pair):
    primary, standby = pair
    primary.sql("CREATE ROLE app LOGIN PASSWORD 'p@ss/w:rd'")
    standby.caught_up(primary)
    hosts = [("127.0.0.1", standby.port), ("127.0.0.1", primary.port)]

    def reached(**wanted):
        uri = dsn(hosts, dbname="postgres", user="app", password="p@ss/w:rd", **wanted)
        with psycopg.connect(uri, connect_timeout=5) as connection:
            return connection.info.port

    assert reached() == primary.port
    assert reached(target_session_attrs="prefer-standby") == standby.port
    assert reached(target_session_attrs="") == standby.port, "the first that answers"
    primary.stop(signal.SIGQUIT)
    with pytest.raises(psycopg.OperationalError, match="read-only"):
        reached()
    standby.promote(2)
    assert reached() == standby.port

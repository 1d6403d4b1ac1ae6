import pytest

from appliance.postgres.control import ControlState, parse_control
from appliance.postgres.errors import PostgresError

POSTGRESQL_15 = """\
pg_control version number:            1300
Catalog version number:               202209061
Database system identifier:           7711227814818614782
Database cluster state:               in archive recovery
pg_control last modified:             Mon Nov 23 05:02:15 2026
Latest checkpoint location:           0/17424E8
Latest checkpoint's REDO location:    0/17424B0
Latest checkpoint's REDO WAL file:    000000010000000000000001
Latest checkpoint's TimeLineID:       3
Latest checkpoint's PrevTimeLineID:   1
oldestCommitTsXid:0
Minimum recovery ending location:     1/3000060
Min recovery ending loc's timeline:   4
Backup start location:                0/0
Backup end location:                  0/0
End-of-backup record required:        no
wal_level setting:                    replica
wal_log_hints setting:                on
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
track_commit_timestamp setting:       off
Bytes per WAL segment:                16777216
Data page checksum version:           1
"""


def test_the_output_is_read():
    control = parse_control(POSTGRESQL_15)
    assert control.system_identifier == "7711227814818614782"
    assert control.state is ControlState.IN_ARCHIVE_RECOVERY
    assert control.checkpoint_lsn == 0x17424E8
    assert (control.timeline, control.newest_timeline) == (3, 4)
    assert (control.min_recovery_lsn, control.min_recovery_timeline) == (0x103000060, 4)
    assert control.wal_log_hints
    assert control.checksums
    assert control.max_connections == 100
    assert not control.cleanly_shut_down


@pytest.mark.parametrize("state", ControlState)
def test_each_state_is_known_and_two_are_clean(state):
    control = parse_control(POSTGRESQL_15.replace("in archive recovery", state.value))
    assert control.state is state
    assert control.cleanly_shut_down == state.value.startswith("shut down")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "WARNING: Calculated CRC checksum does not match value stored in file.\n" + POSTGRESQL_15,
        POSTGRESQL_15.replace("in archive recovery", "in a good mood"),
        POSTGRESQL_15.replace("0/17424E8", "somewhere"),
        POSTGRESQL_15.replace("Bytes per WAL segment", "Bytes per word"),
    ],
    ids=["empty", "damaged", "unknown state", "no position", "a value is missing"],
)
def test_anything_else_is_an_error_and_no_guess(text):
    with pytest.raises(PostgresError, match="pg_controldata"):
        parse_control(text)

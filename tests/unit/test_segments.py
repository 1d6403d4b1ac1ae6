"""Names of WAL segments, and the timeline that they give away."""

import pytest

from appliance.postgres.segments import highest_timeline, newest_timeline, oldest_lsn, segment_name

MB = 1 << 20


@pytest.mark.parametrize(
    ("lsn", "segment_bytes", "name"),
    [
        (0x7002000, 16 * MB, "000000020000000000000007"),
        (0x7000000, 16 * MB, "000000020000000000000006"),
        (0x1_00000001, 16 * MB, "000000020000000100000000"),
        (0x1_00000000, 16 * MB, "0000000200000000000000FF"),
        (0x1_00000000, 1024 * MB, "000000020000000000000003"),
    ],
)
def test_the_last_byte_before_an_lsn_decides(lsn, segment_bytes, name):
    assert segment_name(2, lsn, segment_bytes) == name


def test_the_newest_timeline_that_has_the_wal_wins(tmp_path):
    for name in (
        "000000010000000000000007",
        "000000030000000000000007",
        "000000040000000000000008",
        "00000004.history",
    ):
        (tmp_path / name).touch()
    assert newest_timeline(tmp_path, 0x7002000, 16 * MB) == 3
    assert newest_timeline(tmp_path, 0x8002000, 16 * MB) == 4
    assert newest_timeline(tmp_path, 0x9002000, 16 * MB) == 0
    assert newest_timeline(tmp_path, 0, 16 * MB) == 0
    assert highest_timeline(tmp_path) == 4
    (tmp_path / "0000000A.history").touch()
    (tmp_path / "0000000B.history.tmp").touch()
    (tmp_path / "0000000C0000000000000008.partial").touch()
    assert highest_timeline(tmp_path) == 10


@pytest.mark.parametrize("segment_bytes", [MB, 16 * MB, 1024 * MB])
def test_wal_begins_after_the_last_gap_on_whatever_timeline(tmp_path, segment_bytes):
    for timeline, number in ((1, 3), (1, 5), (1, 6), (2, 6), (2, 7), (2, 9)):
        (tmp_path / segment_name(timeline, number * segment_bytes + 1, segment_bytes)).touch()
    (tmp_path / "00000002.history").touch()

    def oldest(number):
        return oldest_lsn(tmp_path, number * segment_bytes + 10, segment_bytes)

    assert oldest(7) == oldest(6) == oldest(5) == 5 * segment_bytes
    assert oldest(3) == 3 * segment_bytes
    assert oldest_lsn(tmp_path, 8 * segment_bytes, segment_bytes) == 5 * segment_bytes
    assert oldest(8) == 8 * segment_bytes + 10, "there is none of it"

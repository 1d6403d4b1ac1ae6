import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster.lsn import format_lsn
from appliance.postgres.errors import PostgresError
from appliance.postgres.history import (
    PLACEHOLDER,
    TimelineSwitch,
    history_path,
    parse_history,
    place_placeholders,
    read_history,
    remove_placeholders_above_real,
    settle_history,
    without_empty,
)

FOURTH = "1\t0/3000060\tno recovery target specified\n\n3\t0/5000110\tno recovery target specified\n"

switches = st.lists(st.tuples(st.integers(1, 2**31), st.integers(0, 2**64 - 1)), unique_by=lambda pair: pair[0]).map(
    lambda pairs: tuple(TimelineSwitch(timeline, lsn) for timeline, lsn in sorted(pairs))
)


@pytest.mark.parametrize(
    ("written", "real"),
    [
        ((), ()),
        (((1, 100),), ((1, 100),)),
        (((1, 100), (2, 200)), ((1, 100), (2, 200))),
        (((1, 100), (2, 100)), ((1, 100),)),
        (((1, 100), (2, 90)), ((1, 90),)),
        (((1, 100), (3, 200), (4, 150)), ((1, 100), (3, 150))),
        (((1, 100), (3, 200), (4, 100)), ((1, 100),)),
        (((1, 100), (3, 80), (4, 150)), ((1, 80), (4, 150))),
    ],
)
def test_a_timeline_without_wal_is_nobodys_parent(tmp_path, written, real):
    lines = [f"{timeline}\t0/{lsn:X}\tno recovery target specified\n" for timeline, lsn in written]
    text = "".join(lines)
    path = history_path(tmp_path, 9)
    path.write_text(text)
    history = read_history(tmp_path, 9)
    assert [(s.timeline, s.switch_lsn) for s in without_empty(history)] == list(real)
    assert settle_history(tmp_path, 9) is (written != real)
    assert [(s.timeline, s.switch_lsn) for s in read_history(tmp_path, 9)] == list(real)
    assert (path.read_text() == text) is (written == real), "what is as it should be stays as PostgreSQL wrote it"
    assert not settle_history(tmp_path, 9)


def test_a_history_is_read_oldest_first():
    assert parse_history(FOURTH) == (
        TimelineSwitch(1, 0x3000060),
        TimelineSwitch(3, 0x5000110),
    )


@given(switches)
def test_a_history_is_read_as_postgresql_writes_it(history):
    written = "".join(f"{s.timeline}\t{format_lsn(s.switch_lsn)}\tat the end of the WAL\n" for s in history)

    assert parse_history(written) == history


@pytest.mark.parametrize("text", ["1", "one\t0/0", "1\tsomewhere", "3\t0/1\tx\n2\t0/2\tx", "1\t0/1\tx\n1\t0/2\tx"])
def test_a_damaged_history_is_not_taken_for_a_short_one(text):
    with pytest.raises(ValueError, match=r"history|LSN"):
        parse_history(text)


def test_a_placeholder_is_a_history_without_ancestors():
    assert parse_history(PLACEHOLDER) == ()


def test_every_number_below_the_assigned_one_has_a_file(tmp_path):
    history_path(tmp_path, 4).write_text(FOURTH)
    assert place_placeholders(tmp_path, 4, 7) == (2, 3, 5, 6)
    assert place_placeholders(tmp_path, 4, 7) == ()
    assert read_history(tmp_path, 4) == parse_history(FOURTH)
    assert not history_path(tmp_path, 7).exists()
    assert history_path(tmp_path, 5).name == "00000005.history"


def test_the_next_number_from_the_first_timeline_needs_none(tmp_path):
    assert place_placeholders(tmp_path, 1, 2) == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("own", "assigned"), [(4, 4), (5, 4), (0, 3)])
def test_a_number_that_is_not_above_the_own_one_is_refused(tmp_path, own, assigned):
    with pytest.raises(PostgresError, match="cannot be assigned"):
        place_placeholders(tmp_path, own, assigned)


def test_a_number_that_was_used_is_refused_before_anything_is_written(tmp_path):
    history_path(tmp_path, 5).write_text(FOURTH)
    with pytest.raises(PostgresError, match="timeline 5 has a history file"):
        place_placeholders(tmp_path, 4, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["00000005.history"]


def test_only_placeholders_above_the_newest_real_history_go(tmp_path):
    (tmp_path / "000000010000000000000001").write_bytes(b"WAL")
    (tmp_path / "archive_status").mkdir()
    history_path(tmp_path, 4).write_text(FOURTH)
    place_placeholders(tmp_path, 4, 7)
    assert remove_placeholders_above_real(tmp_path) == (5, 6)
    assert remove_placeholders_above_real(tmp_path) == ()
    assert sorted(path.name for path in tmp_path.glob("*.history")) == [
        "00000002.history", "00000003.history", "00000004.history",
    ]  # fmt: skip


def test_without_a_real_history_all_placeholders_go(tmp_path):
    place_placeholders(tmp_path, 1, 5)
    assert remove_placeholders_above_real(tmp_path) == (2, 3, 4)

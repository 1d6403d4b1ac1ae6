"""WAL segment files: names, page headers, the timeline that WAL ends on, and files that hide more than they hold."""

import struct

import pytest

from appliance.cluster.lsn import format_lsn
from appliance.postgres.pages import opened
from appliance.postgres.segments import highest_timeline, oldest_lsn, segment_name, timeline_at
from appliance.postgres.shadows import remove_shadows

MB = 1 << 20
PAGE = 8192
BEGIN = 7 * MB
"""of the segment that the files below are for"""


def written(tmp_path, timeline, pages, *, segment=MB, lsn=BEGIN, behind=b""):
    """A file with so many pages of WAL from its start; `behind` is what the rest of it begins with."""
    name = segment_name(timeline, lsn + 1, segment)
    begin = lsn // segment * segment
    content = bytearray(max(pages * PAGE + len(behind), 4 * PAGE))
    for page in range(pages):
        address = begin + page * PAGE
        header = struct.pack("=HHIQI4xQII", 0xD110, 2, timeline, address, 0, 7423474350493388827, segment, PAGE)
        content[page * PAGE : page * PAGE + len(header)] = header
    content[pages * PAGE : pages * PAGE + len(behind)] = behind
    (tmp_path / name).write_bytes(content)
    return name


def left(tmp_path, timeline, *switches):
    lines = (f"{parent}\t{format_lsn(lsn)}\tno recovery target specified\n" for parent, lsn in switches)
    (tmp_path / f"{timeline:08X}.history").write_text("".join(lines))


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


@pytest.mark.parametrize("segment", [MB, 16 * MB, 1024 * MB])
@pytest.mark.parametrize("place", [0, 0xFF, 0x1_00000000 // MB])
def test_pages_count_from_the_first_on_and_up_to_a_limit(tmp_path, segment, place):
    begin = place * segment
    name = written(tmp_path, 3, 5, segment=segment, lsn=begin)
    with opened(tmp_path / name) as file:
        assert (file.begin_lsn, file.segment_bytes, file.page_bytes) == (begin, segment, PAGE)
        assert file.pages(begin + segment) == file.pages(begin + 10 * segment) == 5
        assert [file.pages(begin + n) for n in (-5, 0, 1, PAGE, PAGE + 1, 5 * PAGE)] == [0, 0, 1, 1, 2, 5]
        assert file.has(begin)
        assert file.has(begin + 5 * PAGE - 1)
        assert not file.has(begin + 5 * PAGE)
        assert not file.has(begin - 1)
        assert not file.has(begin + segment)


def test_what_a_recycled_file_had_before_is_no_wal_of_its_place(tmp_path):
    old = struct.pack("=HHIQ", 0xD110, 0, 3, BEGIN - MB + 2 * PAGE)
    other_release = struct.pack("=HHIQ", 0xD10D, 0, 3, BEGIN + 2 * PAGE)
    for behind in (old, other_release, b"\xff" * PAGE):
        with opened(tmp_path / written(tmp_path, 3, 2, behind=behind)) as file:
            assert file.pages(BEGIN + MB) == 2
            assert not file.has(BEGIN + 2 * PAGE)


@pytest.mark.parametrize("content", [b"", b"\x10", bytes(4 * PAGE), b"\xff" * PAGE])
def test_a_file_without_a_good_first_page_holds_nothing(tmp_path, content):
    path = tmp_path / segment_name(3, BEGIN + 1, MB)
    path.write_bytes(content)
    with opened(path) as file:
        assert file is None
    with opened(tmp_path / "0000000A0000000000000001") as file:
        assert file is None
    name = written(tmp_path, 3, 2)
    (tmp_path / name).rename(tmp_path / segment_name(3, BEGIN + MB + 1, MB))
    with opened(tmp_path / segment_name(3, BEGIN + MB + 1, MB)) as file:
        assert file is None, "renamed for recycling, and nothing written since"


def test_wal_ends_on_the_newest_timeline_that_has_it_behind_its_beginning(tmp_path):
    parted = BEGIN + 10 * PAGE
    left(tmp_path, 3, (1, parted))
    written(tmp_path, 1, 12)
    written(tmp_path, 3, 20)
    assert timeline_at(tmp_path, parted + 1, MB) == 3
    assert timeline_at(tmp_path, BEGIN + 20 * PAGE, MB) == 3
    assert timeline_at(tmp_path, parted, MB) == 1, "up to there it is WAL of timeline 1, whichever file it is in"
    assert timeline_at(tmp_path, BEGIN + 20 * PAGE + 1, MB) == 3
    assert timeline_at(tmp_path, BEGIN, MB) == 0, "the segment before is not there"
    assert timeline_at(tmp_path, 0, MB) == 0


def test_a_file_that_does_not_reach_so_far_says_nothing_of_where_wal_ends(tmp_path):
    left(tmp_path, 3, (1, BEGIN))
    written(tmp_path, 1, 12)
    written(tmp_path, 3, 5)
    assert timeline_at(tmp_path, BEGIN + 5 * PAGE, MB) == 3
    assert timeline_at(tmp_path, BEGIN + 5 * PAGE + 1, MB) == 1


@pytest.mark.parametrize(("parted", "timeline"), [(10 * PAGE, 3), (14 * PAGE, 3), (MB, 1), (2 * MB, 1)])
def test_behind_a_switch_of_segments_there_are_zeros_and_the_timeline_of_the_switch(tmp_path, parted, timeline):
    """Of 15 pages; up to where the timelines part they are in both files."""
    left(tmp_path, 3, (1, BEGIN + parted))
    written(tmp_path, 1, -(-min(parted, 15 * PAGE) // PAGE))
    written(tmp_path, 3, 15)
    assert timeline_at(tmp_path, BEGIN + MB, MB) == timeline


def test_without_a_history_a_timeline_has_no_known_beginning(tmp_path):
    written(tmp_path, 3, 5)
    assert timeline_at(tmp_path, BEGIN + PAGE, MB) == 3
    (tmp_path / "00000003.history").write_text("no history\n")
    assert timeline_at(tmp_path, BEGIN + PAGE, MB) == 3


def names(tmp_path):
    return {path.name for path in tmp_path.iterdir() if len(path.name) == 24}


def test_the_beginning_of_a_segment_does_not_hide_the_whole_of_it(tmp_path):
    old, short = written(tmp_path, 1, 40), written(tmp_path, 2, 16)
    left(tmp_path, 2, (1, BEGIN + 60 * PAGE))
    assert remove_shadows(tmp_path) == (short,)
    assert names(tmp_path) == {old}
    assert remove_shadows(tmp_path) == ()


@pytest.mark.parametrize("pages", [0, 1, 39])
def test_nor_does_one_with_nothing_or_nearly_everything(tmp_path, pages):
    written(tmp_path, 1, 40)
    short = written(tmp_path, 2, pages)
    left(tmp_path, 2, (1, BEGIN + 40 * PAGE - 100))
    assert remove_shadows(tmp_path) == (short,)


@pytest.mark.parametrize(
    ("old", "new", "parted"),
    [
        (40, 40, 60 * PAGE),
        (40, 41, 60 * PAGE),
        (40, 10, 10 * PAGE),  # what the old one has behind is of no history that the new one is of
        (40, 11, 10 * PAGE + 1),
        (40, 16, -MB),
        (0, 5, 60 * PAGE),
    ],
)
def test_what_holds_all_that_both_have_to_stays(tmp_path, old, new, parted):
    both = {written(tmp_path, 1, old), written(tmp_path, 2, new)}
    left(tmp_path, 2, (1, BEGIN + parted))
    assert remove_shadows(tmp_path) == ()
    assert names(tmp_path) == both


def test_a_page_more_before_the_switch_is_one_too_few(tmp_path):
    written(tmp_path, 1, 40)
    short = written(tmp_path, 2, 10)
    left(tmp_path, 2, (1, BEGIN + 10 * PAGE + 1))
    assert remove_shadows(tmp_path) == (short,)


@pytest.mark.parametrize("history", [None, "", "# placeholder of pg-appliance: x\n", "nonsense\n", "3\t0/900000\tx\n"])
def test_what_does_not_descend_from_it_hides_nothing(tmp_path, history):
    both = {written(tmp_path, 1, 40), written(tmp_path, 4, 16)}
    if history is not None:
        (tmp_path / "00000004.history").write_text(history)
    assert remove_shadows(tmp_path) == ()
    assert names(tmp_path) == both


def test_an_ancestor_further_up_counts_and_a_shadow_does_not(tmp_path):
    complete, first, second = written(tmp_path, 1, 40), written(tmp_path, 2, 20), written(tmp_path, 3, 16)
    left(tmp_path, 2, (1, BEGIN + 60 * PAGE))
    left(tmp_path, 3, (1, BEGIN + 60 * PAGE), (2, BEGIN + 70 * PAGE))
    assert remove_shadows(tmp_path) == (first, second)
    assert names(tmp_path) == {complete}


def test_a_parent_that_was_never_reached_parts_where_the_child_began(tmp_path):
    """Promoted at 30 pages, on the way to a timeline that begins at 60 (R14)."""
    both = {written(tmp_path, 1, 40), written(tmp_path, 3, 31)}
    left(tmp_path, 3, (1, BEGIN + 60 * PAGE), (2, BEGIN + 30 * PAGE))
    assert remove_shadows(tmp_path) == ()
    assert names(tmp_path) == both
    written(tmp_path, 3, 29)
    assert len(remove_shadows(tmp_path)) == 1


def test_the_highest_timeline_is_that_of_any_segment_or_history(tmp_path):
    for name in ("000000010000000000000007", "000000040000000000000008", "00000004.history"):
        (tmp_path / name).touch()
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

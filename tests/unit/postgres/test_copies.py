"""Every step of putting a copy in place can be the last one; the old directory or the new one is always there."""

import os
import shutil
from pathlib import Path

import pytest

from appliance.postgres.copies import (
    begin_copy,
    check_place,
    discard_replaced,
    install_copy,
    keep_once,
    new_copy,
    own_name,
    replaced,
    settle,
)
from appliance.postgres.directory import rewind_mark
from appliance.postgres.errors import PostgresError


def fill(directory, content):
    directory.mkdir(exist_ok=True)
    (directory / "PG_VERSION").write_text(content)


def content(directory):
    return (directory / "PG_VERSION").read_text()


@pytest.fixture
def data_dir(tmp_path):
    directory = tmp_path / "data"
    fill(directory, "first")
    return directory


def renew(data_dir, text):
    fill(begin_copy(data_dir), text)
    install_copy(data_dir)


def test_the_replaced_directory_is_kept_once(data_dir):
    renew(data_dir, "second")
    assert (content(data_dir), content(replaced(data_dir))) == ("second", "first")
    renew(data_dir, "third")
    assert (content(data_dir), content(replaced(data_dir))) == ("third", "second")
    assert sorted(path.name for path in data_dir.parent.iterdir()) == ["data", "data.replaced"]
    assert discard_replaced(data_dir)
    assert not discard_replaced(data_dir)
    assert [path.name for path in data_dir.parent.iterdir()] == ["data"]


def test_an_attempt_that_ended_early_leaves_no_trace_in_the_next(data_dir, tmp_path):
    outside = tmp_path / "wal" / "data-1234"
    fill(begin_copy(data_dir, [outside]), "torn")
    outside.mkdir(parents=True)
    begin_copy(data_dir)
    assert not new_copy(data_dir).exists()
    assert not outside.exists()
    assert content(data_dir) == "first"


class Died(BaseException):
    pass


@pytest.mark.parametrize("step", range(1, 12))
def test_whichever_step_is_the_last_one_a_complete_directory_is_found(data_dir, monkeypatch, step):
    """Dies at the n-th rename or removal, then starts again as the next attempt does."""
    renew(data_dir, "second")
    rewind_mark(data_dir).write_text("")
    fill(begin_copy(data_dir), "third")
    left = [step]

    def counted(act):
        def acting(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Died
            return act(*arguments, **options)

        return acting

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", counted(os.rename))
        patched.setattr(os, "unlink", counted(os.unlink))
        patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
        try:
            install_copy(data_dir)
        except Died:
            pass
        else:
            assert content(data_dir) == "third"
    settle(data_dir)
    assert content(data_dir) in {"second", "third"}
    if content(data_dir) == "third":
        assert content(replaced(data_dir)) == "second"
        assert not rewind_mark(data_dir).exists()
    else:
        assert rewind_mark(data_dir).exists()
    renew(data_dir, "fourth")
    assert content(data_dir) == "fourth"
    assert sorted(path.name for path in data_dir.parent.iterdir()) == ["data", "data.replaced"]


def test_what_a_copy_has_elsewhere_goes_with_it_and_what_is_in_use_stays(data_dir, tmp_path):
    shared, space = tmp_path / "shared", tmp_path / "space"
    for directory in (shared, space / "PG_15_202209061", data_dir / "pg_tblspc"):
        directory.mkdir(parents=True)
    (space / "letter.txt").write_text("the administrator's")
    wal = own_name(tmp_path / "wal")
    wal.mkdir()
    (data_dir / "pg_wal").symlink_to(wal)
    (data_dir / "pg_tblspc" / "16384").symlink_to(space)
    (data_dir / "pg_tblspc" / "16385").symlink_to(shared)
    fill(begin_copy(data_dir), "second")
    (new_copy(data_dir) / "pg_tblspc").mkdir()
    (new_copy(data_dir) / "pg_tblspc" / "16385").symlink_to(shared)
    install_copy(data_dir)
    assert wal.exists(), "kept with the copy that it belongs to"
    discard_replaced(data_dir)
    assert not wal.exists()
    assert [path.name for path in space.iterdir()] == ["letter.txt"]
    assert shared.exists()


def test_a_link_to_the_data_directory_is_followed(data_dir, tmp_path):
    link = tmp_path / "elsewhere" / "pgdata"
    link.parent.mkdir()
    link.symlink_to(data_dir)
    renew(link, "second")
    assert link.is_symlink()
    assert content(link) == "second"
    assert content(data_dir.with_name("data.replaced")) == "first"


def test_an_empty_or_missing_directory_is_nothing_to_keep(tmp_path):
    data_dir = tmp_path / "data"
    keep_once(data_dir)
    data_dir.mkdir()
    renew(data_dir, "first")
    assert content(data_dir) == "first"
    assert not replaced(data_dir).exists()


def test_a_mount_point_is_refused_with_what_would_do():
    with pytest.raises(PostgresError, match=r"is a mount point.*set data_dir to a directory in it"):
        check_place(Path("/proc"))

"""How a new copy takes the place of a data directory without the old one being lost before that (safety R12).

Names beside the data directory: `.new` grows, `.complete` waits for its place, `.replaced` is kept once, `.discarded`
is on its way out, `.outside` lists what a growing copy has elsewhere (WAL directory, tablespaces). Every step can be
the last one.
"""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex

from appliance.postgres.directory import beside, rewind_mark
from appliance.postgres.errors import PostgresError
from appliance.postgres.files import remove_durably, sync_directory, write_atomically


def new_copy(data_dir: Path) -> Path:
    return beside(data_dir, "new")


def replaced(data_dir: Path) -> Path:
    return beside(data_dir, "replaced")


def check_place(data_dir: Path) -> None:
    """Raises PostgresError where no copy can be put beside the data directory and renamed."""
    real = data_dir.resolve()
    if os.path.ismount(real):
        raise PostgresError(
            f"{real} is a mount point and cannot be replaced by renaming; set data_dir to a directory in it"
        )
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise PostgresError(f"{real.parent} is not writable for this user; a copy of the data directory grows there")


def begin_copy(data_dir: Path, outside: Iterable[Path] = ()) -> Path:
    """Clear away what an earlier attempt left and note what this one will have outside; where the copy is to grow."""
    check_place(data_dir)
    growing = new_copy(data_dir)
    discard_attempt(data_dir)
    write_atomically(_outside(data_dir), json.dumps([str(path) for path in outside]))
    return growing


def own_name(path: Path) -> Path:
    """A name for one copy's part below or beside `path`: two copies exist at the same time."""
    return path.with_name(f"{path.name}-{token_hex(4)}")


def install_copy(data_dir: Path) -> None:
    """Put the grown copy in place; what was there is kept as `.replaced`, an older `.replaced` goes last."""
    complete = beside(data_dir, "complete")
    new_copy(data_dir).rename(complete)
    sync_directory(complete.parent)
    keep_once(data_dir)
    settle(data_dir)


def settle(data_dir: Path) -> bool:
    """Finish an installation that ended between its renames; whether there was one."""
    complete = beside(data_dir, "complete")
    if not complete.exists() or _filled(data_dir):
        return False
    remove_durably(rewind_mark(data_dir))  # what it marked is not there any more
    complete.rename(data_dir.resolve())  # also over an empty directory
    sync_directory(complete.parent)
    remove_durably(_outside(data_dir))
    _remove_copy(beside(data_dir, "discarded"), data_dir)
    return True


def keep_once(data_dir: Path) -> None:
    """Rename a data directory that is to be replaced; only the latest one is kept."""
    if not _filled(data_dir):
        return
    kept, discarded = replaced(data_dir), beside(data_dir, "discarded")
    _remove_copy(discarded, data_dir)
    if kept.exists():
        kept.rename(discarded)
    data_dir.resolve().rename(kept)
    sync_directory(kept.parent)


def discard_replaced(data_dir: Path) -> bool:
    """Once the new copy streams; whether there was one. Removing takes time: it is a job of its own."""
    found = replaced(data_dir).exists()
    _remove_copy(replaced(data_dir), data_dir)
    return found


def discard_attempt(data_dir: Path) -> None:
    """What an earlier attempt grew, here and outside; no data directory, and not the one that is kept."""
    for suffix in ("new", "complete", "discarded"):
        _remove_copy(beside(data_dir, suffix), data_dir)
    for path in _listed(_outside(data_dir)) - _parts(data_dir) - _parts(replaced(data_dir)):
        shutil.rmtree(path, ignore_errors=True)


def _remove_copy(copy: Path, data_dir: Path) -> None:
    """With its WAL directory and tablespaces, except those that the data directory uses itself."""
    if not copy.exists():
        return
    for part in _parts(copy) - _parts(data_dir):
        # A tablespace's own directory may belong to the administrator: what PostgreSQL made is in it.
        for path in part.glob("PG_*") if _is_tablespace(copy, part) else [part]:
            shutil.rmtree(path, ignore_errors=True)
        _remove_empty(part)
    shutil.rmtree(copy)


def _remove_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        return  # a mount point, or not ours alone


def _parts(copy: Path) -> set[Path]:
    """What of a copy lies outside of it."""
    links = [copy / "pg_wal", *_tablespace_links(copy)]
    return {link.resolve() for link in links if link.is_symlink()}


def _is_tablespace(copy: Path, part: Path) -> bool:
    return any(link.resolve() == part for link in _tablespace_links(copy))


def _tablespace_links(copy: Path) -> list[Path]:
    directory = copy / "pg_tblspc"
    return list(directory.iterdir()) if directory.is_dir() else []


def _outside(data_dir: Path) -> Path:
    return beside(data_dir, "outside")


def _listed(path: Path) -> set[Path]:
    try:
        return {Path(entry) for entry in json.loads(path.read_text())}
    except (FileNotFoundError, ValueError):
        return set()


def _filled(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())

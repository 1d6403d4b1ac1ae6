"""Files that survive a power cut: written beside, synced, renamed, and the directory synced."""

import os
from pathlib import Path

_MODE = 0o600


def write_atomically(path: Path, content: str) -> None:
    """After a crash the file holds the old content or the new one, never a part. Its mode is 0600.

    Bytes that are no UTF-8 travel as surrogates, here and in `read_text`, so a file in another encoding survives.
    """
    beside = path.with_name(f"{path.name}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        os.fchmod(descriptor, _MODE)  # the file may be a leftover with another mode
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    beside.rename(path)
    sync_directory(path.parent)


def write_if_changed(path: Path, content: str) -> bool:
    """Whether it had to be written: an unchanged file costs no disk write and no reload."""
    if not differs(path, content):
        return False
    write_atomically(path, content)
    return True


def differs(path: Path, content: str) -> bool:
    return read_text(path) != content


def read_text(path: Path) -> str | None:
    """None when there is no such file."""
    try:
        return path.read_bytes().decode(errors="surrogateescape")
    except FileNotFoundError:
        return None


def remove_durably(path: Path) -> bool:
    """Whether it was there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_directory(path.parent)
    return True


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A child process that tries, once a second, what PostgreSQL lives on: its disks, and a connection of its postmaster.

Run as a script: `probe.py DATA_DIR SOCKET PARENT_PID`. Standard library only, nothing of the appliance: it is small,
and what hangs in it hangs nobody else. It writes a line of JSON before each try and one after it; who reads them sees
how long a try has been under way. Nothing is tried while PostgreSQL does not run, so it makes no directory.
"""

import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

EVERY_S = 1.0
FILE_NAME = "appliance_probe"
FILE_BYTES = 4096
SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""https://www.postgresql.org/docs/current/protocol-message-formats.html: the postmaster has forked when one byte comes
back; who then goes away leaves nothing in its log."""
_PR_SET_PDEATHSIG = 1

Result = dict[str, object]


def write(directory: str) -> None:
    """Overwrite and sync a small file, as PostgreSQL overwrites and syncs a segment of WAL.

    Nothing is allocated but at the first time, so that a full disk does not look like a broken one.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(os.path.join(directory, FILE_NAME), flags, 0o600)
    try:
        os.pwrite(file, f"{time.time_ns()}\n".encode().ljust(FILE_BYTES, b"."), 0)
        os.fdatasync(file)
    finally:
        os.close(file)


def room(directory: str) -> Result:
    """What this user may still write, and the size of the file system."""
    seen = os.statvfs(directory)
    return {"free": seen.f_bavail * seen.f_frsize, "total": seen.f_blocks * seen.f_frsize}


def runs(data_dir: str) -> bool:
    """Whether a postmaster runs, starts or has just died; only then there is a directory to write to."""
    try:
        os.stat(os.path.join(data_dir, "postmaster.pid"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def try_data(data_dir: str, _: str) -> Result:
    if runs(data_dir):
        write(data_dir)
    return room(data_dir)


def try_wal(data_dir: str, _: str) -> Result:
    """Nothing where it shares the data directory's file system and is no link: that one speaks for both."""
    wal_dir = os.path.join(data_dir, "pg_wal")
    if not os.path.islink(wal_dir) and os.stat(wal_dir).st_dev == os.stat(data_dir).st_dev:
        return {}
    if runs(data_dir):
        write(wal_dir)
    return room(wal_dir)


def try_door(data_dir: str, address: str) -> Result:
    """Whether the postmaster takes a new connection. A stopped one does not, while its sessions go on."""
    if runs(data_dir):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            client.sendall(SSL_REQUEST)
            client.recv(1)
    return {}


TRIES: dict[str, Callable[[str, str], Result]] = {"data": try_data, "wal": try_wal, "door": try_door}

BROKEN = {errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.EUCLEAN}
"""What a disk that is gone answers with. A full disk, or a missing directory, is an answer of one that works."""


def say(place: str, fields: Result) -> None:
    """One line, shorter than what a pipe takes at once."""
    os.write(1, json.dumps({"place": place, "at": time.clock_gettime(time.CLOCK_BOOTTIME), **fields}).encode() + b"\n")


def watch(place: str, data_dir: str, address: str) -> None:
    """Until nobody reads any more."""
    try:
        while True:
            say(place, {"thread": threading.get_native_id()})
            try:
                result = TRIES[place](data_dir, address)
            except OSError as error:
                result = {"error": error.strerror or str(error), "broken": error.errno in BROKEN}
            say(place, {"ended": True, **result})
            time.sleep(EVERY_S)
    except BrokenPipeError:
        os._exit(0)


def main() -> None:
    _, data_dir, address, parent = sys.argv
    # The node process must not leave one behind, however it ends; it may have ended before this call.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        return
    for place in TRIES:
        threading.Thread(target=watch, args=(place, data_dir, address)).start()


if __name__ == "__main__":
    main()

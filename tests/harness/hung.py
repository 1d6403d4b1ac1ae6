"""A directory on a disk that hangs: a FUSE file system that nobody serves. For root."""

import contextlib
import ctypes
import os
from pathlib import Path

MNT_DETACH = 2


@contextlib.contextmanager
def hung(directory: Path):
    """Whoever looks into `directory` waits until the end of the block, and can be killed meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"hung", bytes(directory), b"fuse", 0, options.encode()) != 0:
        os.close(device)
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        yield
    finally:
        libc.umount2(bytes(directory), MNT_DETACH)
        os.close(device)

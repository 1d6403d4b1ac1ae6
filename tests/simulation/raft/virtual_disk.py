"""A directory in memory that forgets what a real one may forget: what was not synced, in pieces, and renames.

A `Medium` is the disk of one machine and survives its process; a `VirtualDisk` (`raft.disk.Disk`) is one process's
hold on it.
A killed process loses nothing that it wrote; a loss of power may undo everything that was not synced.
"""

import errno
import os
from pathlib import Path

from raft.api import ReplicaError

SECTOR_BYTES = 512
UNWRITTEN = b"\0"


class Crash(BaseException):
    """The process dies here. Not an `Exception`: nothing on the way out may mistake it for trouble to handle."""


class Inode:
    """A file's content as the process sees it, as the disk has it, and what lies between the two."""

    def __init__(self, content=b""):
        self.content = bytearray(content)
        self.synced = bytearray(content)
        self.pending = []
        """Unsynced changes in order: (offset, data) for a write, (size, None) for a truncation."""
        self.meaning = self.synced_meaning = None
        """What the writer says that the content, and what is synced of it, stands for: see `VirtualDisk.describe`."""

    def change(self, offset, data):
        _apply(self.content, offset, data)
        self.pending.append((offset, data))

    def sync(self, share=1.0):
        """Bring what is pending to the disk, or, when the machine dies meanwhile, a first part of it."""
        cut = int(len(self.pending) * share)
        for offset, data in self.pending[:cut]:
            _apply(self.synced, offset, data)
        del self.pending[:cut]
        if share >= 1:
            self.synced_meaning = self.meaning

    def fail_sync(self):
        """The process still sees its data, the disk never gets it, and the next sync does not try again."""
        self.pending.clear()

    def lose_power(self, random, stale):
        if random is not None and self.pending:
            lose = random.choice((_lose_all, _keep_first, _keep_first, _keep_some, _keep_size))
            lose(self.synced, self.pending, random, stale)
        self.content = bytearray(self.synced)
        self.pending.clear()


class Medium:
    """What one machine's disk holds, through kills and losses of power."""

    def __init__(self, capacity_bytes=None):
        self.names = {}
        self.durable_names = {}
        self.pending_names = []
        """Changes of the directory that are not synced: functions of the names."""
        self.capacity_bytes = capacity_bytes
        self.stale = b""
        """What stood on the disk before: a file that a rename replaced."""
        self.rotten = False
        """Whether somebody has turned a bit over in it."""
        self.holder = None
        """The disk whose process holds the lock."""

    def size_bytes(self):
        return sum(len(inode.content) for inode in self.names.values())

    def possible_meanings(self, name):
        """What may stand in this file, by what was written to it; nothing when there is no such file."""
        inode = self.names.get(name)
        return [] if inode is None else [inode.synced_meaning, inode.meaning]

    def durable_meaning(self, name):
        """What would stand in this file if the power went now."""
        inode = self.durable_names.get(name)
        return None if inode is None else inode.synced_meaning

    def change_names(self, change):
        change(self.names)
        self.pending_names.append(change)

    def sync_names(self):
        self.durable_names, self.pending_names = dict(self.names), []

    def kill(self):
        """The process is gone; all that it wrote is still there, synced or not."""
        if self.holder is not None:
            self.holder.dead = True
        self.holder = None

    def lose_power(self, random=None):
        """The machine is gone. With no `random` exactly the synced remains; otherwise also parts of the rest.

        Changes of the directory are undone from the last one back, as a journaling file system does; data comes and
        goes by sectors, in any order.
        """
        self.kill()
        kept = 0 if random is None else random.randint(0, len(self.pending_names))
        names = dict(self.durable_names)
        for change in self.pending_names[:kept]:
            change(names)
        for inode in names.values():
            inode.lose_power(random, self.stale)
        self.names, self.durable_names, self.pending_names = names, dict(names), []


class VirtualDisk:
    """One process's hold on a medium. The call that `crash_in` names raises `Crash`, and so does every later one."""

    def __init__(self, medium, path=Path("/virtual")):
        if medium.holder is not None:
            raise ReplicaError(f"raft directory {path} is in use by another process")
        medium.holder = self
        self.path = path
        self.medium = medium
        self.calls = 0
        """How many calls that change something have begun."""
        self.dead = False
        self.closed = False
        self.errors = 0
        """How many calls have raised an OSError that belongs to the disk."""
        self._crash_at = None
        self._crash_share = 0.0
        self._sync_fails_at = None
        self._fails_at = None
        self.describe = None
        """Asked at each write what the file stands for once all of it is there."""
        self.on_call = None
        """Called with a description of each changing call before it, for traces and faults."""

    def crash_in(self, calls, share=0.0):
        """Die in the n-th changing call from now (1 is the next); `share` says how much of it still happens.

        0: nothing. 1: all of it, only that the process does not learn of it. Between: a part of the bytes of a write,
        a part of the pending writes of a sync; anything else happens from 0.5 on.
        """
        self._crash_at = self.calls + calls
        self._crash_share = share

    def fail_sync_in(self, calls):
        """Let a sync of a file fail (EIO): the first one from the n-th changing call on."""
        self._sync_fails_at = self.calls + calls

    def fail_in(self, calls):
        """Let the n-th changing call from now fail (EIO) before it has done anything."""
        self._fails_at = self.calls + calls

    def be_well(self):
        """Do none of what was planned."""
        self._crash_at = self._sync_fails_at = self._fails_at = None

    def exists(self, name):
        self._check()
        return name in self.medium.names

    def open(self, name):
        self._check()
        return VirtualFile(self, name, self._inode(name))

    def create(self, name):
        share = self._begin(f"create {name}")
        inode = self.medium.names.get(name)
        if share >= 0.5:
            if inode is None:
                inode = Inode()
                self.medium.change_names(lambda names: names.__setitem__(name, inode))
            elif inode.content:
                inode.change(0, None)
        self._end(share)
        return VirtualFile(self, name, inode)

    def rename(self, old, new):
        share = self._begin(f"rename {old} {new}")
        self._inode(old)
        if share >= 0.5:
            if new in self.medium.names:
                self.medium.stale = bytes(self._inode(new).content)
            self.medium.change_names(lambda names: names.__setitem__(new, names.pop(old)))
        self._end(share)

    def remove(self, name):
        share = self._begin(f"remove {name}")
        self._inode(name)
        if share >= 0.5:
            self.medium.change_names(lambda names: names.pop(name, None))
        self._end(share)

    def sync_directory(self):
        share = self._begin("sync directory")
        if share >= 0.5:
            self.medium.sync_names()
        self._end(share)

    def close(self):
        self.closed = True
        if self.medium.holder is self:
            self.medium.holder = None

    def write(self, name, inode, data, offset):
        share = self._begin(f"write {name} {len(data)} at {offset}")
        fits = self._room(inode, offset, len(data))
        taken = int(min(fits, len(data)) * share) if share < 1 else min(fits, len(data))
        if taken:
            inode.change(offset, bytes(data[:taken]))
        if self.describe is not None:
            inode.meaning = self.describe()
        self._end(share)
        if fits < len(data):
            self.errors += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    def sync(self, name, inode):
        share = self._begin(f"sync {name}")
        if self._sync_fails_at is not None and self.calls >= self._sync_fails_at:
            self._sync_fails_at = None
            inode.fail_sync()
            self.errors += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        inode.sync(share)
        self._end(share)

    def _room(self, inode, offset, length):
        """How many bytes of a write fit on the medium."""
        capacity = self.medium.capacity_bytes
        if capacity is None:
            return length
        free = max(0, capacity - self.medium.size_bytes())
        return max(0, len(inode.content) - offset) + free

    def _inode(self, name):
        try:
            return self.medium.names[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None

    def _check(self):
        if self.dead:
            raise Crash
        if self.closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _begin(self, call):
        """How much of this call is to happen; 1 unless the process dies in it."""
        self._check()
        self.calls += 1
        if self.on_call is not None:
            self.on_call(call)
        if self.calls == self._fails_at:
            self.errors += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), call)
        return self._crash_share if self.calls == self._crash_at else 1.0

    def _end(self, share):
        if self.calls == self._crash_at:
            self.medium.kill()
            raise Crash


class VirtualFile:
    def __init__(self, disk, name, inode):
        self._disk, self._name, self._inode = disk, name, inode
        self._closed = False

    def read(self):
        self._check()
        return bytes(self._inode.content)

    def write(self, data, offset):
        self._check()
        self._disk.write(self._name, self._inode, data, offset)

    def sync(self):
        self._check()
        self._disk.sync(self._name, self._inode)

    def close(self):
        self._closed = True

    def _check(self):
        self._disk._check()
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._name)


def _apply(content, offset, data):
    if data is None:
        if offset < len(content):
            del content[offset:]
        else:
            content.extend(UNWRITTEN * (offset - len(content)))
        return
    if offset > len(content):
        content.extend(UNWRITTEN * (offset - len(content)))
    content[offset : offset + len(data)] = data


def _lose_all(durable, pending, random, stale):
    """Nothing of it had reached the disk."""


def _keep_first(durable, pending, random, stale):
    """The changes had reached the disk in order, up to somewhere within one of them."""
    cut = random.randrange(len(pending))
    for offset, data in pending[:cut]:
        _apply(durable, offset, data)
    offset, data = pending[cut]
    if data is not None:
        _apply(durable, offset, data[: random.randint(0, len(data))])


def _keep_some(durable, pending, random, stale):
    """Sectors had reached the disk in any order."""
    for offset, data in pending:
        if data is None:
            if random.random() < 0.5:
                _apply(durable, offset, None)
            continue
        for begin, piece in _sectors(offset, data):
            if random.random() < 0.5:
                _apply(durable, begin, piece)


def _keep_size(durable, pending, random, stale):
    """The new size had reached the disk, the data had not: zeros, or what stood there before."""
    end = len(durable)
    size = max(offset + len(data or b"") for offset, data in pending)
    if size > end:
        _apply(durable, end, stale[end:size] if random.random() < 0.5 else b"")
        _apply(durable, size, None)


def _sectors(offset, data):
    end = offset + len(data)
    while offset < end:
        cut = min(end, (offset // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield offset, data[len(data) - (end - offset) : len(data) - (end - cut)]
        offset = cut

"""Journals for tests: on a virtual disk, with content that can be compared and a story with every kind of change."""

import itertools

from raft.journal import Journal
from raft.members import Member, Members
from raft.snapshot import Snapshot
from tests.simulation.raft.virtual_disk import Inode, Medium, VirtualDisk

MEMBERS = Members.of(Member(name, f"id-{name}", f"{name}:7000", "voter") for name in ("n1", "n2", "n3"))
REST = MEMBERS.without("n2").without("n3")
"""Who is left when the others will not come back."""
NO_LIMIT = 2**62


def opened(disk, name="n1"):
    """A journal on this disk; its clock goes on by a second at each look."""
    return Journal(disk, "c", name, clock=itertools.count().__next__, draw_id=lambda: "id-n1")


def holding(data, name="journal"):
    """A medium on which this was written and synced."""
    medium = Medium()
    medium.names = {name: Inode(data)}
    medium.durable_names = dict(medium.names)
    return medium


def bytes_on(medium, name="journal"):
    return bytes(medium.names[name].content)


def reopened(medium):
    """What a process that starts now finds; it ends at once."""
    disk = VirtualDisk(medium)
    journal = opened(disk)
    found = content(journal)
    journal.close()
    disk.close()
    return found


def entries(log):
    return log.entries(log.first_index, NO_LIMIT)


def content(log):
    """All that a log promises to keep."""
    return {
        "identity": getattr(log, "identity", None),
        "cluster_id": log.cluster_id,
        "incarnation": log.incarnation,
        "term": log.term,
        "vote": log.vote,
        "base": (log.base_index, log.base_term),
        "entries": entries(log),
        "commit_index": log.commit_index,
        "snapshot": log.snapshot,
        "founding": log.founding,
    }


def snapshot(index, term, content=b"state"):
    return Snapshot(index, term, MEMBERS, content)


def add(journal, *terms):
    for term in terms:
        index = journal.last_index + 1
        journal.add(b"\0command %d" % index, index, term)


def _found(journal):
    journal.found("cafe", MEMBERS)
    journal.sync()


def _elect_and_add(journal):
    journal.set_term(1, "n1")
    add(journal, 1, 1, 1)
    journal.sync()


def _replace_a_tail(journal):
    journal.set_commit(3)
    journal.truncate(4)
    journal.set_term(2, "n3")
    add(journal, 2)
    journal.sync()


def _vote_after_a_commit(journal):
    journal.set_commit(4)  # rides along
    journal.set_term(3, "n2")
    journal.sync()


def _compact(journal):
    add(journal, 2, 2)  # rides along, without a sync of its own
    journal.compact(snapshot(3, 1), 3)


def _go_on(journal):
    add(journal, 2)
    journal.sync()


def _compact_again(journal):
    journal.compact(snapshot(4, 2, b"more" * 300), 5)


def _install_before_a_tail(journal):
    journal.set_term(4, None)
    journal.install(snapshot(6, 2))


def _install_and_drop_all(journal):
    journal.install(snapshot(9, 3))


def _begin_after_a_snapshot(journal):
    add(journal, 3, 3)
    journal.sync()


def _begin_anew(journal):
    journal.set_commit(10)
    add(journal, 4)
    journal.begin_anew(1, REST)
    journal.sync()


STORY = (
    _found,
    _elect_and_add,
    _replace_a_tail,
    _vote_after_a_commit,
    _compact,
    _go_on,
    _compact_again,
    _install_before_a_tail,
    _install_and_drop_all,
    _begin_after_a_snapshot,
    _begin_anew,
)
"""Steps that write once each: after a crash in one of them, the journal is as before it or as after it."""

BATCHES = STORY[:4]
"""The steps that only add to the file."""

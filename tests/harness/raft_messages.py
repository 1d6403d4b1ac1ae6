"""One message of each kind that replicas send each other about the log."""

from raft.entries import members_entry
from raft.members import Member, Members
from raft.messages import (
    Append,
    Appended,
    AskBarrier,
    AskPreVote,
    AskVote,
    Barrier,
    Forward,
    ForwardRefused,
    PreVote,
    SnapshotHeld,
    SnapshotPart,
    TimeoutNow,
    Vote,
)

FROM = ("cafe/0", "id of n1")
"""Group and replica of whoever speaks."""
MEMBERS = Members.of([Member("n1", "id of n1", "10.0.0.1:7400", "voter"), Member("n2", "", "", "joining")])


def append(*entries, term=2, sent=5, previous=(1, 0), commit=1):
    """Entries as (content, index, term)."""
    return Append(*FROM, term, sent, *previous, commit, tuple(entries))


def every_message():
    messages = [
        AskPreVote(*FROM, 2, 7, 3, 1),
        PreVote(*FROM, 2, 7, True),
        AskVote(*FROM, 2, 3, 1, False),
        Vote(*FROM, 2, 2, True),
        Appended(*FROM, 2, 2, 5, 4, True),
        SnapshotPart(*FROM, 2, 5, 9, 100, 0, b"part"),
        SnapshotHeld(*FROM, 2, 2, 5, 9, 100, 4),
        TimeoutNow(*FROM, 2),
        Forward(*FROM, 2, 8, b"submission"),
        ForwardRefused(*FROM, 2, 8, "no"),
        AskBarrier(*FROM, 2, 9),
        Barrier(*FROM, 2, 9, 4),
    ]
    entries = [(b"\1", 2, 1), (b"\0" + b"y" * 20, 3, 2), (members_entry(MEMBERS), 4, 2)]
    return [append(*entries), *messages]

"""When a majority is gone for good: what this host's copy of the log holds, and whether the cluster may go on from it.

For a node process that does not run. Who is gone is the operator's word; everything that can be checked is checked.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.cluster.codec import encode_command
from appliance.cluster.commands import Recovered
from appliance.cluster.lsn import format_lsn
from appliance.cluster.state import ClusterState, Grounds, Position, Recovery
from appliance.cluster.synchronous import may_lack
from appliance.ha.checks import Check
from appliance.node.clock import wall_s
from appliance.node.machine import ClusterMachine
from appliance.postgres.directory import rewind_mark
from appliance.postgres.incarnation import NONE, Incarnation, stored_incarnation
from appliance.postgres.segments import highest_timeline, segment_numbers
from raft import Copy, DirectoryInUse, ReplicaError, begin_anew, furthest, read_copy

FORMAT = 3
SEGMENT_NAME = 24
"""Letters of a segment's name."""


class RecoveryError(Exception):
    """The copy cannot be read or gone on from: says why, and what would do."""


class NodeRunsError(RecoveryError):
    """The directory is in use."""


@dataclass(frozen=True, slots=True)
class SurvivorCopy:
    """What one host holds of the replicated log. As JSON it is carried to the others."""

    format: int
    log: Copy
    epoch: int
    """of the last appointment, when every entry is applied"""
    primary: str
    """whom it appointed; empty before the first"""
    position: Position | None
    """the last one known of that primary"""
    data: Incarnation = NONE
    """of the data directory on this host; without an id when there is none, or none that is complete"""
    data_timeline: int = 0
    """the highest that its WAL is of"""
    directories: Mapping[str, str] = field(default_factory=dict)
    """member to the id of the data directory that the cluster knows of it (R13)"""
    recovery: Recovery = field(default_factory=Recovery)
    """the last one that this copy knows of"""
    timeline: int = 0
    """the highest that was assigned (R14)"""
    grounds: tuple[Grounds, ...] = ()
    """what the votes of an election would be judged by (R7)"""
    synchronous: bool = False
    """every acknowledged commit is where R7 looks for it"""
    data_lsn: int = 0
    """where the newest WAL segment of the data here ends: it reaches no further. 0: not known"""

    @property
    def name(self) -> str:
        return self.log.name


@dataclass(frozen=True, slots=True)
class Data:
    incarnation: Incarnation = NONE
    timeline: int = 0
    end_lsn: int = 0


def data_of(data_dir: Path) -> Data:
    """What lies beside a copy. RecoveryError when that cannot be read: it would not be kept, unnoticed."""
    try:
        found = stored_incarnation(data_dir)
        if not found.id or rewind_mark(data_dir).exists():
            return Data(Incarnation("", found.recovery))
        return Data(found, highest_timeline(data_dir / "pg_wal"), _end_lsn(data_dir))
    except OSError as error:
        raise RecoveryError(f"{error.filename}: {error.strerror}: it says whether the data here can be kept") from error


def _end_lsn(data_dir: Path) -> int:
    """Where the highest segment ends whose names the WAL has; names are made ahead, so it is a bound from above."""
    size = _segment_bytes(data_dir)
    numbers = segment_numbers(data_dir / "pg_wal", size) if size else set[int]()
    return (max(numbers) + 1) * size if numbers else 0


def _segment_bytes(data_dir: Path) -> int:
    """As large as the segments are; 0 where there is none of a size that PostgreSQL has."""
    sizes = {path.stat().st_size for path in (data_dir / "pg_wal").iterdir() if len(path.name) == SEGMENT_NAME}
    return size if len(sizes) == 1 and (size := sizes.pop()) >= 1 << 20 else 0


def look(directory: Path, data: Data) -> SurvivorCopy:
    """Read a copy, changing nothing. NodeRunsError, RecoveryError, or OSError as it comes."""
    try:
        log, state = read_copy(directory, ClusterMachine())
    except DirectoryInUse as error:
        raise NodeRunsError(str(error)) from error
    except ReplicaError as error:
        raise RecoveryError(str(error)) from error
    return _survivor(log, state, data)


def _survivor(log: Copy, state: ClusterState, data: Data) -> SurvivorCopy:
    held = state.appointment
    return SurvivorCopy(
        FORMAT,
        log,
        epoch=held.epoch if held is not None else 0,
        primary=held.node if held is not None else "",
        position=state.last_known,
        data=data.incarnation,
        data_timeline=data.timeline,
        directories={member.name: member.incarnation for member in state.members.values() if member.incarnation},
        recovery=state.recovery,
        timeline=state.highest_timeline,
        grounds=state.grounds,
        synchronous=state.synchronous,
        data_lsn=data.end_lsn,
    )


def kept_data(own: SurvivorCopy, others: Sequence[SurvivorCopy], left: str = "") -> Mapping[str, str]:
    """R13a: member to the id of its data directory, of those that the cluster may go on with.

    What the log here does not count now is not made to count by this; and what a log knows that holds less than the one
    here is known here too. A standby may have followed a primary further than its replica heard of; its data is then
    on a timeline that is not in the log here. Whose journal is lost and whose data is `left` is kept by the operator's
    word, as the directory that the log here knows, and alone.
    """
    if left:
        return {left: own.directories[left]} if left in own.directories else {}
    state = ClusterState(recovery=own.recovery)
    return {
        copy.name: copy.data.id
        for copy in (own, *others)
        if copy.data.id and state.counts(copy.data.id, copy.data.recovery) and copy.data_timeline <= own.timeline
    }


def go_on_alone(directory: Path, expected: SurvivorCopy, kept: Mapping[str, str], address: str) -> Path:
    """Begin a new incarnation from this copy, and tell all that will be of it whose data is kept.

    Answers where the old journal is kept.

    NodeRunsError, RecoveryError or OSError: nothing was changed. A crash leaves the journal as before or as after.
    """
    try:
        with _as_owner_of(directory):
            return begin_anew(
                directory, expected.log, address, wall_s(), lambda number: encode_command(Recovered(number, kept))
            )
    except DirectoryInUse as error:
        raise NodeRunsError(str(error)) from error
    except ReplicaError as error:
        raise RecoveryError(str(error)) from error


@contextmanager
def _as_owner_of(directory: Path) -> Iterator[None]:
    """What root makes there belongs to whoever runs the node, who could not read it otherwise."""
    if os.geteuid() != 0:
        yield
        return
    owner, group = os.geteuid(), os.getegid()
    found = directory.stat()
    os.setegid(found.st_gid)
    os.seteuid(found.st_uid)
    try:
        yield
    finally:
        os.seteuid(owner)
        os.setegid(group)


def recovery_checks(
    own: SurvivorCopy,
    others: Sequence[SurvivorCopy],
    dead: Collection[str],
    answering: Collection[str],
    left: str = "",
    *,
    loss_accepted: bool = False,
) -> tuple[Check, ...]:
    """Every one must pass. `answering`: who of the dead takes connections on the raft port."""
    members = {member.name for member in own.log.members.all}
    return (
        _belongs(own),
        *(check for other in others for check in _other_copy(own, other, members)),
        *(_accounted(name, own, others, dead) for name in sorted(members - {own.name})),
        *(_dead(name, own, members, answering) for name in sorted(dead)),
        _majority_gone(own, others),
        *_data_left(own, others, left),
        *_named_data(own, others, dead, left),
        *_may_lack(own, others, left, loss_accepted=loss_accepted),
    )


def _belongs(own: SurvivorCopy) -> Check:
    detail = f"cluster id {own.log.cluster_id}, incarnation {own.log.incarnation}"
    empty = "has never belonged to a group: there is nothing to go on from"
    return Check("copy.empty", own.name, own.log.cluster_id != "", detail if own.log.cluster_id else empty)


def _other_copy(own: SurvivorCopy, other: SurvivorCopy, members: Collection[str]) -> Iterator[Check]:
    same = other.log.cluster_id == own.log.cluster_id and other.name in members and other.name != own.name
    detail = f"a copy of {own.log.cluster_id}, as this one is"
    if not same:
        detail = f"is of {other.name!r} of group {other.log.cluster_id or 'none'}: give copies of this group's others"
    yield Check("copy.other_group", other.name, same, detail)
    less = furthest([other.log, own.log]).reach == own.log.reach
    shown = f"its last entry is {_last(other)}, the one here is {_last(own)}"
    remedy = "" if less else f": recover on {other.name} instead"
    yield Check("copy.more_complete", other.name, less, shown + remedy)


def _last(copy: SurvivorCopy) -> str:
    return f"{copy.log.last_index} of term {copy.log.last_term}, incarnation {copy.log.incarnation}"


def _accounted(name: str, own: SurvivorCopy, others: Sequence[SurvivorCopy], dead: Collection[str]) -> Check:
    given = name in {other.name for other in others}
    if given and name in dead:
        return Check("member.accounted", name, False, "is named with --dead, and its copy is given: which one is it?")
    if given or name in dead:
        return Check("member.accounted", name, True, "its copy is given" if given else "named with --dead")
    hint = f"on its host run `appliance raft show -o json`, and give that here with --with; or --dead {name}"
    return Check("member.accounted", name, False, f"may live, or hold more than {own.name}: {hint}")


def _dead(name: str, own: SurvivorCopy, members: Collection[str], answering: Collection[str]) -> Check:
    if name == own.name or name not in members:
        known = ", ".join(sorted(set(members) - {own.name})) or "none"
        return Check("member.unknown", name, False, f"is none of the others in this copy: {known}")
    member = own.log.members.get(name)
    place = member.address if member is not None else ""
    if name in answering:
        return Check("member.dead", name, False, f"answers at {place}: it lives; start the node here and look")
    return Check("member.dead", name, True, f"does not answer at {place}")


def _named_data(own: SurvivorCopy, others: Sequence[SurvivorCopy], dead: Collection[str], left: str) -> Iterator[Check]:
    """No journal says what this data is of. It is the only data, so there is none that it could differ from."""
    if not left:
        return
    better = _complete(own, kept_data(own, others))
    if left not in dead:
        yield Check("data.named", left, False, "is not named with --dead: give its copy with --with, that says more")
    elif left not in own.directories:
        known = ", ".join(sorted(own.directories)) or "nobody"
        yield Check("data.named", left, False, f"the log here knows of no complete data there, but of {known}")
    else:
        detail = f"directory {own.directories[left]}, by your word"
        there = f"there is that of {', '.join(better)}, beside a journal: go on with that, {left} is cloned"
        yield Check("data.named", left, not better, there if better else detail)


def _data_left(own: SurvivorCopy, others: Sequence[SurvivorCopy], left: str) -> Iterator[Check]:
    """Of a cluster that has data some must be kept, and be complete: nobody could be elected without (R6, R13)."""
    if not own.directories:
        return
    if complete := _complete(own, kept_data(own, others, left)):
        yield Check("data.kept", "", True, f"the data of {', '.join(complete)}; all other data has to be cloned anew")
    else:
        looked = ", ".join(_data_in_words(own, copy) for copy in (own, *others))
        remedy = "give the copy of a host with one (--with), or name one whose journal alone is lost (--keep-data)"
        detail = f"no complete data directory that the log here knows: {looked}; {remedy}"
        yield Check("data.kept", "", False, detail)


def _may_lack(own: SurvivorCopy, others: Sequence[SurvivorCopy], left: str, *, loss_accepted: bool) -> Iterator[Check]:
    """R7, by what the log here says: is each acknowledged commit in what is kept? Positions say how much may not be."""
    if not own.grounds:
        return
    found = kept_data(own, others, left)
    kept = {name: found[name] for name in _complete(own, found)}
    reason = may_lack(own.grounds, kept, synchronous=own.synchronous)
    if reason is None:
        names = ", ".join(sorted(kept))
        detail = f"each commit that was acknowledged, as far as the log here tells, is in the data of {names} (R7)"
        yield Check("data.may_lack", "", True, detail)
        return
    detail = f"{reason} (R7). {_positions(own, others, kept)}"
    remedy = "" if loss_accepted else "; give the copies of more hosts with --with, or accept it: --allow-data-loss"
    yield Check("data.may_lack", "", loss_accepted, f"{detail}{' (accepted)' if loss_accepted else remedy}")


def _positions(own: SurvivorCopy, others: Sequence[SurvivorCopy], kept: Collection[str]) -> str:
    """What is known of the primary's WAL, and how far at most the kept data reach."""
    known = own.position
    if known is None:
        return "no position of the primary is known"
    said = f"{own.primary} had written {known.timeline}:{format_lsn(known.lsn)} at least, more since"
    ends = {copy.name: copy.data_lsn for copy in (own, *others) if copy.name in kept and copy.data_lsn}
    for name, lsn in sorted(ends.items()):
        behind = known.lsn - lsn
        short = f", {behind} bytes or more are missing" if behind > 0 else ""
        said += f"; the WAL of {name} ends at {format_lsn(lsn)} or before{short}"
    return said


def _complete(own: SurvivorCopy, kept: Mapping[str, str]) -> list[str]:
    """Whose directory is the one that the cluster knows (R13)."""
    return sorted(name for name, incarnation in kept.items() if own.directories.get(name) == incarnation)


def _data_in_words(own: SurvivorCopy, copy: SurvivorCopy) -> str:
    if copy.data_timeline > own.timeline:
        return f"{copy.name} has WAL of timeline {copy.data_timeline}, the log knows of {own.timeline}"
    return f"{copy.name} has {copy.data.id or 'none'} of recovery {copy.data.recovery}"


def _majority_gone(own: SurvivorCopy, others: Sequence[SurvivorCopy]) -> Check:
    """A voter lives if its copy is here and is the one that the members count: a name with its replica id."""
    voters = [member for member in own.log.members.all if member.voter]
    ids = {copy.log.replica_id for copy in (own, *others)}
    living = sorted(member.name for member in voters if member.replica_id in ids)
    needed = len(voters) // 2 + 1
    counted = f"{len(living)} of {len(voters)} voters left ({', '.join(living) or 'none'}), a majority is {needed}"
    remedy = "" if len(living) < needed else ": start their nodes, they need no recovery"
    return Check("majority.lives", "", len(living) < needed, counted + remedy)

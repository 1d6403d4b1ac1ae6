"""Who belongs to the consensus group: one immutable value, replaced whole by a log entry."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

Role: TypeAlias = Literal["voter", "learner", "joining"]

TEXT_LIMIT = 255
"""Characters of a member's name, replica id and address: no more can be read back from the log."""
MEMBERS_LIMIT = 64
"""Members of one group at most; far above what Raft is of use for."""


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """One replica. `replica_id` is drawn with its journal: another journal is another replica (R1)."""

    name: str
    replica_id: str
    address: str
    """Advertised host:port; may change without the replica becoming another."""
    role: Role
    """A learner receives the log and has no vote; a joining one is made a voter when it has caught up."""

    @property
    def voter(self) -> bool:
        return self.role == "voter"


@dataclass(frozen=True, slots=True)
class Members:
    """All members, sorted by name; names are unique."""

    all: tuple[Member, ...] = ()

    @staticmethod
    def of(members: Iterable[Member]) -> Members:
        """ValueError when a name is there twice or there are too many."""
        every = tuple(sorted(members))
        if len({member.name for member in every}) != len(every):
            raise ValueError(f"a name is there twice: {', '.join(member.name for member in every)}")
        if len(every) > MEMBERS_LIMIT:
            raise ValueError(f"{len(every)} members are more than {MEMBERS_LIMIT}")
        return Members(every)

    @property
    def voters(self) -> frozenset[str]:
        return frozenset(member.name for member in self.all if member.voter)

    @property
    def learners(self) -> frozenset[str]:
        return frozenset(member.name for member in self.all if not member.voter)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(member.name for member in self.all)

    def get(self, name: str) -> Member | None:
        return next((member for member in self.all if member.name == name), None)

    def with_member(self, member: Member) -> Members:
        """These members with this one added, or put in the place of the one of its name."""
        return Members.of([*(other for other in self.all if other.name != member.name), member])

    def without(self, name: str) -> Members:
        return Members(tuple(member for member in self.all if member.name != name))

    def adding(self, member: Member) -> Members:
        """These members and one more; ValueError, in words, when its name is taken or there are too many."""
        if (known := self.get(member.name)) is not None:
            raise ValueError(f"{member.name!r} is a member already, {known.role} at {known.address}: remove it first")
        return self.with_member(member)

    def removing(self, name: str) -> Members:
        """These members without this one; ValueError, in words, when it is none."""
        if self.get(name) is None:
            raise ValueError(f"{name!r} is no member; members are {', '.join(sorted(self.names))}")
        return self.without(name)

    def excluding(self, own: str, refusing: Collection[str]) -> tuple[str, ...]:
        """Those who refuse `own` as no member, if they are a majority of the other voters; otherwise none.

        `own` may have been removed while it was down, and these members may be old news: nobody else can tell it.
        """
        others = self.voters - {own}
        by = others.intersection(refusing)
        return tuple(sorted(by)) if 2 * len(by) > len(others) else ()

    def objection(self, wanted: Members) -> str | None:
        """Why one step may not lead from here to `wanted`: majorities of old and new must meet (one voter at a time).

        A voter is a name with its replica id: another journal under the same name is another voter.
        """
        old = {(member.name, member.replica_id) for member in self.all if member.voter}
        new = {(member.name, member.replica_id) for member in wanted.all if member.voter}
        if not new:
            return "no voter would be left"
        if unknown := sorted(name for name, replica_id in new if not replica_id):
            return f"{', '.join(unknown)} cannot be a voter before its replica id is known: let it join"
        if len(old ^ new) > 1:
            changed = ", ".join(sorted({name for name, _ in old ^ new}))
            return f"only one voter can change at a time, this changes {changed}"
        return None

    def pack(self) -> list[Any]:
        return [[member.name, member.replica_id, member.address, member.role] for member in self.all]

    @staticmethod
    def unpack(packed: object) -> Members:
        """ValueError when it is no list of members."""
        if not isinstance(packed, list):
            raise ValueError(f"{type(packed).__name__} is no list of members")
        return Members.of(_member(item) for item in packed)


def _member(item: object) -> Member:
    match item:
        case [str(name), str(replica_id), str(address), "voter" | "learner" | "joining" as role] if name:
            if max(len(name), len(replica_id), len(address)) <= TEXT_LIMIT:
                return Member(name, replica_id, address, role)
    raise ValueError(f"{item!r:.200} is no member")


class MembersLog:
    """Which members are in force at which place of the log: an entry counts from when it is written, not committed."""

    def __init__(self, index: int, members: Members) -> None:
        self._steps = [(index, members)]

    @property
    def current(self) -> Members:
        return self._steps[-1][1]

    @property
    def index(self) -> int:
        """Where the current members were written."""
        return self._steps[-1][0]

    def at(self, index: int) -> Members:
        """Who was in force once the entry at `index` had been written; it must not lie before the first."""
        return next(members for place, members in reversed(self._steps) if place <= index)

    def write(self, index: int, members: Members) -> None:
        self._steps.append((index, members))

    def truncate(self, index: int) -> bool:
        """The log lost its entries from here on; True when that brought older members back into force."""
        kept = [step for step in self._steps if step[0] < index]
        changed = len(kept) != len(self._steps)
        self._steps = kept
        return changed

    def forget_before(self, index: int) -> None:
        """Keep what `at` needs from this index on."""
        while len(self._steps) > 1 and self._steps[1][0] <= index:
            del self._steps[0]


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a replica says of itself when it connects."""

    replica_id: str
    cluster_id: str
    """Empty: it has never belonged to a group."""
    incarnation: int = 0
    """Grows when the group goes on without members that a majority was lost with."""
    address: str = ""
    """Where it wants to be looked for; empty when it does not say."""


def founders(cluster: str, replicas: Mapping[str, str], addresses: Mapping[str, str]) -> tuple[str, Members]:
    """The id and the members of a group that these replicas (name: replica id) found; equal on all of them."""
    said = "\n".join([cluster, *(f"{name} {replicas[name]}" for name in sorted(replicas))])
    members = Members.of(Member(name, replicas[name], addresses[name], "voter") for name in replicas)
    return hashlib.sha256(said.encode()).hexdigest()[:16], members


def mended(
    members: Members, own: str, introductions: Mapping[str, Introduction], caught_up: Collection[str]
) -> Members | None:
    """The next single step that a leader takes by itself, if one is due.

    A voter that came with another replica id has lost its journal: it is a learner until it has caught up (R1). Each
    member knows best where it is.
    """
    for member in members.all:
        said = introductions.get(member.name)
        if said is None:
            continue
        there = replace(member, address=said.address or member.address)
        if member.name != own and said.replica_id != member.replica_id:
            role: Role = "joining" if member.voter else member.role
            return members.with_member(replace(there, replica_id=said.replica_id, role=role))
        if there != member:
            return members.with_member(there)
    for member in members.all:
        if member.role == "joining" and member.name in caught_up:
            return members.with_member(replace(member, role="voter"))
    return None


def places_of(
    members: Members, configured: Mapping[str, str], introductions: Mapping[str, Introduction]
) -> dict[str, tuple[str, ...]]:
    """Where each member may be found, the likeliest first.

    The members in force may be old news here. What somebody says of its address counts only for the very replica that
    they name: another one under the same name must not be taken for it. An empty journal names no replica, and its
    configuration may be older news still: there the word of whoever comes is one more place to look, and the last.
    """
    if not members.all:
        return {
            name: _distinct(address, introductions[name].address if name in introductions else "")
            for name, address in configured.items()
        }
    found = {}
    for member in members.all:
        said = introductions.get(member.name)
        own_word = said.address if said is not None and said.replica_id == member.replica_id else ""
        found[member.name] = _distinct(own_word, member.address, configured.get(member.name, "")) or (member.address,)
    return found


def _distinct(*places: str) -> tuple[str, ...]:
    return tuple(place for place in dict.fromkeys(places) if place)

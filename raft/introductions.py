"""What a replica says of itself on a new connection, and what it wants to hear from the other side."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

from raft import address, codec
from raft.api import ReplicaError
from raft.certificates import Subject
from raft.codec import Message
from raft.members import TEXT_LIMIT, Introduction
from raft.refusals import RefusedByPeerError, RefusedError

Kind: TypeAlias = Literal["raft", "request", "join"]
"""What a connection is for: the log, questions and their answers, or the one question of who is no member yet."""

_REASON_LIMIT = 500
_KINDS: frozenset[str] = frozenset(get_args(Kind))


class Introducer:
    """Makes hello and welcome, and checks those of others: a RefusedError goes on from the other side's name."""

    def __init__(
        self,
        own: Subject,
        members: Mapping[str, str],
        introduction: Callable[[], Introduction],
        *,
        admits: Callable[[str], bool],
        certified: bool,
    ) -> None:
        """`admits` says whether somebody who is no member here, but of the group, may be heard for now."""
        self.own = own
        self.members = members
        """Name to address; replaced whole when it changes."""
        self._introduction = introduction
        self._admits = admits
        self._certified = certified
        self._session = secrets.token_hex(8)

    def hello(self, peer: str, kind: Kind) -> Message:
        return {**self._introduce("hello"), "kind": kind, "to": peer, "session": self._session}

    def welcome(self) -> Message:
        return self._introduce("welcome")

    def refuse(self, who: str, error: RefusedError) -> Message:
        return {"type": "refuse", "cluster": self.own.cluster, "reason": f"{who} {error}"[:_REASON_LIMIT]}

    def check_hello(self, hello: Message, shown: Subject | None) -> None:
        """`shown` is the name in the certificate."""
        who, joins = hello["from"], hello["kind"] == "join"
        if self._certified and not joins:
            self._check_certificate(who, hello, shown)
        self._check_cluster(hello)
        if hello["kind"] not in _KINDS:
            raise RefusedError("protocol", f"asks for an unknown kind of connection, {hello['kind'][:40]!r}")
        if hello["to"] != self.own.member:
            raise RefusedError(
                "identity",
                f"looks for {hello['to']!r}, this is {self.own.member!r}: check the addresses of the members",
            )
        if joins:
            return  # it has nothing to show; its question has to say why it should be let in
        self.check_caller(who, hello["kind"], introduction_of(hello))
        self.check_introduction(introduction_of(hello))

    def check_server(self, peer: str, shown: Subject | None) -> None:
        """Before anything is said to it."""
        expected = Subject(self.own.cluster, peer)
        if shown == expected:
            return
        if shown is None or shown.cluster != self.own.cluster:
            other = "no certificate" if shown is None else f"a certificate of cluster {shown.cluster!r}"
            raise RefusedError("certificate", f"shows {other}, ours is {self.own.cluster!r}")
        raise RefusedError(
            "identity", f"has the certificate of {shown.member!r}, not of {peer!r}: check the addresses of the members"
        )

    def check_answer(self, peer: str, answer: Message) -> None:
        """A welcome, or the reason why there is none."""
        if answer["type"] == "refuse" and answer["cluster"] == self.own.cluster:
            no_member = answer["reason"].startswith(f"{self.own.member!r} {_no_member(self.own.cluster)}")
            raise RefusedByPeerError(answer["reason"], no_member=no_member)
        self._check_cluster(answer)
        if answer["from"] != peer:
            raise RefusedError("identity", f"is {answer['from']!r}, not {peer!r}: check the addresses of the members")
        self.check_introduction(introduction_of(answer))

    def check_introduction(self, other: Introduction) -> None:
        """Whether the two may be of one group; also later, when this replica has come to belong to one."""
        _check_writable(other)
        own = self._introduction()
        if not own.cluster_id or not other.cluster_id:
            return
        if own.cluster_id != other.cluster_id:
            raise RefusedError(
                "cluster",
                f"belongs to the cluster {self.own.cluster!r} with id {other.cluster_id}, ours has {own.cluster_id}:"
                " these are two clusters under one name",
            )
        if other.incarnation < own.incarnation:
            raise RefusedError(
                "cluster",
                f"belongs to incarnation {other.incarnation}, which was replaced by {own.incarnation}"
                " with `raft recover`",
            )
        if other.incarnation > own.incarnation:
            raise RefusedError(
                "cluster",
                f"belongs to incarnation {other.incarnation}, which has replaced ours, {own.incarnation},"
                " with `raft recover`",
            )

    def fits(self, other: Introduction) -> bool:
        try:
            self.check_introduction(other)
        except RefusedError:
            return False
        return True

    def check_caller(self, name: str, kind: str, said: Introduction) -> None:
        """A member; or a guest on a connection of the log: one of this group that may have joined it unheard here.

        An empty journal is of no group yet: it may be that of a member that was lost, and a new name may lead.
        """
        if self.is_peer(name):
            return
        of_the_group = said.cluster_id != "" and self._introduction().cluster_id in {"", said.cluster_id}
        other = name != self.own.member
        if not (other and of_the_group and kind == "raft" and said.address and self._admits(name)):
            raise RefusedError("stranger", f"{_no_member(self.own.cluster)}: removed, or not added yet")

    def is_peer(self, name: str) -> bool:
        return name in self.members and name != self.own.member

    def _introduce(self, kind: str) -> Message:
        introduction = self._introduction()
        return {
            "type": kind,
            "proto": codec.PROTOCOL,
            "cluster": self.own.cluster,
            "cluster_id": introduction.cluster_id,
            "incarnation": introduction.incarnation,
            "from": self.own.member,
            "replica_id": introduction.replica_id,
            "address": introduction.address,
        }

    def _check_certificate(self, who: str, hello: Message, shown: Subject | None) -> None:
        if shown is None:
            raise RefusedError("certificate", f"shows no certificate: one of cluster {self.own.cluster!r} is needed")
        if shown.cluster != self.own.cluster:
            raise RefusedError(
                "certificate", f"shows a certificate of cluster {shown.cluster!r}, ours is {self.own.cluster!r}"
            )
        if shown.member != who or hello["cluster"] != shown.cluster:
            raise RefusedError(
                "identity",
                f"of cluster {hello['cluster']!r} has the certificate of {shown.member!r} of {shown.cluster!r}",
            )

    def _check_cluster(self, message: Message) -> None:
        if message["cluster"] != self.own.cluster:
            raise RefusedError("cluster", f"belongs to cluster {message['cluster']!r}, ours is {self.own.cluster!r}")


def _no_member(cluster: str) -> str:
    """Who is refused in these words knows what they mean: they stay as they are, like the shape of a `refuse`."""
    return f"is no other member of cluster {cluster!r}"


def _check_writable(other: Introduction) -> None:
    """Id and address may come into the log, and to every member with it."""
    if len(other.replica_id) > TEXT_LIMIT:
        raise RefusedError("protocol", f"has a replica id of {len(other.replica_id)} characters, over {TEXT_LIMIT}")
    if not other.address:
        return
    try:
        address.parse(other.address)
    except ReplicaError as error:
        raise RefusedError("protocol", f"says that it is at {other.address[:64]!r}, which is no address") from error


def introduction_of(message: Message) -> Introduction:
    return Introduction(message["replica_id"], message["cluster_id"], message["incarnation"], message["address"])

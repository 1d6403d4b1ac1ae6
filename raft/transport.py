"""The way of messages and requests from and to the peers.

Each replica speaks on connections it opened itself and listens on those that were opened to it. So a connection of the
log has one writer and one reader, and the lock on its cipher is hardly ever found taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raft import codec, messages
from raft.api import PeerStatus, ReplicaError
from raft.certificates import Subject
from raft.codec import Message
from raft.introductions import Introducer, Kind, introduction_of
from raft.link import Link, LinkEvents
from raft.members import Introduction
from raft.port import Incoming, Port, PortEvents
from raft.refusals import Reason, Refusals
from raft.tls import CertificateStatus, Contexts, Tls


def nobody_joins(name: str, question: bytes) -> bytes:  # noqa: ARG001  as `on_join`
    raise ReplicaError("this member lets nobody join")


@dataclass(frozen=True, slots=True)
class TransportEvents:
    """What the transport tells; called from its threads, so an owner must only enqueue."""

    on_introduced: Callable[[str, Introduction], None]
    """A peer has said which cluster it is of; before it is told as connected."""
    on_connected: Callable[[str], None]
    on_disconnected: Callable[[str], None]
    on_message: Callable[[str, messages.Message, Callable[[], None]], None]
    """From a peer; the last is to be called when the message has been worked on, or dropped: a peer with too many
    that have not been is not read from."""
    on_request: Callable[[Incoming, Message], None]
    on_answer: Callable[[str, Message], None]
    on_unanswered: Callable[[str], None]
    """What the peer was asked and has not answered, it will not answer any more."""
    on_refused: Callable[[str, str], None]
    """Peer or address, and a reason; once per kind of reason until all was well again."""
    on_join: Callable[[str, bytes], bytes] = nobody_joins
    """See `PortEvents.on_join`."""


@dataclass(frozen=True, slots=True)
class _Peer:
    """The two connections to one peer: questions never wait behind the log."""

    raft: Link
    request: Link

    def both(self) -> tuple[Link, Link]:
        return self.raft, self.request


class Transport:
    """Connections between this replica and its peers, from `listen()` to `close()`."""

    def __init__(
        self,
        own: Subject,
        members: Mapping[str, Sequence[str]],
        listen: str,
        security: Tls | None,
        *,
        introduction: Callable[[], Introduction],
        admits: Callable[[str], bool],
        events: TransportEvents,
    ) -> None:
        """TlsError when there is no usable certificate for `own`."""
        self._events = events
        self._contexts = None if security is None else Contexts(security, own)
        self._refusals = Refusals(events.on_refused)
        self._introducer = Introducer(own, {}, introduction, admits=admits, certified=security is not None)
        self._port = Port(
            listen,
            introducer=self._introducer,
            contexts=self._contexts,
            refusals=self._refusals,
            events=PortEvents(self._hello_heard, self._parted, events.on_message, events.on_request, events.on_join),
        )
        self._started = False
        self._mutex = threading.Lock()
        self._peers: Mapping[str, _Peer] = {}
        """Members, and guests, so that answers reach them; replaced whole under the mutex."""
        self.set_members(members)

    def listen(self) -> None:
        """Open the port (ReplicaError when it is taken) and begin to accept; links begin at `start()`."""
        self._port.open()

    def start(self) -> None:
        self._started = True
        if self._contexts is not None:
            self._contexts.start()
        for peer in self._peers.values():
            for link in peer.both():
                link.start()

    def set_members(self, members: Mapping[str, Sequence[str]]) -> None:
        """Name to addresses, the likeliest first, of all members from now on.

        For one thread, the owner's; waits for nothing. A peer that was dropped is told as disconnected, and nothing
        more is told of it.
        """
        with self._mutex:
            self._introducer.members = {name: places[0] for name, places in members.items()}
            self._port.look_again()
            guests = {name: places for name, places in self._places().items() if self._port.hosts(name)}
            others = {name: places for name, places in members.items() if self._introducer.is_peer(name)}
            self._replace_peers(guests | others)

    def look_again(self) -> None:
        """End connections that would not be made any more: this replica has come to belong to a group meanwhile."""
        for peer in self._peers.values():
            for link in peer.both():
                link.look_again()
        self._port.look_again()

    def send(self, peer: str, message: messages.Message) -> bool:
        """Send to a peer if there is a connection (False: it surely did not leave); never waits, promises nothing."""
        known = self._peers.get(peer)
        return known is not None and known.raft.connected and known.raft.send(codec.encode_log(message))

    def ask(self, peer: str, message: Message) -> str | None:
        """Send a question; answers why it could not be sent. Any thread."""
        known = self._peers.get(peer)
        if known is None:
            return f"{peer!r} is no member of this cluster"
        if known.request.send(codec.encode(message)):
            return None
        return known.request.problem or f"{peer}: connection lost"

    def status(self, match_index: Mapping[str, int]) -> tuple[PeerStatus, ...]:
        return tuple(
            PeerStatus(
                name=name,
                address=peer.raft.place,
                connected=peer.raft.connected,
                match_index=match_index.get(name),
                refusal=peer.raft.refusal,
                problem=peer.raft.problem,
                refused_us=peer.request.heard,  # guests get the other connection too, so it says nothing of members
            )
            for name, peer in sorted(self._peers.items())
            if self._introducer.is_peer(name)
        )

    def refusals(self) -> Mapping[Reason, int]:
        """How many connections were not let in, or not kept, by reason."""
        return self._refusals.counts()

    def certificate(self) -> CertificateStatus | None:
        """As seen at the last look, so that to ask waits for no file; None without TLS."""
        return None if self._contexts is None else self._contexts.certificate

    def close(self) -> None:
        self._port.close()
        if self._contexts is not None:
            self._contexts.close()
        for peer in self._peers.values():
            for link in peer.both():
                link.close()

    def _replace_peers(self, places: Mapping[str, Sequence[str]]) -> None:
        before = self._peers
        self._peers = {name: before.get(name) or self._meet(name, places[name]) for name in places}
        for name, peer in self._peers.items():
            for link in peer.both():
                link.move(places[name])
                if self._started and name not in before:
                    link.start()
        for name in before.keys() - self._peers.keys():
            self._refusals.forget(name)
            self._port.lost(name)
            for link in before[name].both():
                link.close()
            self._events.on_disconnected(name)

    def _meet(self, name: str, places: Sequence[str]) -> _Peer:
        raft = LinkEvents(
            on_up=lambda welcome: self._link_up(peer, welcome),
            on_down=lambda: self._link_down(peer),
            on_message=lambda _: None,
        )
        request = LinkEvents(
            on_up=lambda _: None,
            on_down=lambda: self._events.on_unanswered(name),
            on_message=lambda message: self._events.on_answer(name, message),
        )
        peer = _Peer(
            self._link(name, places, "raft", receives=frozenset(), events=raft),
            self._link(name, places, "request", receives=frozenset({"answer"}), events=request),
        )
        return peer

    def _link(
        self, name: str, places: Sequence[str], kind: Kind, *, receives: frozenset[str], events: LinkEvents
    ) -> Link:
        return Link(
            name,
            places,
            kind,
            introducer=self._introducer,
            contexts=self._contexts,
            refusals=self._refusals,
            receives=receives,
            events=events,
        )

    def _is_current(self, peer: _Peer) -> bool:
        """Dropped, and perhaps taken up again: what the old connection tells is over."""
        return self._peers.get(peer.raft.peer) is peer

    def _link_up(self, peer: _Peer, welcome: Message) -> None:
        if self._is_current(peer):
            name = peer.raft.peer
            self._refusals.forget(name)
            self._port.found(name, welcome["replica_id"])
            self._events.on_introduced(name, introduction_of(welcome))
            self._events.on_connected(name)

    def _link_down(self, peer: _Peer) -> None:
        if self._is_current(peer):
            self._port.lost(peer.raft.peer)
            self._events.on_disconnected(peer.raft.peer)

    def _hello_heard(self, hello: Message) -> None:
        name = hello["from"]
        with self._mutex:
            if not self._introducer.is_peer(name):
                self._replace_peers({**self._places(), name: (hello["address"],)})
        self._events.on_introduced(hello["from"], introduction_of(hello))

    def _parted(self, name: str) -> None:
        """A guest that has left is not looked for."""
        with self._mutex:
            if name in self._peers and not self._introducer.is_peer(name) and not self._port.hosts(name):
                self._replace_peers({peer: places for peer, places in self._places().items() if peer != name})

    def _places(self) -> dict[str, Sequence[str]]:
        return {name: peer.raft.places for name, peer in self._peers.items()}

"""The raft port: who may speak, and the way of messages and requests from and to the peers.

Each replica speaks on connections it opened itself and listens on those that were opened to it, so every
connection has one writer and one reader.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raft import address, codec
from raft.api import PeerStatus
from raft.codec import CodecError, FrameReader, Message
from raft.journal import Identity
from raft.link import HANDSHAKE_LIMIT_S, SILENCE_S, Link, LinkEvents, RefusedError

_CONNECTION_LIMIT = 128
"""Accepted connections at one time; more are closed unread."""


@dataclass(frozen=True, slots=True)
class TransportEvents:
    """What the transport tells; called from its threads, so an owner must only enqueue."""

    on_connected: Callable[[str], None]
    on_disconnected: Callable[[str], None]
    on_message: Callable[[str, Message], None]
    on_fresh: Callable[[str, bool], None]
    """A peer has said whether its log is still empty."""
    on_refused: Callable[[str, str], None]
    """Peer, or a name and where it came from, and a reason that was not the last one given for it."""


class Incoming:
    """A connection that a peer opened to us and that has been welcomed."""

    def __init__(self, connection: socket.socket, hello: Message) -> None:
        self.connection = connection
        self.peer: str = hello["from"]
        self.kind: str = hello["kind"]
        self.session: str = hello["session"]
        self.replica_id: str = hello["replica_id"]
        self._mutex = threading.Lock()

    def answer(self, message: Message) -> None:
        """Send one whole frame; a connection that cannot take it in time is closed."""
        try:
            with self._mutex:
                self.connection.sendall(codec.encode(message))
        except OSError:
            _shut(self.connection)


class Transport:
    """Connections between this replica and its peers, from `listen()` to `close()`."""

    def __init__(
        self,
        identity: Identity,
        members: Mapping[str, str],
        listen: str,
        *,
        fresh: Callable[[], bool],
        events: TransportEvents,
        on_request: Callable[[Incoming, Message], None],
    ) -> None:
        self._identity = identity
        self._members = members
        self._listen = listen
        self._fresh = fresh
        self._events = events
        self._on_request = on_request
        self._session = secrets.token_hex(8)
        self._mutex = threading.Lock()
        self._incoming: dict[tuple[str, str], Incoming] = {}
        self._genuine: dict[str, str] = {}
        self._open: set[socket.socket] = set()
        self._refusals: dict[str, str] = {}
        self._closed = threading.Event()
        self._listener: socket.socket | None = None
        self._links = {
            peer: self.link(peer, "raft", receives=frozenset(), events=self._link_events(peer))
            for peer in members
            if peer != identity.name
        }

    def listen(self) -> None:
        """Open the port (ReplicaError when it is taken) and begin to accept; links begin at `start()`."""
        self._listener = address.listener(self._listen)
        threading.Thread(target=self._accept, args=(self._listener,), name="raft accept", daemon=True).start()

    def start(self) -> None:
        for link in self._links.values():
            link.start()

    def link(self, peer: str, kind: str, *, receives: frozenset[str], events: LinkEvents) -> Link:
        """A link of this replica to a peer, not started yet."""
        return Link(
            peer,
            self._members[peer],
            hello=lambda: self._hello(peer, kind),
            check=lambda welcome: self._check_welcome(peer, welcome),
            receives=receives,
            events=events,
        )

    def send(self, peer: str, message: Message) -> bool:
        """Send to a peer if there is a connection; never blocks, promises nothing."""
        return self._links[peer].send(codec.encode(message))

    def status(self, match_index: Mapping[str, int]) -> tuple[PeerStatus, ...]:
        return tuple(
            PeerStatus(
                name=peer,
                address=link.place,
                connected=link.connected,
                match_index=match_index.get(peer),
                refusal=link.refusal,
                problem=link.problem,
            )
            for peer, link in sorted(self._links.items())
        )

    def close(self) -> None:
        with self._mutex:
            self._closed.set()
            connections = list(self._open)
        if self._listener is not None:
            _shut(self._listener)
            self._listener.close()
        for link in self._links.values():
            link.close()
        for connection in connections:
            _shut(connection)

    def _link_events(self, peer: str) -> LinkEvents:
        return LinkEvents(
            on_up=lambda welcome: self._link_up(peer, welcome),
            on_down=lambda: self._link_down(peer),
            on_message=lambda _: None,
            on_refused=lambda reason: self._note_refusal(peer, reason),
        )

    def _introduction(self, kind: str) -> Message:
        return {
            "type": kind,
            "proto": codec.PROTOCOL,
            "cluster": self._identity.cluster,
            "from": self._identity.name,
            "replica_id": self._identity.replica_id,
            "fresh": self._fresh(),
        }

    def _hello(self, peer: str, kind: str) -> Message:
        return {**self._introduction("hello"), "kind": kind, "to": peer, "session": self._session}

    def _check_welcome(self, peer: str, welcome: Message) -> None:
        place = self._members[peer]
        if welcome["cluster"] != self._identity.cluster:
            raise RefusedError(
                f"peer {peer} at {place} belongs to cluster {welcome['cluster']!r}, ours is {self._identity.cluster!r}"
            )
        if welcome["from"] != peer:
            raise RefusedError(f"{place} is {welcome['from']!r}, not {peer!r}: check the addresses of the members")

    def _link_up(self, peer: str, welcome: Message) -> None:
        """Who answers at a member's own address is that member; others under its name are turned out."""
        with self._mutex:
            for who in [who for who in self._refusals if who == peer or who.startswith(f"{peer} from ")]:
                del self._refusals[who]
            self._genuine[peer] = welcome["replica_id"]
            for incoming in self._incoming.values():
                if incoming.peer == peer and incoming.replica_id != welcome["replica_id"]:
                    _shut(incoming.connection)
        self._events.on_fresh(peer, welcome["fresh"])
        self._events.on_connected(peer)

    def _link_down(self, peer: str) -> None:
        with self._mutex:
            self._genuine.pop(peer, None)
        self._events.on_disconnected(peer)

    def _note_refusal(self, who: str, reason: str) -> None:
        """Tell once per reason: a refused peer tries again twice a second."""
        with self._mutex:
            known = self._refusals.get(who) == reason
            if len(self._refusals) < _CONNECTION_LIMIT or who in self._members:
                self._refusals[who] = reason
        if not known:
            self._events.on_refused(who, reason)

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                connection, place = listener.accept()
            except OSError:
                time.sleep(0.1)  # out of descriptors, or closed: never leave the port deaf
                continue
            with self._mutex:
                welcome = not self._closed.is_set() and len(self._open) < _CONNECTION_LIMIT
                if welcome:
                    self._open.add(connection)
            if not welcome:
                connection.close()
                continue
            threading.Thread(
                target=self._serve, args=(connection, str(place[0])), name=f"raft from {place[0]}", daemon=True
            ).start()

    def _serve(self, connection: socket.socket, host: str) -> None:
        try:
            with connection:
                self._converse(connection, host)
        except (OSError, CodecError):
            pass  # the peer comes back by itself, twice a second; its own link shows the reason
        finally:
            with self._mutex:
                self._open.discard(connection)

    def _converse(self, connection: socket.socket, host: str) -> None:
        address.tune(connection, SILENCE_S)
        reader = FrameReader(limit_bytes=64 * 1024)
        hello, early = _hello_and_rest(connection, reader)
        incoming = Incoming(connection, hello)
        reason = self._objection(hello) or self._register(incoming)
        if reason is not None:
            incoming.answer({"type": "refuse", "cluster": self._identity.cluster, "reason": reason})
            self._note_stranger(hello, host, reason)
            return
        try:
            # composed before the hello is passed on: the answer must be as old as what it answers
            incoming.answer(self._introduction("welcome"))
            self._events.on_fresh(incoming.peer, hello["fresh"])
            connection.settimeout(SILENCE_S)
            self._listen_to(incoming, early, reader)
        finally:
            self._unregister(incoming)

    def _objection(self, hello: Message) -> str | None:
        """Why whoever says this hello may not speak here, if so."""
        if hello["cluster"] != self._identity.cluster:
            return f"belongs to cluster {hello['cluster']!r}, ours is {self._identity.cluster!r}"
        if hello["proto"] != codec.PROTOCOL:
            return f"speaks protocol {hello['proto']}, we speak {codec.PROTOCOL}: run the same version everywhere"
        if hello["to"] != self._identity.name:
            return f"looks for {hello['to']!r}, this is {self._identity.name!r}: check the addresses of the members"
        if hello["from"] not in self._links:
            return f"{hello['from']!r} is no other member of this cluster"
        if hello["kind"] not in {"raft", "request"}:
            return f"asks for an unknown kind of connection, {hello['kind'][:40]!r}"
        return None

    def _register(self, incoming: Incoming) -> str | None:
        """Take a connection's place in the list of peers, or say who holds the name."""
        key = (incoming.peer, incoming.kind)
        with self._mutex:
            genuine = self._genuine.get(incoming.peer, incoming.replica_id) == incoming.replica_id
            held = [other for other in self._incoming.values() if other.peer == incoming.peer]
            if not genuine or any(other.session != incoming.session for other in held):
                return f"another process already speaks as {incoming.peer!r}: give each node a name of its own"
            if key in self._incoming:
                _shut(self._incoming[key].connection)
            self._incoming[key] = incoming
        return None

    def _unregister(self, incoming: Incoming) -> None:
        key = (incoming.peer, incoming.kind)
        with self._mutex:
            if self._incoming.get(key) is incoming:
                del self._incoming[key]

    def _note_stranger(self, hello: Message, host: str, reason: str) -> None:
        """Who calls itself as a member does while that one is connected is somebody else: its address is `host`."""
        name, link = hello["from"], self._links.get(hello["from"])
        if link is not None and not link.connected:
            self._note_refusal(name, f"peer {name} at {self._members[name]} {reason}")
        else:
            who = f"{name[:40]} from {host}"
            self._note_refusal(who, f"a node that calls itself {name[:40]!r} came from {host}: {reason}")

    def _listen_to(self, incoming: Incoming, early: list[bytes], reader: FrameReader) -> None:
        raft = incoming.kind == "raft"
        allowed = (codec.RAFT_TYPES if raft else frozenset({"request"})) | {"ping"}
        reader.limit_bytes = codec.FRAME_LIMIT_BYTES
        bodies = early
        while True:
            for body in bodies:
                self._take(incoming, codec.decode(body, allowed))
            data = incoming.connection.recv(65536)
            if not data:
                return
            bodies = reader.feed(data)

    def _take(self, incoming: Incoming, message: Message) -> None:
        if message["type"] == "ping":
            return
        if incoming.kind == "request":
            self._on_request(incoming, message)
        elif self._incoming.get((incoming.peer, "raft")) is incoming:
            # what a replaced connection still holds is older than what its successor brought
            self._events.on_message(incoming.peer, message)


def _hello_and_rest(connection: socket.socket, reader: FrameReader) -> tuple[Message, list[bytes]]:
    """What a stranger says first, and what it sent after that; all of it within one limit of time."""
    deadline_s = time.monotonic() + HANDSHAKE_LIMIT_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        connection.settimeout(left_s)
        data = connection.recv(4096)
        if not data:
            raise ConnectionResetError("closed before a hello")
        if bodies := reader.feed(data):
            return codec.decode(bodies[0], frozenset({"hello"})), bodies[1:]
    raise TimeoutError("no hello in time")


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is dead already, which is what was wanted

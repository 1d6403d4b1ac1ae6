"""The raft port: who comes in, for how long they may stay unknown, and what members say there.

Every connection has a thread of its own and its own bounds: whoever is slow or hostile costs the others nothing.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from raft import address, codec, messages
from raft.certificates import Subject
from raft.codec import CodecError, Message, OtherProtocol
from raft.connection import HANDSHAKE_LIMIT_S, Connection
from raft.introductions import Introducer, introduction_of
from raft.refusals import Refusals, RefusedError
from raft.tls import Contexts

CONNECTION_LIMIT = 128
"""Accepted connections at one time."""
UNKNOWN_LIMIT = 16
"""Of one address, those that have not said yet who they are."""
GUEST_LIMIT = 8
"""Replicas at one time that are no members, as far as this one knows."""
INBOX_LIMIT_BYTES = 16 * 1024 * 1024
INBOX_LIMIT_MESSAGES = 1024
"""What one peer has sent and the raft thread has not worked on."""
JOINING_LIMIT = 4
_QUESTIONS = frozenset({"request", "ping"})


class Incoming:
    """A connection that a member, or a guest, opened to us."""

    def __init__(self, connection: Connection, hello: Message) -> None:
        self.connection = connection
        self.peer: str = hello["from"]
        self.kind: str = hello["kind"]
        self.session: str = hello["session"]
        self.replica_id: str = hello["replica_id"]
        self.said = introduction_of(hello)

    def answer(self, message: Message) -> None:
        """Send it, if there is still somebody to send it to. Never waits."""
        self.connection.send(codec.encode(message))


class Inbox:
    """How much of one peer may wait for the raft thread: its own connection waits for room, and nobody else."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._messages = 0
        self._bytes = 0

    def enter(self, size_bytes: int, wanted: Callable[[], bool]) -> bool:
        """False when the message is not wanted any more."""
        with self._change:
            while wanted() and (self._messages >= INBOX_LIMIT_MESSAGES or self._bytes >= INBOX_LIMIT_BYTES):
                self._change.wait(0.1)
            if not wanted():
                return False
            self._messages += 1
            self._bytes += size_bytes
        return True

    def leave(self, size_bytes: int) -> None:
        with self._change:
            self._messages -= 1
            self._bytes -= size_bytes
            self._change.notify()


@dataclass(frozen=True, slots=True)
class PortEvents:
    """What the port tells; called from the connections' threads, so an owner must only enqueue."""

    on_hello: Callable[[Message], None]
    """Somebody was welcomed."""
    on_parted: Callable[[str], None]
    """A connection of the log has ended, and no other has taken its place."""
    on_message: Callable[[str, messages.Message, Callable[[], None]], None]
    """From a peer; the last is to be called when the message has been worked on, or dropped."""
    on_request: Callable[[Incoming, Message], None]
    on_join: Callable[[str, bytes], bytes]
    """The question of somebody who is no member and calls itself so: the answer, or an exception that says why not.
    Nothing has been proven. Called in the connection's own thread, so it may wait."""


@dataclass(slots=True)
class _Who:
    """What is known of somebody who comes in."""

    host: str
    name: str = ""
    """As it calls itself."""
    proven: bool = False
    """Its certificate says so too, or there are no certificates."""


@dataclass(slots=True)
class _Visitors:
    """All accepted connections, and the address of those that have not said yet who they are, oldest first."""

    all: set[Connection] = field(default_factory=set)
    unknown: dict[Connection, str] = field(default_factory=dict)

    def crowding(self, host: str) -> list[Connection] | None:
        """None: there is room. Otherwise who stands in the way: the oldest stranger, if any."""
        same = [connection for connection, other in self.unknown.items() if other == host]
        if len(same) >= UNKNOWN_LIMIT:
            return same[:1]
        if len(self.all) >= CONNECTION_LIMIT:
            return list(self.unknown)[:1]
        return None


class Port:
    """From `open()` to `close()`."""

    def __init__(
        self,
        listen: str,
        *,
        introducer: Introducer,
        contexts: Contexts | None,
        refusals: Refusals,
        events: PortEvents,
    ) -> None:
        self._listen = listen
        self._introducer = introducer
        self._contexts = contexts
        self._refusals = refusals
        self._events = events
        self._mutex = threading.Lock()
        self._visitors = _Visitors()
        self._incoming: dict[tuple[str, str], Incoming] = {}
        self._genuine: dict[str, str] = {}
        """Replica ids of those that answer at their member's own address."""
        self._inboxes: dict[str, Inbox] = {}
        self._joining = threading.Semaphore(JOINING_LIMIT)
        self._closed = threading.Event()
        self._listener: socket.socket | None = None

    def open(self) -> None:
        """Begin to accept; ReplicaError when the port is taken."""
        self._listener = address.listener(self._listen)
        threading.Thread(target=self._accept, args=(self._listener,), name="raft accept", daemon=True).start()

    def close(self) -> None:
        with self._mutex:
            self._closed.set()
            connections = list(self._visitors.all)
        if self._listener is not None:
            address.shut(self._listener)
            self._listener.close()
        for connection in connections:
            connection.end()

    def found(self, peer: str, replica_id: str) -> None:
        """This one answers at the peer's own address, so it is the peer; others under its name are turned out."""
        with self._mutex:
            self._genuine[peer] = replica_id
            for incoming in self._incoming.values():
                if incoming.peer == peer and incoming.replica_id != replica_id:
                    incoming.connection.end()

    def lost(self, peer: str) -> None:
        """Nobody answers at the peer's address."""
        with self._mutex:
            self._genuine.pop(peer, None)

    def look_again(self) -> None:
        """Turn out who is no member any more, and no guest, or of another group than this replica is by now."""
        with self._mutex:
            for incoming in self._incoming.values():
                if not self._may_stay(incoming):
                    incoming.connection.end()
            for peer in [peer for peer in self._inboxes if not self._introducer.is_peer(peer)]:
                del self._inboxes[peer]

    def hosts(self, name: str) -> bool:
        """Whether this one, who is no member, is here as a guest."""
        with self._mutex:
            incoming = self._incoming.get((name, "raft"))
            return incoming is not None and not self._introducer.is_peer(name) and self._may_stay(incoming)

    # -- accepting -----------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                accepted, place = listener.accept()
            except OSError:
                time.sleep(0.1)  # out of descriptors, or closed: never leave the port deaf
                continue
            host = str(place[0]).removeprefix("::ffff:")
            with contextlib.suppress(OSError, RuntimeError):  # it was reset already, or no thread can be had
                self._receive(accepted, host)

    def _receive(self, accepted: socket.socket, host: str) -> None:
        connection = Connection(accepted)
        with self._mutex:
            crowd = self._visitors.crowding(host)
            if crowd is None and not self._closed.is_set():
                self._visitors.all.add(connection)
                self._visitors.unknown[connection] = host
        if crowd is not None:
            # the oldest stranger goes as well: a crowd of silent ones keeps nobody out who tries again
            self._refusals.note(RefusedError("crowded", f"too many connections at once from {host}, or in all"), host)
            for stranger in crowd:
                stranger.end()
        if crowd is not None or self._closed.is_set():
            connection.close()
            return
        thread = threading.Thread(target=self._serve, args=(connection, host), name=f"raft from {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._forget(connection)
            raise

    def _serve(self, connection: Connection, host: str) -> None:
        who = _Who(host)
        try:
            self._converse(connection, who)
        except RefusedError as error:
            self._note(who, error)
        except CodecError as error:
            self._note(who, RefusedError("junk", f"sent what has no place here: {error}"))
        except OSError:
            pass  # the peer comes back by itself, twice a second; its own link shows the reason
        except Exception as error:  # noqa: BLE001  a stranger may find a defect, but not use it to be heard
            self._note(who, RefusedError("defect", f"was met with a defect: {type(error).__name__}: {error}"))
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        connection.close()
        with self._mutex:
            self._visitors.all.discard(connection)
            self._visitors.unknown.pop(connection, None)

    def _note(self, who: _Who, error: RefusedError) -> None:
        peer = who.name if who.proven and self._introducer.is_peer(who.name) else None
        if peer is not None:
            subject = f"peer {peer} at {self._introducer.members.get(peer)}"
        elif who.name:
            subject = f"a node that calls itself {who.name[:64]!r} at {who.host}"
        else:
            subject = f"somebody at {who.host}"
        self._refusals.note(RefusedError(error.reason, f"{subject} {error}", peer), who.host)

    # -- speaking ------------------------------------------------------------------------------------

    def _converse(self, connection: Connection, who: _Who) -> None:
        try:
            shown = self._shake_hands(connection)
            hello = self._hear_hello(connection)
        except TimeoutError as error:
            raise RefusedError("silent", f"said nothing whole within {HANDSHAKE_LIMIT_S:g} s") from error
        incoming = Incoming(connection, hello)
        who.name = incoming.peer
        who.proven = self._contexts is None or (shown is not None and shown.member == incoming.peer)
        try:
            self._introducer.check_hello(hello, shown)
            if incoming.kind == "join":
                self._let_in(connection, hello)
                return
            self._register(incoming)
        except RefusedError as error:
            connection.part(self._introducer.refuse(repr(incoming.peer[:64]), error))
            raise
        try:
            # composed before the hello is passed on: the answer must be as old as what it answers
            connection.say(self._introducer.welcome())
            self._events.on_hello(hello)
            if connection.begin():
                self._listen_to(incoming)
        finally:
            self._unregister(incoming)

    def _shake_hands(self, connection: Connection) -> Subject | None:
        if self._contexts is None:
            return None
        own = self._contexts.current()
        return connection.secure(own.server, server=True, own_expires_at=own.expires_at)

    def _let_in(self, connection: Connection, hello: Message) -> None:
        """Answer the one question of a node that asks to join."""
        question = codec.decode(connection.hear(), frozenset({"request"}))
        if not self._joining.acquire(blocking=False):
            raise RefusedError("crowded", f"asks to join, and {JOINING_LIMIT} others do at this moment: try again")
        try:
            payload = self._events.on_join(hello["from"], question["payload"])
        except Exception as error:
            raise RefusedError("stranger", f"asks to join, and may not: {error}") from error
        finally:
            self._joining.release()
        connection.part({"type": "answer", "id": question["id"], "ok": True, "payload": payload})

    def _hear_hello(self, connection: Connection) -> Message:
        try:
            return codec.decode(connection.hear(), frozenset({"hello"}))
        except OtherProtocol as error:
            refused = RefusedError("protocol", str(error))
            connection.part(self._introducer.refuse("this replica", refused))
            raise refused from error

    def _register(self, incoming: Incoming) -> None:
        """Take a connection's place in the list of peers, or say who holds the name."""
        key = (incoming.peer, incoming.kind)
        with self._mutex:
            genuine = self._genuine.get(incoming.peer, incoming.replica_id) == incoming.replica_id
            held = [other for other in self._incoming.values() if other.peer == incoming.peer]
            if not genuine or any(other.session != incoming.session for other in held):
                raise RefusedError(
                    "double",
                    f"comes second: another process already speaks as {incoming.peer!r};"
                    " give each node a name of its own",
                )
            # once more: it may have been dropped, or this replica has come to belong to another group, just now
            self._check_caller(incoming)
            self._check_room(incoming.peer)
            if key in self._incoming:
                self._incoming[key].connection.end()
            self._incoming[key] = incoming
            self._visitors.unknown.pop(incoming.connection, None)

    def _may_stay(self, incoming: Incoming) -> bool:
        try:
            self._check_caller(incoming)
        except RefusedError:
            return False
        return True

    def _check_caller(self, incoming: Incoming) -> None:
        self._introducer.check_caller(incoming.peer, incoming.kind, incoming.said)
        self._introducer.check_introduction(incoming.said)

    def _check_room(self, name: str) -> None:
        """Guests take no place from members, nor from each other."""
        guests = {peer for peer, _ in self._incoming if not self._introducer.is_peer(peer)}
        if not self._introducer.is_peer(name) and len(guests | {name}) > GUEST_LIMIT:
            raise RefusedError("crowded", f"is one too many of those that are no members here, over {GUEST_LIMIT}")

    def _unregister(self, incoming: Incoming) -> None:
        with self._mutex:
            current = self._is_current(incoming)
            if current:
                del self._incoming[incoming.peer, incoming.kind]
            if not self._introducer.is_peer(incoming.peer):
                self._inboxes.pop(incoming.peer, None)
        if current and incoming.kind == "raft":
            self._events.on_parted(incoming.peer)

    def _is_current(self, incoming: Incoming) -> bool:
        return self._incoming.get((incoming.peer, incoming.kind)) is incoming

    def _listen_to(self, incoming: Incoming) -> None:
        if incoming.kind == "request":
            incoming.connection.run(lambda body: self._take_question(incoming, body), pings=False)
            return
        with self._mutex:
            inbox = self._inboxes.setdefault(incoming.peer, Inbox())
        incoming.connection.run(lambda body: self._take(incoming, inbox, body), pings=False)

    def _take_question(self, incoming: Incoming, body: bytes) -> None:
        message = codec.decode(body, _QUESTIONS)
        if message["type"] != "ping":
            self._events.on_request(incoming, message)

    def _take(self, incoming: Incoming, inbox: Inbox, body: bytes) -> None:
        self._check_caller(incoming)  # a guest stays for as long as it may be news
        message = codec.decode_log(body)
        # what a replaced connection still holds is older than what its successor brought
        if message is not None and inbox.enter(len(body), lambda: self._is_current(incoming)):
            self._events.on_message(incoming.peer, message, lambda: inbox.leave(len(body)))

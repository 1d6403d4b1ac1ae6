"""One outgoing connection to one peer: a thread of its own resolves, connects, reads and connects again."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raft import address, codec
from raft.api import HeardRefusal, ReplicaError
from raft.codec import CodecError, Message, OtherProtocol
from raft.connection import Connection, ExpiredError
from raft.introductions import Introducer, Kind, introduction_of
from raft.members import Introduction
from raft.refusals import Refusals, RefusedByPeerError, RefusedError
from raft.tls import Contexts

CONNECT_LIMIT_S = 1.0
_RETRY_S = (0.2, 0.5)
_ANSWERS = frozenset({"welcome", "refuse"})


@dataclass(frozen=True, slots=True)
class LinkEvents:
    """What a link tells its owner; called from the link's thread."""

    on_up: Callable[[Message], None]
    """With the peer's welcome."""
    on_down: Callable[[], None]
    on_message: Callable[[Message], None]


class Link:
    """Keeps a connection to a peer up, from `start()` to `close()`.

    All but its thread may be used from any thread, and waits for nothing.
    """

    def __init__(
        self,
        peer: str,
        places: Sequence[str],
        kind: Kind,
        *,
        introducer: Introducer,
        contexts: Contexts | None,
        refusals: Refusals,
        receives: frozenset[str],
        events: LinkEvents,
    ) -> None:
        self.peer = peer
        self.place = places[0]
        """Where it is connected to, or was looked for last."""
        self.places = places
        self._kind = kind
        self._introducer = introducer
        self._contexts = contexts
        self._refusals = refusals
        self._receives = receives
        self._events = events
        self._opening: Connection | None = None
        self._met = False
        self._refused = False
        self._expired = False
        self._connection: Connection | None = None
        self._problem: str | None = f"peer {peer} at {self.place}: not connected yet"
        self._refusal: str | None = None
        self._heard: tuple[RefusedByPeerError, float] | None = None
        self._introduced: Introduction | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"raft {kind} to {peer}", daemon=True)

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def problem(self) -> str | None:
        """Why there is no connection; None when there is one."""
        return self._problem

    @property
    def refusal(self) -> str | None:
        """Why the peer or this replica would not talk at the last try; None when nobody minded, or nobody was there."""
        return self._refusal

    @property
    def heard(self) -> HeardRefusal | None:
        """The peer's own last word why it would not talk to us, however long ago; None once it has talked."""
        heard = self._heard
        if heard is None:
            return None
        said, at_s = heard
        return HeardRefusal(said.words, time.monotonic() - at_s, no_member=said.no_member)

    def start(self) -> None:
        self._thread.start()

    def send(self, frame: bytes) -> bool:
        """Send, or queue, a frame; False when there is no connection to send it on. Never waits."""
        connection = self._connection
        return connection is not None and connection.send(frame)

    def move(self, places: Sequence[str]) -> None:
        """The peer is at one of these from now on, most likely at the first; a connection to one of them stays."""
        self.places = places
        if self.place not in places:
            self.place = places[0]
            self._end()

    def look_again(self) -> None:
        """End a connection to one that this replica would not talk to any more; the next try says why."""
        if self._introduced is not None and not self._introducer.fits(self._introduced):
            self._end()

    def close(self) -> None:
        """End the thread; it may be in a name lookup, so it is not waited for."""
        self._closed.set()
        self._end()

    def _end(self) -> None:
        if (opening := self._opening) is not None:
            opening.end()

    def _run(self) -> None:
        while not self._closed.is_set():
            places, self._refused, self._expired = self.places, False, False
            for place in places:
                if self._visit(place) or self._closed.is_set() or places is not self.places:
                    break
            if not self._expired:  # a renewed certificate costs no pause: all connections may end in the same second
                self._closed.wait(random.uniform(*_RETRY_S))  # noqa: S311  spreads load, keeps no secret

    def _visit(self, place: str) -> bool:
        """Look for the peer at one place; True when it was there."""
        self._met = False
        try:
            self._connect(place)
        except RefusedError as error:
            self._note(place, error)
        except OtherProtocol as error:
            self._note(place, RefusedError("protocol", str(error)))
        except CodecError as error:
            self._note(place, RefusedError("junk", f"sent what has no place here: {error}"))
        except (OSError, ReplicaError) as error:
            self._expired = isinstance(error, ExpiredError)
            if not self._refused:  # at another place of this round, which says more
                self._problem, self._refusal = f"peer {self.peer} at {place}: {address.reason(error)}", None
        except Exception as error:  # noqa: BLE001  the thread must go on: without it the peer is lost for good
            self._note(place, RefusedError("defect", f"was met with a defect: {type(error).__name__}: {error}"))
        return self._met

    def _note(self, place: str, error: RefusedError) -> None:
        told = RefusedError(error.reason, f"peer {self.peer} at {place} {error}", self.peer)
        self._problem = self._refusal = str(told)
        self._refused = True
        if isinstance(error, RefusedByPeerError):
            self._heard = error, time.monotonic()
        self._refusals.note(told, place)

    def _connect(self, place: str) -> None:
        self.place = place
        connection = Connection(socket.create_connection(address.parse(place), timeout=CONNECT_LIMIT_S))
        try:
            self._opening = connection
            if self._closed.is_set() or place not in self.places:
                return
            self._converse(connection)
        finally:
            self._opening = None
            connection.close()

    def _converse(self, connection: Connection) -> None:
        if self._contexts is not None:
            own = self._contexts.current()
            shown = connection.secure(own.client, server=False, own_expires_at=own.expires_at)
            self._introducer.check_server(self.peer, shown)
        connection.say(self._introducer.hello(self.peer, self._kind))
        welcome = codec.decode(connection.hear(), _ANSWERS)
        self._introducer.check_answer(self.peer, welcome)
        self._introduced = introduction_of(welcome)
        self.look_again()  # this replica may have come to belong to a group since
        if not connection.begin():
            return
        self._connection = connection
        self._met = True
        self._problem = self._refusal = self._heard = None
        self._events.on_up(welcome)
        try:
            connection.run(lambda body: self._events.on_message(codec.decode(body, self._receives)), pings=True)
        finally:
            self._connection = None
            self._problem = f"peer {self.peer} at {self.place}: connection lost"
            self._events.on_down()

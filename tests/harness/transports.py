"""Transports without a replica, and strangers who speak to them by hand."""

import contextlib
import socket
import ssl
import threading
import time

import msgpack

from raft.certificates import Subject
from raft.codec import PROTOCOL, FrameReader, encode
from raft.members import Introduction
from raft.messages import Vote
from raft.transport import Transport, TransportEvents
from tests.harness.raft_messages import FROM


class Party:
    """A transport whose owner keeps what it is told. With `holds`, messages stay in the inbox until `work()`."""

    def __init__(self, name, members, certificates=None, *, cluster="c", listen=None, holds=False, **more):
        self.name = name
        self.members = members
        self.said = Introduction(f"id of {name}", "", 0)
        self.admitted = set()
        """Names that are heard although they are no members."""
        self.told = []
        self.messages = {peer: [] for peer in members}
        self.refusals = []
        self.requests = []
        self.answers = []
        self.says = None
        """What every request is answered with."""
        self.holds = holds
        self.held = []
        self.transport = Transport(
            Subject(cluster, name),
            alternatives(members),
            listen or members[name],
            certificates and certificates.member(name),
            introduction=lambda: self.said,
            admits=lambda name: name in self.admitted,
            events=TransportEvents(
                on_introduced=lambda peer, said: self.told.append(("introduced", peer, said)),
                on_connected=lambda peer: self.told.append(("connected", peer)),
                on_disconnected=lambda peer: self.told.append(("disconnected", peer)),
                on_message=self.take,
                on_request=self.answer,
                on_answer=lambda peer, message: self.answers.append((peer, message)),
                on_unanswered=lambda peer: self.told.append(("unanswered", peer)),
                on_refused=lambda who, reason: self.refusals.append((who, reason)),
                **more,
            ),
        )

    def start(self):
        self.transport.listen()
        self.transport.start()
        return self

    def set_members(self, members):
        self.transport.set_members(alternatives(members))

    def take(self, peer, message, done):
        self.messages.setdefault(peer, []).append(message)
        if self.holds:
            self.held.append(done)
        else:
            done()

    def work(self):
        self.holds = False
        while self.held:
            self.held.pop()()

    def answer(self, incoming, message):
        self.requests.append((incoming.peer, message))
        said = self.says or {"ok": True, "payload": message["payload"][::-1]}
        incoming.answer({"type": "answer", "id": message["id"], **said})

    def ask(self, peer, payload):
        return self.transport.ask(peer, {"type": "request", "id": len(self.answers), "payload": payload})

    def send(self, peer, number=0):
        return self.transport.send(peer, Vote(*FROM, number, number, True))

    def connected(self, peer):
        return next(status.connected for status in self.transport.status({}) if status.name == peer)

    def problem(self, peer):
        return next(status.problem for status in self.transport.status({}) if status.name == peer)

    def terms(self, peer):
        return [message.term for message in self.messages.get(peer, [])]

    def count(self, reason):
        return self.transport.refusals()[reason]

    def close(self):
        self.transport.close()


def alternatives(members):
    """Name to places, given name to address or to places."""
    return {name: (place,) if isinstance(place, str) else place for name, place in members.items()}


class Stranger:
    """A client of Python's own sockets and TLS, that says what it likes."""

    def __init__(self, place, tls=None, *, trusts=None, source="127.0.0.1"):
        host, _, port = place.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=5, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None or trusts is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations((trusts or tls).ca)
            if tls is not None:
                context.load_cert_chain(tls.cert, tls.key)
            self.socket = context.wrap_socket(self.socket)
        self.reader = FrameReader()

    def hello(self, member, other_member, /, **other):
        """Says hello, and answers what comes back."""
        self.say(hello(member, other_member, **other))
        return self.hear()

    def say(self, message):
        self.socket.sendall(message if isinstance(message, bytes) else encode(message))

    def hear(self):
        """The next message; None when the connection has ended."""
        try:
            while data := self.socket.recv(65536):
                if bodies := self.reader.feed(data):
                    return msgpack.unpackb(bodies[0])
        except (ConnectionError, ssl.SSLError):
            pass
        return None

    def is_shut_within(self, limit_s):
        """Whether the other side ends the connection in time; what it says until then does not count."""
        deadline_s = time.monotonic() + limit_s
        try:
            while (left_s := deadline_s - time.monotonic()) > 0:
                self.socket.settimeout(left_s)
                if not self.socket.recv(65536):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def hello(member, other_member, /, **other):
    return {
        "type": "hello",
        "proto": PROTOCOL,
        "cluster": "c",
        "cluster_id": "",
        "incarnation": 0,
        "from": member,
        "replica_id": f"id of {member}",
        "address": "",
        "kind": "raft",
        "to": other_member,
        "session": "s",
    } | other


class Recorder:
    """A proxy that keeps what its clients say."""

    def __init__(self, place):
        host, _, port = place.rpartition(":")
        self.target = (host, int(port))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.said = []
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target, timeout=5)
            except OSError:
                return
            self.sockets += [client, server]
            said = bytearray()
            self.said.append(said)
            threading.Thread(target=pump, args=(client, server, said), daemon=True).start()
            threading.Thread(target=pump, args=(server, client, bytearray()), daemon=True).start()

    def close(self):
        for each in (self.listener, *self.sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def pump(source, sink, kept):
    try:
        while data := source.recv(65536):
            kept += data
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass

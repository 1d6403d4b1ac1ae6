"""One connection to the guard: JSON lines over a unix socket, and what can go wrong with it."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]


class GuardError(Exception):
    """The guard refused, or gave no answer; `code` says which, for programs.

    After `timeout` or `unreachable` it is unknown whether the request was carried out: ask for the status.
    """

    def __init__(self, code: str, because: str) -> None:
        super().__init__(f"guard: {because} ({code})")
        self.code = code


class Connection:
    """Each step has a limit."""

    def __init__(self, address: str, until_s: float) -> None:
        self._heard = b""
        try:
            self.socket = socket.socket(socket.AF_UNIX)
        except OSError as error:  # out of descriptors: that says nothing about the guard
            raise GuardError("timeout", f"no connection: {error.strerror}") from error
        self._limit(until_s)
        try:
            self.socket.connect(address)
        except OSError as error:
            self.socket.close()
            raise _failure(error) from error

    def peer(self) -> int:
        """The pid of whoever listens, from the kernel: no other process can have got it meanwhile."""
        pid, _, _ = struct.unpack("3i", self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)

    def send(self, message: Message, until_s: float) -> None:
        self._limit(until_s)
        try:
            self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise _failure(error) from error

    def next(self, until_s: float) -> Message:
        """Wait for a message."""
        while b"\n" not in self._heard:
            self._limit(until_s)
            self._receive()
        return self._take()

    def arrived(self) -> Iterator[Message]:
        """Give the messages that are here without waiting."""
        while True:
            while b"\n" in self._heard:
                yield self._take()
            self.socket.setblocking(False)
            try:
                self._receive()
            except BlockingIOError:
                return

    def _limit(self, until_s: float) -> None:
        self.socket.settimeout(max(0.001, until_s - time.monotonic()))

    def _receive(self) -> None:
        try:
            heard = self.socket.recv(65536)
        except BlockingIOError:
            raise
        except OSError as error:
            raise _failure(error) from error
        if not heard:
            raise GuardError("unreachable", "it closed the connection")
        self._heard += heard

    def _take(self) -> Message:
        line, _, self._heard = self._heard.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise GuardError("garbled", "it sent something that is no message")
        return message


def _failure(error: OSError) -> GuardError:
    """Tell silence from absence."""
    if isinstance(error, TimeoutError | BlockingIOError):
        return GuardError("timeout", "no answer in time")
    return GuardError("unreachable", error.strerror or str(error))


def granted(answer: Message) -> Message:
    if answer.get("ok") is not True:
        raise GuardError(str(answer.get("error")), str(answer.get("detail")))
    return answer

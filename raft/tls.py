"""TLS between members: the name in a certificate of the cluster's own authority says who speaks.

TLS 1.3 only, and nothing is resumed: every connection proves anew who is at its ends. Host names play no part, members
may move.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.x509 import Certificate

from raft import certificates
from raft.api import ReplicaError
from raft.certificates import CertificateError, Subject

T = TypeVar("T")

_Stamp: TypeAlias = tuple[tuple[int, int, int] | None, ...]

_RECORD_BYTES = 16 * 1024
LOOK_S = 10.0
"""Between two looks at the files of the own certificate; a connection that finds others calls for one at once."""
TRIAL_S = 60.0
"""Files that did not change are tried again after this long: the time passes for authorities too."""
_EXPIRED, _NOT_YET_VALID = 10, 9
_NO_ISSUER = frozenset({18, 19, 20, 21})
"""OpenSSL's numbers for what is wrong with a certificate."""

_NO_TLS = frozenset({"HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNSUPPORTED_PROTOCOL", "WRONG_VERSION_NUMBER"})
_ALERTS = {
    "CERTIFICATE_EXPIRED": "says that our certificate has expired",
    "UNKNOWN_CA": "does not trust the authority of our certificate",
    "BAD_CERTIFICATE": "does not accept our certificate; is it valid already, by the clock there?",
    "UNSUPPORTED_CERTIFICATE": "does not accept our certificate for this use",
}


class TlsError(ReplicaError):
    """The files do not make a certificate that can be used; the message names the file and what would do."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Where a member's certificate lies, its key, and the certificates of the authorities it trusts."""

    ca: Path
    cert: Path
    key: Path

    def subject(self) -> Subject:
        """Whom the certificate is for; TlsError when it cannot be read."""
        return self._certificate(certificates.subject_of)

    def expires_at(self) -> datetime:
        return self._certificate(certificates.expires_at)

    def problem(self, now: datetime | None = None) -> str | None:
        """Why peers would not accept this certificate now, with the remedy; None when they would.

        Not looked at: whether they trust the same authorities.
        """
        try:
            return self._untimely(now or datetime.now(UTC)) or self._unfit()
        except TlsError as error:
            return str(error)

    def status(self) -> CertificateStatus:
        try:
            return CertificateStatus(self.expires_at(), self.problem())
        except TlsError as error:
            return CertificateStatus(None, str(error))

    def _untimely(self, now: datetime) -> str | None:
        begin, end = self._certificate(lambda found: (found.not_valid_before_utc, found.not_valid_after_utc))
        if now > end:
            return f"the certificate in {self.cert} expired on {certificates.words(end)}: renew it"
        if now < begin:
            return (
                f"the certificate in {self.cert} is valid from {certificates.words(begin)} on,"
                f" and here it is {certificates.words(now)}: set the clock"
            )
        return None

    def _unfit(self) -> str | None:
        """Tried on oneself: what OpenSSL says here is what it would say at a peer."""
        server, client = Sealed(_context(self, server=True), server=True), Sealed(_context(self, server=False))
        try:
            while not (client.established() and server.established()):
                server.receive(client.to_send())
                server.established()
                client.receive(server.to_send())
        except ssl.SSLCertVerificationError as error:
            return f"the certificate in {self.cert} is of no use with the authorities in {self.ca}: {_verdict(error)}"
        except ssl.SSLError as error:
            return f"the certificate in {self.cert} is of no use: {error}"
        return None

    def _certificate(self, part: Callable[[Certificate], T]) -> T:
        try:
            return part(certificates.certificates_from_pem(_content(self.cert))[0])
        except CertificateError as error:
            raise TlsError(f"{self.cert}: {error}") from error


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    expires_at: datetime | None
    """None when the certificate cannot be read."""
    problem: str | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What connections are made with, as the files were when they were loaded."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    expires_at: datetime
    """Of the certificate that either of them shows."""


class Contexts:
    """What new connections are made with. The files are looked at before each, so that a renewal needs no restart.

    Files that cannot be used (half of them replaced, say) change nothing: the last usable ones go on, and
    `certificate` tells.
    """

    def __init__(self, tls: Tls, subject: Subject) -> None:
        """TlsError when there is nothing to begin with."""
        self._tls = tls
        self._subject = subject
        self._mutex = threading.Lock()
        self._stamp = _stamp(tls)
        self._credentials = self._load()
        self._looked: tuple[_Stamp, float] = self._stamp, time.monotonic()
        self.certificate = tls.status()
        """How things stand, as seen at the last look. Replaced whole: to read it costs nothing."""
        self._wake = threading.Event()
        self._closed = False

    def start(self) -> None:
        """Look from now on, in a thread of its own: no reader waits for a file, or for the handshake of a trial."""
        threading.Thread(target=self._run, name="raft certificate", daemon=True).start()

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def look(self) -> None:
        """See how things stand, if that can have changed. Costs as much as a handshake then; for one thread."""
        stamp, now_s = _stamp(self._tls), time.monotonic()
        known, looked_s = self._looked
        if stamp != known or now_s - looked_s > TRIAL_S or self._has_expired():
            self._looked = stamp, now_s
            self.certificate = self._look()

    def current(self) -> Credentials:
        with self._mutex:
            stamp = _stamp(self._tls)
            if stamp != self._stamp:
                self._wake.set()
                try:
                    self._credentials = self._load()
                    self._stamp = stamp
                except TlsError:
                    pass  # and tried again at the next connection
            return self._credentials

    def _run(self) -> None:
        while not self._closed:
            self.look()
            self._wake.wait(LOOK_S)
            self._wake.clear()

    def _look(self) -> CertificateStatus:
        try:
            status = self._tls.status()
            return status if status.problem is not None else CertificateStatus(status.expires_at, self._misplaced())
        except Exception as error:  # noqa: BLE001  the thread must go on: nobody else would tell anything
            return CertificateStatus(None, f"{self._tls.cert} cannot be used: {type(error).__name__}: {error}")

    def _has_expired(self) -> bool:
        end, problem = self.certificate.expires_at, self.certificate.problem
        return problem is None and end is not None and datetime.now(UTC) > end

    def _load(self) -> Credentials:
        if (misplaced := self._misplaced()) is not None:
            raise TlsError(misplaced)
        end = self._tls.expires_at()
        return Credentials(_context(self._tls, server=True), _context(self._tls, server=False), end)

    def _misplaced(self) -> str | None:
        found, own = self._tls.subject(), self._subject
        if found == own:
            return None
        return (
            f"the certificate in {self._tls.cert} is for {found.member!r} of cluster {found.cluster!r},"
            f" this is {own.member!r} of {own.cluster!r}: put its own there"
        )


class Sealed:
    """TLS as a function on bytes, away from any socket.

    So a thread that sends never waits for one that reads, or for the other side. Not for two threads at once: who
    shares one holds a lock around each call, which lasts as long as the arithmetic and no longer.
    """

    def __init__(self, context: ssl.SSLContext, *, server: bool = False) -> None:
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=server)

    def established(self) -> bool:
        """Go on with the handshake; False while it needs more from the other side. SSLError when it has failed."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def receive(self, data: bytes) -> None:
        self._received.write(data)

    def to_send(self) -> bytes:
        return self._to_send.read()

    def peer(self) -> Subject | None:
        """The name in the other side's certificate; None when it has shown none."""
        shown = self._shown()
        return None if shown is None else certificates.subject_of(shown)

    def peer_expires_at(self) -> datetime | None:
        """When the other side's certificate is over; None when it has shown none."""
        shown = self._shown()
        return None if shown is None else certificates.expires_at(shown)

    def seal(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._to_send.read()

    def open(self, data: bytes) -> bytes:
        """What the received bytes hold, as far as they are whole records."""
        self._received.write(data)
        parts: list[bytes] = []
        try:
            while not parts or self._received.pending:
                if not (part := self._tls.read(_RECORD_BYTES)):
                    raise ConnectionResetError("the peer closed the connection")
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        return b"".join(parts)

    def _shown(self) -> Certificate | None:
        shown = self._tls.getpeercert(binary_form=True)
        return None if shown is None else x509.load_der_x509_certificate(shown)


def explain(error: ssl.SSLError) -> str:
    """What the other side did, or did not do, in words that go on from its name."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate that is not accepted: {_verdict(error)}"
    reason = error.reason or str(error)
    _, _, alert = reason.partition("_ALERT_")
    if alert:
        return _ALERTS.get(alert, f"does not accept us: {alert.lower().replace('_', ' ')}")
    if reason in _NO_TLS:
        return "does not speak TLS 1.3; is TLS off there?"
    return f"breaks the rules of TLS: {reason.lower().replace('_', ' ')}"


def _verdict(error: ssl.SSLCertVerificationError) -> str:
    match error.verify_code:
        case code if code == _EXPIRED:
            return "it has expired"
        case code if code == _NOT_YET_VALID:
            return "it is not valid yet, by the clock here"
        case code if code in _NO_ISSUER:
            return "none of the trusted authorities has signed it"
        case _:
            return error.verify_message


def visitor(ca: bytes) -> ssl.SSLContext:
    """For who has no certificate yet, and trusts these authorities (PEM); TlsError when they are none."""
    return _trusting(ca, "what was given", server=False)


def _context(tls: Tls, *, server: bool) -> ssl.SSLContext:
    context = _trusting(_content(tls.ca), str(tls.ca), server=server)
    if server:
        context.num_tickets = 0
    _load_own(context, tls)
    return context


def _trusting(ca: bytes, where: str, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the names are members', checked by who asks for the connection
    # a new member has no certificate yet when it asks to join; for everything else the transport insists on one
    context.verify_mode = ssl.CERT_OPTIONAL if server else ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"{where} holds no certificates of authorities in PEM: copy the cluster's there") from error
    return context


def _load_own(context: ssl.SSLContext, tls: Tls) -> None:
    for path in (tls.cert, tls.key):
        _content(path)  # OpenSSL does not say which of the two it could not read
    try:
        context.load_cert_chain(tls.cert, tls.key, password=lambda: _no_password(tls.key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(
                f"the key in {tls.key} does not belong to the certificate in {tls.cert}: put both of one issue there"
            ) from error
        raise TlsError(
            f"{tls.cert} and {tls.key} are no certificate and key in PEM: put both of one issue there"
        ) from error
    except OSError as error:
        raise TlsError(f"{tls.cert} or {tls.key} cannot be read: {error}") from error


def _no_password(key: Path) -> str:
    raise TlsError(f"the key in {key} asks for a password: store it without one, readable by its owner only")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        would_do = "let the node's user read it" if isinstance(error, PermissionError) else "put it there"
        raise TlsError(f"cannot read {path}: {error.strerror}; {would_do}") from error


def _stamp(tls: Tls) -> _Stamp:
    return tuple(_look(path) for path in (tls.ca, tls.cert, tls.key))


def _look(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

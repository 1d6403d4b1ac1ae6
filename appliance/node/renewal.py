"""The node's own certificate: renewed here once two thirds of its life are over, if the authority's key is here.

In a thread of its own, which may wait for a disk; the control loop reads what it saw last. A new certificate needs no
restart: every new connection looks at the files (raft.tls).
"""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_address

from cryptography.x509 import Certificate

from appliance.ha.seen import CertificateSeen
from appliance.node import certificates
from appliance.node.config import TlsSection
from appliance.postgres.errors import SettingsError
from raft import Tls
from raft.certificates import CertificateError, hosts_of, renew_at, words
from raft.tls import CertificateStatus

LOOK_S = 10.0


def is_due(certificate: Certificate, now: datetime) -> bool:
    """Also for one from the future, which was issued while the clock was wrong."""
    return now >= renew_at(certificate) or now < certificate.not_valid_before_utc


def judged(status: CertificateStatus, not_renewed: str, unnamed: str = "", unserved: str = "") -> CertificateSeen:
    """What to say of a certificate; `not_renewed` is why it was not renewed although that is due.

    `unnamed` is the host of PostgreSQL where it does not name it. Nobody notices while this node is a standby; once it
    is the primary, nobody could follow it. `unserved` is why PostgreSQL refuses the key, which it tells its log only.
    """
    until = "" if status.expires_at is None else status.expires_at.isoformat()
    if status.problem is not None:
        why = f"; it was not renewed: {not_renewed}" if not_renewed else ""
        return CertificateSeen(until, f"{status.problem}{why}", usable=False)
    if not_renewed and status.expires_at is not None:
        return CertificateSeen(until, f"it expires on {words(status.expires_at)} and is not renewed: {not_renewed}")
    if unserved:
        return CertificateSeen(until, unserved)
    if unnamed:
        why = f"it does not name {unnamed}, where PostgreSQL is reached; issue it again with --host {unnamed}"
        return CertificateSeen(until, why)
    return CertificateSeen(until)


def names(certificate: Certificate, host: str) -> bool:
    """Whether clients of PostgreSQL find the host in it. An authority of ours writes no wildcards."""
    found = [name.lower() for name in hosts_of(certificate)]
    try:
        return str(ip_address(host)) in found
    except ValueError:
        return host.lower() in found


class Renewal:
    def __init__(self, section: TlsSection, on_renewed: Callable[[str], None], host: str = "") -> None:
        """`on_renewed` is told the new end of life, on the thread of this. `host`: of PostgreSQL, empty without."""
        self._section = section
        self._tls = Tls(section.ca, section.cert, section.key)
        self._on_renewed = on_renewed
        self._host = host
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificate", daemon=True)
        self.seen: CertificateSeen | None = None
        """None before the first look"""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Not waited for: a disk may hold it."""
        self._stop.set()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def look(self) -> None:
        not_renewed = self._renew_if_due()
        seen = judged(self._tls.status(), not_renewed, self._unnamed(), self._unserved())
        issuer, trusts = certificates.authorities(self._section)
        self.seen = replace(seen, issuer=issuer, trusts=trusts)

    def _unnamed(self) -> str:
        try:
            certificate = certificates.read(self._section.cert)[0]
        except (OSError, CertificateError):
            return ""  # told already
        return self._host if self._host and not names(certificate, self._host) else ""

    def _unserved(self) -> str:
        try:
            if self._host:
                certificates.key_for_postgres(self._section, os.geteuid())
        except SettingsError as error:
            return str(error)
        return ""

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(LOOK_S)

    def _renew_if_due(self) -> str:
        """Why not, where it should have been."""
        try:
            if not is_due(certificates.read(self._section.cert)[0], certificates.now()):
                return ""
            if not self._section.issuing_key.exists():
                return f"the authority's key is not here, in {self._section.issuing_key}"
            self._on_renewed(certificates.renew(self._section).expires_at)
        except OSError as error:
            return f"{error.filename or self._section.cert}: {(error.strerror or str(error)).lower()}"
        except CertificateError as error:
            return str(error)
        return ""

"""A cluster's authority and its members' certificates, as files."""

import os
from datetime import UTC, datetime, timedelta

from raft import certificates
from raft.tls import Tls
from tests.harness.places import give

YEAR = timedelta(days=365)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def now():
    return datetime.now(UTC)


class Certificates:
    def __init__(self, directory, cluster="c", *, with_key=False):
        """`with_key`: the authority's key lies beside its certificate, so that nodes may issue."""
        directory.mkdir(parents=True, exist_ok=True)
        give(directory)
        self.directory = directory
        self.cluster = cluster
        self.authority = self.new_authority()
        self.trust(self.authority)
        if with_key:
            self.store_key(self.authority)

    def new_authority(self, issued=None, valid_for=10 * YEAR):
        return certificates.make_authority(
            self.cluster,
            key=certificates.new_key(),
            serial=certificates.new_serial(),
            now=issued or now(),
            valid_for=valid_for,
        )

    def trust(self, *authorities):
        write(self.directory / "ca.crt", certificates.certificates_to_pem(each.certificate for each in authorities))

    def store_key(self, authority):
        write(self.directory / "ca.key", certificates.key_to_pem(authority.key))
        return self.directory / "ca.key"

    def member(self, name, *, authority=None, issued=None, valid_for=YEAR, file=None, hosts=LOOPBACK):
        """Issue a certificate, with a new key; `file` is the name of another member, whose place it takes."""
        key = certificates.new_key()
        certificate = certificates.issue(
            authority or self.authority,
            name,
            key.public_key(),
            hosts=hosts,
            serial=certificates.new_serial(),
            now=issued or now(),
            valid_for=valid_for,
        )
        tls = self.tls(file or name)
        write(tls.cert, certificates.certificates_to_pem([certificate]))
        write(tls.key, certificates.key_to_pem(key))
        return tls

    def deliver(self, name, host, directory):
        """As on a host of its own: ca.crt, node.crt and node.key; the section `tls` that names them."""
        directory.mkdir(exist_ok=True)
        give(directory)
        there = Tls(directory / "ca.crt", directory / "node.crt", directory / "node.key")
        copy(self.member(name, hosts=(host, *LOOPBACK)), there)
        return {"ca": str(there.ca), "cert": str(there.cert), "key": str(there.key)}

    def aged_member(self, name, lived, **more):
        """Whose certificate has this share of its life behind it."""
        life = timedelta(days=90)
        issued = now() + certificates.CLOCK_TOLERANCE - (life + certificates.CLOCK_TOLERANCE) * lived
        return self.member(name, issued=issued, valid_for=life, **more)

    def tls(self, name):
        return Tls(self.directory / "ca.crt", self.directory / f"{name}.crt", self.directory / f"{name}.key")


def copy(tls, there):
    for source, target in ((tls.ca, there.ca), (tls.key, there.key), (tls.cert, there.cert)):
        write(target, source.read_bytes())


def write(path, data):
    """Whole or not at all, and for the nodes' user only."""
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    give(new)
    new.rename(path)

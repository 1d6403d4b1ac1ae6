"""Certificates and keys as files: the authority of a cluster, and what it has issued.

Every file is replaced as a whole, keys are readable by their owner only, and what root writes belongs to whom it
belonged before, or to the owner of the directory. A renewal keeps the key, so it replaces one file.
"""

import os
import stat
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pwd import struct_passwd

from cryptography.x509 import Certificate

from appliance.node.config import TlsSection
from appliance.node.config_values import split_address
from appliance.postgres.errors import SettingsError
from appliance.postgres.files import sync_directory
from raft import Tls, certificates
from raft.certificates import Authority, CertificateError, PrivateKey, Subject
from raft.tls import Contexts, TlsError

CertificateProblem = CertificateError
"""A file holds no certificate or key of ours, or none may be issued; the message says why."""

CA, CA_KEY = "ca.crt", "ca.key"
_KEY_MODE, _CERTIFICATE_MODE = 0o600, 0o644


class RefusedError(CertificateError):
    """Nothing was changed; the message says what stands in the way and what would do."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a certificate says of itself."""

    file: str
    cluster: str
    member: str
    """or the name of an authority"""
    authority: bool
    issuer: str
    hosts: Sequence[str]
    valid_from: str
    expires_at: str
    renew_at: str
    state: str
    """valid, due, expired or early"""
    fingerprint: str


def now() -> datetime:
    return datetime.now(UTC)


# -- what is there ---------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Certificate, ...]:
    """All certificates of a file, one at least."""
    try:
        return certificates.certificates_from_pem(path.read_bytes())
    except CertificateError as error:
        raise CertificateError(f"{path}: {error}") from error


def read_authority(ca: Path, key: Path) -> Authority:
    """The authority that issues: one that is trusted, and whose key is here."""
    for path in (ca, key):
        if not path.exists():
            raise CertificateError(
                f"{path}: no such file: here is nothing that issues; `appliance certs init` makes it"
            )
    trusted = read(ca)
    try:
        return certificates.authority_with(trusted, certificates.key_from_pem(key.read_bytes()))
    except CertificateError as error:
        raise CertificateError(f"{key}, {ca}: {error}") from error


def describe(path: Path) -> list[Described]:
    return [_described(path, certificate) for certificate in read(path)]


def _described(path: Path, certificate: Certificate) -> Described:
    subject = certificates.subject_of(certificate)
    return Described(
        file=str(path),
        cluster=subject.cluster,
        member=subject.member,
        authority=certificates.is_authority(certificate),
        issuer=certificates.issuer_of(certificate).member,
        hosts=certificates.hosts_of(certificate),
        valid_from=certificate.not_valid_before_utc.isoformat(),
        expires_at=certificates.expires_at(certificate).isoformat(),
        renew_at=certificates.renew_at(certificate).isoformat(timespec="seconds"),
        state=_state(certificate, now()),
        fingerprint=certificates.fingerprint(certificate),
    )


def _state(certificate: Certificate, at: datetime) -> str:
    if at > certificates.expires_at(certificate):
        return "expired"
    if at < certificate.not_valid_before_utc:
        return "early"
    return "due" if at >= certificates.renew_at(certificate) else "valid"


def authorities(tls: TlsSection) -> tuple[str, tuple[str, ...]]:
    """Who has signed a node's certificate, and whom it trusts, by name; empty what cannot be read."""
    try:
        issuer = certificates.issuer_of(read(tls.cert)[0]).member
    except (OSError, CertificateError):
        issuer = ""
    try:
        return issuer, tuple(certificates.subject_of(trusted).member for trusted in read(tls.ca))
    except (OSError, CertificateError):
        return issuer, ()


def objection(tls: TlsSection, cluster: str, member: str, user: struct_passwd, *, postgres: bool) -> str:
    """Why a node, or its PostgreSQL, would not start with these files; empty when they would."""
    for path in (tls.ca, tls.cert, tls.key):
        if not readable(path, user):
            return (
                f"{user.pw_name}, whom the node runs as, cannot read {path}: give it, and the way there, to that user"
            )
    try:
        Contexts(Tls(tls.ca, tls.cert, tls.key), Subject(cluster, member))
        if postgres:
            key_for_postgres(tls, user.pw_uid)
    except (TlsError, SettingsError) as error:
        return str(error)
    return ""


def key_for_postgres(tls: TlsSection, uid: int) -> None:
    """Raises SettingsError for one that PostgreSQL refuses when it runs as this user."""
    from appliance.postgres.certificate import Certificate as Served

    Served(tls.ca, tls.cert, tls.key).check(uid)


def advice(tls: TlsSection, postgres_address: str) -> tuple[str, ...]:
    """What a node starts with and is hardly meant: a certificate that nobody, or no standby, would accept, a key that
    is no secret.
    """
    unfit = Tls(tls.ca, tls.cert, tls.key).problem()
    return (
        *((f"tls: {unfit}",) if unfit is not None else ()),
        *_unnamed(tls, postgres_address),
        *_open_keys(tls),
    )


def _unnamed(tls: TlsSection, postgres_address: str) -> tuple[str, ...]:
    hosts = certificates.hosts_of(read(tls.cert)[0])
    host = split_address(postgres_address)[0] if postgres_address else ""
    if not host or host in hosts:
        return ()
    named = f"names {', '.join(hosts)}" if hosts else "names no host"
    return (f"tls.cert: {tls.cert} {named}, not {host}, where standbys reach PostgreSQL; issue it with --host {host}",)


def _open_keys(tls: TlsSection) -> Iterator[str]:
    for key in (tls.key, tls.issuing_key):
        with suppress(OSError):  # it is not here, or its directory is not ours to enter
            if (mode := stat.S_IMODE(key.stat().st_mode)) & 0o007:
                yield f"tls: {key} has mode {mode:04o}, so every user of this host can read it; make it 0600"


# -- issuing ---------------------------------------------------------------------------------------------


def make_authority(directory: Path, cluster: str, valid_for: timedelta) -> Described:
    """The cluster's first authority."""
    for name in (CA, CA_KEY):
        if os.path.lexists(directory / name):
            raise RefusedError(
                f"{directory / name} is there already: choose another --dir;"
                " `appliance certs rotate-ca` replaces an authority"
            )
    made = _new_authority(cluster, valid_for)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(directory / CA_KEY, certificates.key_to_pem(made.key), _KEY_MODE)
    _write(directory / CA, certificates.certificates_to_pem([made.certificate]), _CERTIFICATE_MODE)
    return _described(directory / CA, made.certificate)


def issue(
    directory: Path, member: str, hosts: Sequence[str], valid_for: timedelta, out: Path, *, replace: bool = False
) -> Described:
    """A new key and its certificate for a member, in `out`, signed by the authority in `directory`."""
    if f"{member}.crt" == CA:
        raise RefusedError(f"a member cannot be called {member!r}: its files would be the authority's")
    files = out / f"{member}.crt", out / f"{member}.key"
    there = [str(file) for file in files if os.path.lexists(file)]
    if there and not replace:
        raise RefusedError(
            f"{' and '.join(there)} already there: `appliance certs renew` keeps the key,"
            " --replace overwrites them, --out writes elsewhere"
        )
    authority, key = read_authority(directory / CA, directory / CA_KEY), certificates.new_key()
    certificate = certificates.issue(
        authority,
        member,
        key.public_key(),
        hosts=hosts,
        serial=certificates.new_serial(),
        now=now(),
        valid_for=valid_for,
    )
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(files[1], certificates.key_to_pem(key), _KEY_MODE)
    _write(files[0], certificates.certificates_to_pem([certificate]), _CERTIFICATE_MODE)
    return _described(files[0], certificate)


def renew(tls: TlsSection) -> Described:
    """Replace a node's certificate by a fresh one for the same key; the authority's key must be here."""
    if not tls.issuing_key.exists():
        raise CertificateError(
            f"the authority's key is not here, in {tls.issuing_key}: where it lies, `appliance certs issue MEMBER"
            " --replace`, and copy key and certificate to this node; or set tls.ca_key"
        )
    authority = read_authority(tls.ca, tls.issuing_key)
    fresh = certificates.renewed(authority, read(tls.cert)[0], serial=certificates.new_serial(), now=now())
    _write(tls.cert, certificates.certificates_to_pem([fresh]), _CERTIFICATE_MODE)
    return _described(tls.cert, fresh)


# -- another authority -----------------------------------------------------------------------------------


def begin_rotation(directory: Path, valid_for: timedelta) -> Described:
    """A new authority that issues from now on; what the old one has issued stays trusted. The old key is not needed."""
    old = read(directory / CA)
    if len(old) > 1:
        raise RefusedError(
            f"{directory / CA} holds {len(old)} authorities, so a rotation is under way: finish it first"
        )
    made = _new_authority(certificates.subject_of(old[0]).cluster, valid_for)
    # Trusted first: of a crash between the two remains an authority that never signs anything.
    _write(directory / CA, certificates.certificates_to_pem([made.certificate, *old]), _CERTIFICATE_MODE)
    _write(directory / CA_KEY, certificates.key_to_pem(made.key), _KEY_MODE)
    return _described(directory / CA, made.certificate)


def next_authority(directory: Path, left_out: Collection[str] = ()) -> Described:
    """The one that a rotation ends with. Refused while a certificate in the directory is not of it.

    Those of the members that are left out do not count.
    """
    trusted = read(directory / CA)
    authority = read_authority(directory / CA, directory / CA_KEY).certificate
    if len(trusted) == 1:
        raise RefusedError(f"{directory / CA} holds one authority: no rotation is under way")
    others = (file for file in sorted(directory.glob("*.crt")) if file.name != CA and file.stem not in left_out)
    left = [file.name for file in others if not certificates.is_signed_by(read(file)[0], authority)]
    if left:
        raise RefusedError(
            f"{directory}: {', '.join(left)} not yet of the new authority: renew, or issue anew with --replace"
        )
    return _described(directory / CA, authority)


def finish_rotation(directory: Path) -> Described:
    """Trust only the authority that issues from now on."""
    authority = read_authority(directory / CA, directory / CA_KEY).certificate
    _write(directory / CA, certificates.certificates_to_pem([authority]), _CERTIFICATE_MODE)
    return _described(directory / CA, authority)


def _new_authority(cluster: str, valid_for: timedelta) -> Authority:
    return certificates.make_authority(
        cluster, key=certificates.new_key(), serial=certificates.new_serial(), now=now(), valid_for=valid_for
    )


def readable(path: Path, user: struct_passwd) -> bool:
    """By owner and mode, for a user who need not be the present one; True as well for what is not there."""
    groups = set(os.getgrouplist(user.pw_name, user.pw_gid))
    places = [(path, stat.S_IRUSR), *((parent, stat.S_IXUSR) for parent in path.resolve().parents)]
    try:
        return user.pw_uid == 0 or all(_allows(place.stat(), bit, user.pw_uid, groups) for place, bit in places)
    except OSError:
        return True


def _allows(found: os.stat_result, owners_bit: int, uid: int, groups: set[int]) -> bool:
    shift = 0 if found.st_uid == uid else 3 if found.st_gid in groups else 6
    return bool(found.st_mode & (owners_bit >> shift))


def write_key(path: Path, key: PrivateKey) -> None:
    """Readable by its owner only."""
    _write(path, certificates.key_to_pem(key), _KEY_MODE)


def write_readable(path: Path, text: str) -> None:
    """Readable by everybody."""
    _write(path, text.encode(), _CERTIFICATE_MODE)


def _write(path: Path, content: bytes, mode: int) -> None:
    """After a crash the file holds the old content or the new one, never a part."""
    owner = (path if path.exists() else path.parent).stat()
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
    sync_directory(path.parent)

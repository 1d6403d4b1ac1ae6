"""The cluster's own certificate authority and its members' certificates, as pure functions on keys and times.

A certificate says which member of which cluster speaks (CN and O); host names stand in it for other users of the same
certificate, PostgreSQL's clients for one. Nothing here reads a clock or a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Certificate, CertificateSigningRequest
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

CLOCK_TOLERANCE = timedelta(minutes=5)
"""A certificate is valid from this long before it was issued, for members whose clocks are behind."""
NAME_LIMIT = 64
"""Characters of a member's or cluster's name that fit into a certificate."""
HOSTS_LIMIT = 64
"""DNS names and IP addresses of one certificate: it has to fit into a handshake, with those of its authorities."""
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)
"""What the library raises for what it cannot read, some of it only when that part is looked at."""
_DNS_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})?)*")


class CertificateError(Exception):
    """What was given is no certificate, key or request of ours; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate is for."""

    cluster: str
    member: str


@dataclass(frozen=True, slots=True)
class Authority:
    """Who issues: the certificate that all members trust, and the key that must not leave its place."""

    certificate: Certificate
    key: PrivateKey

    @property
    def cluster(self) -> str:
        return _only(self.certificate.subject, NameOID.ORGANIZATION_NAME)


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def new_serial() -> int:
    return x509.random_serial_number()


def make_authority(cluster: str, *, key: PrivateKey, serial: int, now: datetime, valid_for: timedelta) -> Authority:
    """An authority for a cluster. Its name holds the serial, so that two of one cluster can be told apart."""
    name = _name(cluster, f"ca-{serial:x}"[:NAME_LIMIT])
    certificate = (
        _builder(name, name, key.public_key(), serial, now, valid_for)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(certificate, key)


def issue(
    authority: Authority,
    member: str,
    key: PublicKey,
    *,
    hosts: Iterable[str],
    serial: int,
    now: datetime,
    valid_for: timedelta,
) -> Certificate:
    """A certificate for a member of the authority's cluster, never valid for longer than the authority itself.

    `hosts` are the DNS names and IP addresses by which the member is reached.
    """
    issuer = authority.certificate
    left = issuer.not_valid_after_utc - now
    if left <= timedelta(0):
        raise CertificateError(f"the authority expired on {words(issuer.not_valid_after_utc)}: make a new one")
    builder = (
        _builder(_name(authority.cluster, member), issuer.subject, key, serial, now, min(valid_for, left))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(_signed_by(issuer), critical=False)
    )
    if names := _names(hosts):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def renewed(authority: Authority, certificate: Certificate, *, serial: int, now: datetime) -> Certificate:
    """The same member, key and hosts again, for as long as before; refused when the authority's end is in the way.

    With the same key one file is replaced, so that certificate and key fit at every moment.
    """
    subject, life = subject_of(certificate), expires_at(certificate) - certificate.not_valid_before_utc
    if subject.cluster != authority.cluster:
        raise CertificateError(
            f"the certificate is for {subject.member!r} of cluster {subject.cluster!r},"
            f" the authority is that of {authority.cluster!r}"
        )
    fresh = issue(
        authority,
        subject.member,
        _ec_key(certificate),
        hosts=hosts_of(certificate),
        serial=serial,
        now=now,
        valid_for=life - CLOCK_TOLERANCE,
    )
    end = expires_at(authority.certificate)
    if expires_at(fresh) == end <= expires_at(certificate):
        raise CertificateError(f"the authority itself expires on {words(end)}: another one must follow it")
    return fresh


def request(subject: Subject, key: PrivateKey) -> CertificateSigningRequest:
    """What a new member sends instead of its key."""
    name = _name(subject.cluster, subject.member)
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())


def requested_key(asked: CertificateSigningRequest, subject: Subject) -> PublicKey:
    """The key of a request, if it was made by the key's owner, for this very subject.

    Nothing else in a request counts: hosts and times are decided by who issues.
    """
    try:
        genuine = asked.is_signature_valid
    except (InvalidSignature, *_UNREADABLE) as error:
        raise CertificateError(f"the request's signature cannot be checked: {error}") from error
    if not genuine:
        raise CertificateError("the request is not signed with the key it holds")
    found = subject_of(asked)
    if found != subject:
        raise CertificateError(
            f"the request is for {found.member!r} of cluster {found.cluster!r},"
            f" not for {subject.member!r} of {subject.cluster!r}"
        )
    return _ec_key(asked)


def subject_of(holder: Certificate | CertificateSigningRequest) -> Subject:
    try:
        return _subject(holder.subject)
    except _UNREADABLE as error:
        raise CertificateError(f"the subject cannot be read: {error}") from error


def issuer_of(certificate: Certificate) -> Subject:
    """Who signed it, by its own words."""
    return _subject(certificate.issuer)


def is_authority(certificate: Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def hosts_of(certificate: Certificate) -> tuple[str, ...]:
    """The DNS names and IP addresses that stand in it."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    known = (name for name in names if isinstance(name, x509.DNSName | x509.IPAddress))
    return tuple(str(name.value) for name in known)


def check_hosts(hosts: Iterable[str]) -> None:
    """CertificateError when a certificate cannot name them."""
    _names(hosts)


def is_signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE):
        return False
    return True


def authority_with(trusted: Iterable[Certificate], key: PrivateKey) -> Authority:
    """The one of the trusted authorities whose key this is."""
    for certificate in trusted:
        if certificate.public_key() == key.public_key():
            return Authority(certificate, key)
    raise CertificateError("the authority's key belongs to none of the trusted authorities")


def expires_at(certificate: Certificate) -> datetime:
    return certificate.not_valid_after_utc


def renew_at(certificate: Certificate) -> datetime:
    """When two thirds of its life are over."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * 2 / 3


def fingerprint(certificate: Certificate) -> str:
    """SHA-256 of the whole certificate, in hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def words(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


# -- PEM -------------------------------------------------------------------------------------------------


def certificates_to_pem(certificates: Iterable[Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def certificates_from_pem(data: bytes) -> tuple[Certificate, ...]:
    """All certificates of a file, one at least."""
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except _UNREADABLE as error:
        raise CertificateError("no certificate in PEM: copy the right file there, whole") from error


def key_to_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from_pem(data: bytes) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except _UNREADABLE as error:
        raise CertificateError("no private key in PEM that can be read without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError("the private key is of another kind than ours (EC P-256)")
    return key


def request_to_pem(asked: CertificateSigningRequest) -> bytes:
    return asked.public_bytes(serialization.Encoding.PEM)


def request_from_pem(data: bytes) -> CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(data)
    except _UNREADABLE as error:
        raise CertificateError(f"no certificate request in PEM: {error}") from error


# -- parts of a certificate ------------------------------------------------------------------------------


def _name(cluster: str, common: str) -> x509.Name:
    for value in (cluster, common):
        if not 0 < len(value) <= NAME_LIMIT:
            raise CertificateError(f"the name {value!r} has {len(value)} characters: 1 to {NAME_LIMIT} are possible")
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _subject(name: x509.Name) -> Subject:
    return Subject(cluster=_only(name, NameOID.ORGANIZATION_NAME), member=_only(name, NameOID.COMMON_NAME))


def _only(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    """The one value of an attribute: with two of them, readers could disagree about whom it names."""
    values = [attribute.value for attribute in name.get_attributes_for_oid(oid)]
    if len(values) != 1 or not isinstance(values[0], str):
        raise CertificateError(f"the subject {name.rfc4514_string()!r} does not name one member of one cluster")
    return values[0]


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, serial: int, now: datetime, valid_for: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(now - CLOCK_TOLERANCE)
        .not_valid_after(now + valid_for)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed_by(issuer: Certificate) -> x509.AuthorityKeyIdentifier:
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    each = dict.fromkeys(hosts)
    if len(each) > HOSTS_LIMIT:
        raise CertificateError(f"{len(each)} hosts are more than the {HOSTS_LIMIT} that one certificate may name")
    return [_host(host) for host in each]


def _host(host: str) -> x509.GeneralName:
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        return _dns_name(host)
    return x509.IPAddress(address)


def _dns_name(host: str) -> x509.GeneralName:
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    if not _DNS_NAME.fullmatch(name):
        raise CertificateError(f"{host!r} is neither a DNS name nor an IP address")
    return x509.DNSName(name)


def _ec_key(holder: Certificate | CertificateSigningRequest) -> PublicKey:
    what = "certificate" if isinstance(holder, Certificate) else "request"
    try:
        key = holder.public_key()
    except _UNREADABLE as error:
        raise CertificateError(f"the {what}'s key cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateError(f"the {what}'s key is of another kind than ours (EC P-256)")
    return key

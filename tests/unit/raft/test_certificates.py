"""The cluster's authority and what it issues, checked with openssl's own eyes where it matters."""

import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from raft import certificates
from raft.certificates import CertificateError, Subject

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def authority(cluster="c", now=NOW, valid_for=3650 * DAY, serial=7):
    return certificates.make_authority(cluster, key=certificates.new_key(), serial=serial, now=now, valid_for=valid_for)


def issue(ca, member="n1", hosts=("db1.example", "10.0.0.1", "fd00::1"), now=NOW, valid_for=90 * DAY):
    return certificates.issue(
        ca, member, certificates.new_key().public_key(), hosts=hosts, serial=9, now=now, valid_for=valid_for
    )


def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_accepts_a_member_as_server_and_client(tmp_path, purpose):
    ca = authority(now=datetime.now(UTC))
    (tmp_path / "ca").write_bytes(certificates.certificates_to_pem([ca.certificate]))
    (tmp_path / "n1").write_bytes(certificates.certificates_to_pem([issue(ca, now=datetime.now(UTC))]))
    command = ("verify", "-x509_strict", "-purpose", purpose, "-CAfile", tmp_path / "ca")
    accepted = openssl(*command, "-verify_hostname", "db1.example", tmp_path / "n1")
    assert accepted.returncode == 0, accepted.stderr
    assert openssl(*command, "-verify_ip", "fd00::1", tmp_path / "n1").returncode == 0
    assert openssl(*command, "-verify_ip", "10.0.0.2", tmp_path / "n1").returncode != 0


def test_a_certificate_names_its_member_and_cluster():
    assert certificates.subject_of(issue(authority("prod"), "db-1")) == Subject("prod", "db-1")


def test_a_certificate_cannot_issue_others(tmp_path):
    ca = authority(now=datetime.now(UTC))
    key = certificates.new_key()
    member = certificates.issue(ca, "n1", key.public_key(), hosts=(), serial=1, now=datetime.now(UTC), valid_for=DAY)
    forged = issue(certificates.Authority(member, key), "n2", now=datetime.now(UTC))
    (tmp_path / "ca").write_bytes(certificates.certificates_to_pem([ca.certificate]))
    (tmp_path / "n1").write_bytes(certificates.certificates_to_pem([member]))
    (tmp_path / "n2").write_bytes(certificates.certificates_to_pem([forged]))
    said = openssl("verify", "-CAfile", tmp_path / "ca", "-untrusted", tmp_path / "n1", tmp_path / "n2")
    assert said.returncode != 0
    assert "invalid CA certificate" in said.stderr


def test_times_are_as_given_with_tolerance_for_clocks_that_are_behind():
    certificate = issue(authority(), valid_for=90 * DAY)
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificates.expires_at(certificate) == NOW + 90 * DAY
    life = 90 * DAY + timedelta(minutes=5)
    assert certificates.renew_at(certificate) == certificate.not_valid_before_utc + life * 2 / 3


def test_a_certificate_never_outlives_its_authority():
    certificate = issue(authority(valid_for=30 * DAY), valid_for=90 * DAY)
    assert certificates.expires_at(certificate) == NOW + 30 * DAY
    with pytest.raises(CertificateError, match="the authority expired on 2026-12-23 12:00:00 UTC: make a new one"):
        issue(authority(valid_for=30 * DAY), now=NOW + 31 * DAY)


def test_two_authorities_of_one_cluster_have_different_names():
    assert authority(serial=1).certificate.subject != authority(serial=2).certificate.subject
    assert authority("prod").cluster == "prod"


def test_a_certificate_without_hosts_is_one_too():
    with pytest.raises(x509.ExtensionNotFound):
        issue(authority(), hosts=()).extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_hosts_are_names_or_addresses_each_once():
    certificate = issue(authority(), hosts=["db1", "bücher.example", "::1", "10.0.0.1", "db1"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["db1", "xn--bcher-kva.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["::1", "10.0.0.1"]


@pytest.mark.parametrize("host", ["", "a b", "10.0.0.1/8", "x\n", "a..b", "-a", "*.example", "a" * 64, "é" * 200])
def test_what_is_no_host_is_refused_by_name(host):
    with pytest.raises(CertificateError, match="is neither a DNS name nor an IP address"):
        issue(authority(), hosts=[host])


@pytest.mark.parametrize("name", ["", "n" * 65])
def test_a_name_that_does_not_fit_is_refused(name):
    with pytest.raises(CertificateError, match="1 to 64 are possible"):
        issue(authority(), name)
    with pytest.raises(CertificateError, match="1 to 64 are possible"):
        authority(name)


def test_a_request_brings_a_key_and_nothing_else():
    ca, key, wanted = authority(), certificates.new_key(), Subject("c", "n4")
    pem = certificates.request_to_pem(certificates.request(wanted, key))
    asked = certificates.request_from_pem(pem)
    assert certificates.requested_key(asked, wanted) == key.public_key()
    with pytest.raises(CertificateError, match="the request is for 'n4' of cluster 'c', not for 'n1' of 'c'"):
        certificates.requested_key(asked, Subject("c", "n1"))
    certificate = certificates.issue(
        ca, "n4", certificates.requested_key(asked, wanted), hosts=(), serial=1, now=NOW, valid_for=DAY
    )
    assert certificate.public_key() == key.public_key()


def test_a_request_of_somebody_without_the_key_is_refused():
    der = certificates.request(Subject("c", "n4"), certificates.new_key()).public_bytes(Encoding.DER)
    forged = der.replace(b"n4", b"n1")
    with pytest.raises(CertificateError, match="not signed with the key"):
        certificates.requested_key(x509.load_der_x509_csr(forged), Subject("c", "n1"))


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_a_request_with_another_kind_of_key_is_refused(key):
    asked = certificates.request(Subject("c", "n4"), key)
    with pytest.raises(CertificateError, match="another kind"):
        certificates.requested_key(asked, Subject("c", "n4"))


def test_a_subject_that_names_two_names_nobody():
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn) for cn in ("n1", "n2")])
    asked = x509.CertificateSigningRequestBuilder().subject_name(name).sign(certificates.new_key(), hashes.SHA256())
    with pytest.raises(CertificateError, match="does not name one member of one cluster"):
        certificates.subject_of(asked)


def test_everything_survives_pem():
    first, second = authority(), authority()
    pem = certificates.certificates_to_pem([first.certificate, second.certificate])
    assert certificates.certificates_from_pem(pem) == (first.certificate, second.certificate)
    key = certificates.key_from_pem(certificates.key_to_pem(first.key))
    assert key.private_numbers() == first.key.private_numbers()
    assert len(certificates.fingerprint(first.certificate)) == 64


@pytest.mark.parametrize(
    "junk", [b"", b"x", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff" * 99]
)
def test_junk_is_refused_in_words(junk):
    for load in (certificates.certificates_from_pem, certificates.key_from_pem, certificates.request_from_pem):
        with pytest.raises(CertificateError, match="in PEM"):
            load(junk)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)])
def test_a_key_of_another_kind_is_refused(key):
    with pytest.raises(CertificateError, match="another kind"):
        certificates.key_from_pem(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_a_renewal_keeps_everything_but_its_time():
    ca = authority()
    old = issue(ca, valid_for=90 * DAY)
    fresh = certificates.renewed(ca, old, serial=10, now=NOW + 60 * DAY)

    assert certificates.subject_of(fresh) == certificates.subject_of(old)
    assert certificates.hosts_of(fresh) == certificates.hosts_of(old) == ("db1.example", "10.0.0.1", "fd00::1")
    assert fresh.public_key() == old.public_key()
    assert fresh.serial_number == 10
    assert certificates.expires_at(fresh) == certificates.expires_at(old) + 60 * DAY


def test_a_renewal_that_cannot_outlast_the_authority_is_refused():
    """Else it would be renewed again and again, for ever shorter times."""
    ca = authority(valid_for=100 * DAY)
    last = certificates.renewed(ca, issue(ca, valid_for=90 * DAY), serial=10, now=NOW + 60 * DAY)
    assert certificates.expires_at(last) == certificates.expires_at(ca.certificate)

    with pytest.raises(CertificateError, match="the authority itself expires on 2027-03-03 12:00:00 UTC"):
        certificates.renewed(ca, last, serial=11, now=NOW + 90 * DAY)


def test_another_clusters_authority_renews_nothing():
    with pytest.raises(CertificateError, match="of cluster 'c', the authority is that of 'd'"):
        certificates.renewed(authority("d"), issue(authority()), serial=10, now=NOW)


def test_of_several_authorities_the_one_whose_key_is_here_issues():
    old, new = authority(serial=7), authority(serial=8)
    both = [new.certificate, old.certificate]

    assert certificates.authority_with(both, old.key) == old
    assert certificates.is_signed_by(issue(old), old.certificate)
    assert not certificates.is_signed_by(issue(old), new.certificate)
    with pytest.raises(CertificateError, match="belongs to none of the trusted authorities"):
        certificates.authority_with(both, certificates.new_key())

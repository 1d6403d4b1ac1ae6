"""TLS without a socket: who is accepted, what is said about certificates that are not, and renewal under way."""

import os
import ssl
import time
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from raft import certificates
from raft.certificates import Subject
from raft.tls import CertificateStatus, Contexts, Sealed, Tls, TlsError, explain
from tests.harness.certificates import YEAR, Certificates, now, write

DAY = timedelta(days=1)


@pytest.fixture
def certs(tmp_path):
    return Certificates(tmp_path / "certs")


def contexts(tls, member, cluster="c"):
    return Contexts(tls, Subject(cluster, member))


def shake(server, client):
    """Until both are through; what one sends, the other gets."""
    for _ in range(10):
        done = client.established()
        server.receive(client.to_send())
        try:
            both = server.established() and done
        finally:
            client.receive(server.to_send())
        if both:
            return
    raise AssertionError("no end of it")


def pair(server, client):
    pair = Sealed(server.current().server, server=True), Sealed(client.current().client)
    shake(*pair)
    return pair


def test_both_sides_learn_the_name_of_the_other(certs):
    server, client = pair(contexts(certs.member("n1"), "n1"), contexts(certs.member("n2"), "n2"))
    assert server.peer() == Subject("c", "n2")
    assert client.peer() == Subject("c", "n1")
    assert server.open(client.seal(b"one") + client.seal(b"two")) == b"onetwo"


def test_both_sides_learn_when_the_others_certificate_is_over(certs):
    n1, n2 = certs.member("n1", valid_for=9 * DAY), certs.member("n2", valid_for=5 * DAY)
    server, client = pair(contexts(n1, "n1"), contexts(n2, "n2"))
    assert server.peer_expires_at() == n2.expires_at()
    assert client.peer_expires_at() == n1.expires_at()
    assert contexts(n1, "n1").current().expires_at == n1.expires_at()


def test_the_version_is_1_3_and_nothing_is_resumed(certs):
    server, client = pair(contexts(certs.member("n1"), "n1"), contexts(certs.member("n2"), "n2"))
    assert server._tls.version() == client._tls.version() == "TLSv1.3"
    assert server.open(client.seal(b"x")) == b"x"
    client.open(server.seal(b"y"))
    assert not client._tls.session.has_ticket
    assert not client._tls.session_reused


@pytest.mark.parametrize("size", [1, 5, 100, 20_000])
def test_records_arrive_however_the_stream_is_cut(certs, size):
    server, client = pair(contexts(certs.member("n1"), "n1"), contexts(certs.member("n2"), "n2"))
    said = os.urandom(100_000)
    sealed = client.seal(said)
    heard = b"".join(server.open(sealed[at : at + size]) for at in range(0, len(sealed), size))
    assert heard == said


def test_a_replayed_or_changed_record_is_refused(certs):
    server, client = pair(contexts(certs.member("n1"), "n1"), contexts(certs.member("n2"), "n2"))
    sealed = client.seal(b"vote for me")
    assert server.open(sealed) == b"vote for me"
    with pytest.raises(ssl.SSLError):
        server.open(sealed)
    server, client = pair(contexts(certs.member("n1"), "n1"), contexts(certs.member("n2"), "n2"))
    sealed = bytearray(client.seal(b"vote for me"))
    sealed[-1] ^= 1
    with pytest.raises(ssl.SSLError):
        server.open(bytes(sealed))


def test_an_older_version_of_tls_is_refused(certs):
    tls = certs.member("n2")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_cert_chain(tls.cert, tls.key)
    old.load_verify_locations(tls.ca)
    server, client = Sealed(contexts(certs.member("n1"), "n1").current().server, server=True), Sealed(old)
    with pytest.raises(ssl.SSLError) as error:
        shake(server, client)
    assert explain(error.value) == "does not speak TLS 1.3; is TLS off there?"


def test_a_client_without_a_certificate_is_nobody(certs):
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.load_verify_locations(certs.tls("n1").ca)
    server, client = Sealed(contexts(certs.member("n1"), "n1").current().server, server=True), Sealed(anonymous)
    shake(server, client)
    assert server.peer() is None
    assert server.peer_expires_at() is None


@pytest.mark.parametrize(
    ("issued", "words"),
    [(-YEAR - DAY, "it has expired"), (DAY, "it is not valid yet, by the clock here")],
)
def test_a_certificate_out_of_its_time_is_refused_by_either_side(certs, issued, words):
    early = certs.new_authority(issued=now() - 3 * YEAR)
    certs.trust(early)
    good = contexts(certs.member("n1", authority=early), "n1")
    bad = contexts(certs.member("n2", authority=early, issued=now() + issued), "n2")
    for server, client in ((good, bad), (bad, good)):
        with pytest.raises(ssl.SSLCertVerificationError) as error:
            pair(server, client)
        assert explain(error.value) == f"shows a certificate that is not accepted: {words}"


def test_a_certificate_of_another_authority_is_refused_by_either_side(certs, tmp_path):
    good = contexts(certs.member("n1"), "n1")
    foreign = contexts(Certificates(tmp_path / "others").member("n2"), "n2")
    for server, client in ((good, foreign), (foreign, good)):
        with pytest.raises(ssl.SSLCertVerificationError) as error:
            pair(server, client)
        assert "none of the trusted authorities has signed it" in explain(error.value)


@pytest.mark.parametrize(
    ("use", "at"), [(ExtendedKeyUsageOID.SERVER_AUTH, "server"), (ExtendedKeyUsageOID.CLIENT_AUTH, "client")]
)
def test_a_certificate_of_one_use_is_refused_in_the_other(certs, use, at):
    """Ours are for both; this is one that the authority has issued for clients of PostgreSQL, say."""
    key = certificates.new_key()
    ours = certificates.certificates_from_pem(certs.member("n2").cert.read_bytes())[0]
    builder = x509.CertificateBuilder(ours.issuer, ours.subject, key.public_key(), 7, now() - DAY, now() + DAY)
    for extension in ours.extensions:
        kept = x509.ExtendedKeyUsage([use]) if extension.oid == ExtensionOID.EXTENDED_KEY_USAGE else extension.value
        builder = builder.add_extension(kept, extension.critical)
    tls = certs.tls("n2")
    write(tls.cert, certificates.certificates_to_pem([builder.sign(certs.authority.key, hashes.SHA256())]))
    write(tls.key, certificates.key_to_pem(key))
    one, other = contexts(certs.member("n1"), "n1"), contexts(tls, "n2")
    refused, accepted = ((one, other), (other, one)) if at == "server" else ((other, one), (one, other))
    with pytest.raises(ssl.SSLCertVerificationError) as error:
        pair(*refused)
    assert "purpose" in explain(error.value)
    assert pair(*accepted)


def test_a_member_cannot_issue_certificates_of_others(certs):
    """It sends its own along, as if it were an authority's."""
    issuer = certs.member("n3")
    own = certificates.certificates_from_pem(issuer.cert.read_bytes())[0]
    authority = certificates.Authority(own, certificates.key_from_pem(issuer.key.read_bytes()))
    forged = certs.member("n2", authority=authority)
    write(forged.cert, forged.cert.read_bytes() + issuer.cert.read_bytes())
    one, other = contexts(certs.member("n1"), "n1"), contexts(forged, "n2")
    for server, client in ((one, other), (other, one)):
        with pytest.raises(ssl.SSLCertVerificationError):
            pair(server, client)


def test_who_is_refused_is_told_why(certs, tmp_path):
    server = Sealed(contexts(certs.member("n1"), "n1").current().server, server=True)
    foreign = certs.member("n2", authority=Certificates(tmp_path / "others").authority)
    client = Sealed(contexts(foreign, "n2").current().client)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, client)
    with pytest.raises(ssl.SSLError) as error:
        client.open(b"")
    assert explain(error.value) == "does not trust the authority of our certificate"


def test_what_speaks_no_tls_is_named_as_that(certs):
    server = Sealed(contexts(certs.member("n1"), "n1").current().server, server=True)
    server.receive(b"\0\0\0\x20\x85\xa4type\xa5hello")
    with pytest.raises(ssl.SSLError) as error:
        server.established()
    assert explain(error.value) == "does not speak TLS 1.3; is TLS off there?"


# -- files and their renewal ------------------------------------------------------------------------------


def test_a_renewed_certificate_is_used_for_the_next_connection(certs):
    server, client = contexts(certs.member("n1"), "n1"), contexts(certs.member("n2"), "n2")
    before = pair(server, client)[1]._tls.getpeercert()["serialNumber"]
    certs.member("n1")
    assert pair(server, client)[1]._tls.getpeercert()["serialNumber"] != before


def test_what_the_next_connection_shows_is_known_with_its_end(certs):
    own = contexts(certs.member("n1", valid_for=9 * DAY), "n1")
    before = own.current()
    certs.member("n1", valid_for=90 * DAY)
    assert own.current().expires_at == before.expires_at + 81 * DAY


def test_files_that_did_not_change_are_not_read_again(certs):
    own = contexts(certs.member("n1"), "n1")
    assert own.current().server is own.current().server
    assert own.current().client is own.current().client


def test_half_a_renewal_changes_nothing_until_it_is_whole(certs):
    tls = certs.member("n1")
    own, client = contexts(tls, "n1"), contexts(certs.member("n2"), "n2")
    old_key = tls.key.read_bytes()
    certs.member("n1")
    new_key = tls.key.read_bytes()
    write(tls.key, old_key)
    before = own.current().server
    pair(own, client)
    assert own.current().server is before
    assert tls.problem() == (
        f"the key in {tls.key} does not belong to the certificate in {tls.cert}: put both of one issue there"
    )
    write(tls.key, new_key)
    assert own.current().server is not before
    assert tls.problem() is None
    pair(own, client)


def test_an_authority_is_replaced_while_both_are_trusted(certs):
    n1, n2 = contexts(certs.member("n1"), "n1"), contexts(certs.member("n2"), "n2")
    old, new = certs.authority, certs.new_authority()
    certs.trust(old, new)
    certs.member("n1", authority=new)
    pair(n1, n2)
    pair(n2, n1)
    certs.member("n2", authority=new)
    certs.trust(new)
    pair(n1, n2)
    certs.member("n2", authority=old)
    with pytest.raises(ssl.SSLCertVerificationError):
        pair(n1, n2)


def test_a_certificate_of_somebody_else_is_refused_at_once(certs):
    tls = certs.member("n2")
    with pytest.raises(TlsError, match=r"is for 'n2' of cluster 'c', this is 'n1' of 'x'"):
        contexts(tls, "n1", "x")


def test_a_certificate_of_somebody_else_is_not_taken_up_later(certs):
    own = contexts(certs.member("n1"), "n1")
    before = own.current().server
    certs.member("n2", file="n1")
    assert own.current().server is before


# -- what is known of the own certificate -----------------------------------------------------------------


def test_what_is_known_of_the_certificate_is_what_the_last_look_saw(certs):
    """Whoever reads it waits for no file: not even for those that are gone."""
    tls = certs.member("n1", valid_for=90 * DAY)
    own = contexts(tls, "n1")
    assert own.certificate == CertificateStatus(tls.expires_at(), None)
    seen = own.certificate
    tls.cert.unlink()
    assert own.certificate is seen
    own.look()
    assert own.certificate == CertificateStatus(
        None, f"cannot read {tls.cert}: No such file or directory; put it there"
    )
    certs.member("n1", valid_for=30 * DAY)
    own.look()
    assert own.certificate == CertificateStatus(tls.expires_at(), None)


def test_a_look_at_what_did_not_change_costs_no_trial(certs, monkeypatch):
    own = contexts(certs.member("n1"), "n1")
    seen = own.certificate
    own.look()
    assert own.certificate is seen
    monkeypatch.setattr("raft.tls.TRIAL_S", 0.0)
    own.look()
    assert own.certificate is not seen
    assert own.certificate == seen


def test_a_certificate_that_expires_is_said_to_have_at_the_next_look(certs):
    tls = certs.member("n1", valid_for=timedelta(seconds=1))
    own = contexts(tls, "n1")
    assert own.certificate.problem is None
    time.sleep(max(0.0, (tls.expires_at() - now()).total_seconds()) + 0.1)
    own.look()
    assert own.certificate.problem == (
        f"the certificate in {tls.cert} expired on {certificates.words(tls.expires_at())}: renew it"
    )


def test_a_certificate_of_somebody_else_is_a_problem_in_words(certs):
    tls = certs.member("n1")
    own = contexts(tls, "n1")
    certs.member("n2", file="n1")
    own.look()
    assert own.certificate == CertificateStatus(
        tls.expires_at(),
        f"the certificate in {tls.cert} is for 'n2' of cluster 'c', this is 'n1' of 'c': put its own there",
    )


def test_a_connection_that_finds_other_files_calls_for_a_look_at_once(certs):
    tls = certs.member("n1")
    own = contexts(tls, "n1")
    own.start()
    try:
        time.sleep(0.3)  # the thread has looked once, and waits for long
        tls.key.unlink()
        assert own.certificate.problem is None
        own.current()
        deadline_s = time.monotonic() + 5
        while own.certificate.problem is None:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert own.certificate.problem == f"cannot read {tls.key}: No such file or directory; put it there"
    finally:
        own.close()


# -- problems in words -----------------------------------------------------------------------------------


def test_a_good_certificate_has_no_problem_and_an_end(certs):
    tls = certs.member("n1", valid_for=90 * DAY)
    assert tls.problem() is None
    assert tls.subject() == Subject("c", "n1")
    assert abs(tls.expires_at() - (now() + 90 * DAY)) < timedelta(seconds=10)


def test_a_certificate_out_of_its_time_says_since_when(certs):
    tls = certs.member("n1", valid_for=90 * DAY)
    end = certificates.words(tls.expires_at())
    assert tls.problem(now() + 91 * DAY) == f"the certificate in {tls.cert} expired on {end}: renew it"
    assert f"the certificate in {tls.cert} is valid from " in tls.problem(now() - DAY)
    assert tls.problem(now() - DAY).endswith("set the clock")


def test_a_certificate_that_does_not_fit_the_authorities_is_named(certs):
    tls = certs.member("n1")
    certs.trust(certs.new_authority())
    assert tls.problem() == (
        f"the certificate in {tls.cert} is of no use with the authorities in {tls.ca}:"
        " none of the trusted authorities has signed it"
    )


@pytest.mark.parametrize("part", ["ca", "cert", "key"])
def test_a_file_that_is_missing_or_junk_is_named(certs, part):
    tls = certs.member("n1")
    path = getattr(tls, part)
    path.unlink()
    assert tls.problem() == f"cannot read {path}: No such file or directory; put it there"
    with pytest.raises(TlsError, match="No such file"):
        contexts(tls, "n1")
    for junk in (b"", b"junk", b"\xff\xfe"):
        path.write_bytes(junk)
        assert str(path) in tls.problem()
        with pytest.raises(TlsError, match=path.name):
            contexts(tls, "n1")


def test_a_key_with_a_password_asks_nobody_on_a_terminal(certs):
    tls = certs.member("n1")
    key = certificates.key_from_pem(tls.key.read_bytes())
    write(
        tls.key,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        ),
    )
    assert tls.problem() == (
        f"the key in {tls.key} asks for a password: store it without one, readable by its owner only"
    )


def test_an_end_that_cannot_be_read_is_an_error_in_words(tmp_path):
    with pytest.raises(TlsError, match="cannot read"):
        Tls(tmp_path, tmp_path, tmp_path).expires_at()

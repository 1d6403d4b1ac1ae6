"""When a node renews its own certificate, and what it says when it cannot. Real files, real handshakes."""

import os
from dataclasses import replace
from datetime import timedelta

import pytest

from appliance.ha.seen import CertificateSeen
from appliance.node import renewal
from appliance.node.certificates import begin_rotation, read
from appliance.node.config import TlsSection
from appliance.node.renewal import Renewal, is_due
from raft.certificates import subject_of, words
from raft.tls import Tls
from tests.harness.certificates import Certificates, now


@pytest.fixture
def made(tmp_path):
    return Certificates(tmp_path, "c", with_key=True)


@pytest.fixture
def told():
    return []


@pytest.fixture
def looks(made, told):
    """One look at the certificate of n1."""
    files = made.tls("n1")
    watched = Renewal(TlsSection(ca=files.ca, cert=files.cert, key=files.key), told.append)

    def look():
        watched.look()
        return without_authorities(watched.seen)

    return look


def without_authorities(seen):
    return replace(seen, issuer="", trusts=())


def end_of(made):
    return read(made.tls("n1").cert)[0].not_valid_after_utc


@pytest.mark.parametrize(("lived", "due"), [(-0.1, True), (0.01, False), (0.66, False), (0.67, True), (1.1, True)])
def test_it_is_due_from_two_thirds_on_and_when_the_clock_was_wrong(made, lived, due):
    certificate = read(made.aged_member("n1", lived).cert)[0]

    assert is_due(certificate, now()) is due


def test_a_young_certificate_is_left_alone(made, looks, told):
    made.aged_member("n1", 0.5)
    before = end_of(made)

    assert looks() == CertificateSeen(before.isoformat())
    assert (end_of(made), told) == (before, [])


@pytest.mark.parametrize("lived", [0.7, 1.1])
def test_an_old_or_expired_one_is_renewed_and_accepted(made, looks, told, lived):
    made.aged_member("n1", lived)

    seen = looks()

    assert seen == CertificateSeen(end_of(made).isoformat())
    assert told == [seen.expires_at]
    assert end_of(made) > now() + timedelta(days=89)
    assert made.tls("n1").problem() is None
    assert looks() == seen
    assert len(told) == 1


@pytest.mark.parametrize(
    ("named", "host", "found"),
    [
        (["pg1.example"], "PG1.example", True),
        (["pg1"], "10.0.0.11", False),
        (["pg1", "10.0.0.11"], "10.0.0.11", True),
        (["fd00::11"], "fd00:0::0011", True),
        (["10.0.0.11"], "pg1", False),
        ([], "pg1", False),
    ],
)
def test_a_certificate_that_does_not_name_postgresqls_host_is_told_before_it_matters(made, told, named, host, found):
    files = made.member("n1", hosts=named)
    os.chown(files.key, os.geteuid(), -1)
    watched = Renewal(TlsSection(ca=files.ca, cert=files.cert, key=files.key), told.append, host)
    watched.look()

    problem = f"it does not name {host}, where PostgreSQL is reached; issue it again with --host {host}"
    assert (watched.seen.problem, watched.seen.usable) == ("" if found else problem, True)


def test_a_key_that_postgresql_refuses_is_told(made, told):
    files = made.member("n1", hosts=("10.0.0.1",))
    os.chown(files.key, os.geteuid(), -1)
    files.key.chmod(0o644)
    section = TlsSection(ca=files.ca, cert=files.cert, key=files.key)
    watched, witness = Renewal(section, told.append, "10.0.0.1"), Renewal(section, told.append)
    watched.look()
    witness.look()

    assert watched.seen.problem == f"tls.key: {files.key} has mode 0644, which PostgreSQL refuses; make it 0600"
    assert witness.seen.problem == ""
    files.key.chmod(0o600)
    watched.look()
    assert watched.seen.problem == ""


def test_without_the_authoritys_key_it_warns_until_it_has_expired(made, looks, told):
    (made.directory / "ca.key").unlink()
    made.aged_member("n1", 0.7)
    warned = looks()
    assert warned.usable
    assert warned.problem == (
        f"it expires on {words(end_of(made))} and is not renewed:"
        f" the authority's key is not here, in {made.directory / 'ca.key'}"
    )

    made.aged_member("n1", 1.1)
    expired = looks()
    assert not expired.usable
    assert f"expired on {words(end_of(made))}: renew it" in expired.problem
    assert "the authority's key is not here" in expired.problem
    assert told == []


def test_an_authority_at_its_end_is_said(made, looks, told):
    """What it issues cannot outlast it."""
    made.authority = made.new_authority(valid_for=timedelta(days=10))
    made.trust(made.authority)
    made.store_key(made.authority)
    made.aged_member("n1", 0.95)

    looks()
    assert end_of(made) == made.authority.certificate.not_valid_after_utc
    made.member("n1", issued=now() - timedelta(days=80), valid_for=timedelta(days=200))
    assert "the authority itself expires on" in looks().problem
    assert len(told) == 1


def test_a_key_of_another_authority_renews_nothing(made, looks):
    made.store_key(made.new_authority())
    made.aged_member("n1", 0.7)
    before = end_of(made)

    assert "belongs to none of the trusted authorities" in looks().problem
    assert end_of(made) == before


def test_what_cannot_be_read_is_a_problem_not_an_exception(made, looks):
    missing = looks()
    assert (missing.expires_at, missing.usable) == ("", False)
    assert "n1.crt" in missing.problem

    made.member("n1").cert.write_text("nothing")
    assert "no certificate in PEM" in looks().problem


def test_it_looks_again_and_again_until_it_is_stopped(made, told, monkeypatch):
    monkeypatch.setattr(renewal, "LOOK_S", 0.02)
    files = made.member("n1")
    watched = Renewal(TlsSection(ca=files.ca, cert=files.cert, key=files.key), told.append)
    watched.start()
    made.aged_member("n1", 0.7)
    for _ in range(500):
        if told:
            break
        watched._thread.join(0.02)
    watched.stop()
    watched._thread.join(5)

    assert told
    assert not watched.alive


def test_the_key_may_lie_elsewhere(made, tmp_path):
    files = made.aged_member("n1", 0.7)
    section = TlsSection(ca=files.ca, cert=files.cert, key=files.key)
    assert section.issuing_key == tmp_path / "ca.key"
    elsewhere = tmp_path / "safe.key"
    section.issuing_key.rename(elsewhere)
    watched = Renewal(section.model_copy(update={"ca_key": elsewhere}), lambda _: None)
    watched.look()

    assert watched.seen is not None
    assert watched.seen.problem == ""
    assert replace(without_authorities(watched.seen), expires_at="") == CertificateSeen("")
    assert Tls(files.ca, files.cert, files.key).problem() is None


def test_it_tells_who_has_signed_it_and_whom_the_node_trusts(made, tmp_path):
    files = made.member("n1")
    watched = Renewal(TlsSection(ca=files.ca, cert=files.cert, key=files.key), lambda _: None)
    first = subject_of(made.authority.certificate).member

    watched.look()
    assert (watched.seen.issuer, watched.seen.trusts) == (first, (first,))

    begin_rotation(tmp_path, timedelta(days=1))
    watched.look()
    assert watched.seen.issuer == first
    assert watched.seen.trusts == (*(subject_of(each).member for each in read(files.ca)),)
    assert len(watched.seen.trusts) == 2

    files.cert.write_text("nothing")
    files.ca.unlink()
    watched.look()
    assert (watched.seen.issuer, watched.seen.trusts) == ("", ())

"""Certificates in the life of a cluster: renewed, expired, of another authority. No node is restarted for it."""

import signal
import ssl
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from appliance.node.certificates import CA, CA_KEY, read, read_authority
from raft.certificates import is_signed_by, subject_of
from raft.tls import Tls
from tests.harness.certificates import copy, write
from tests.harness.cluster import Cluster
from tests.harness.ledger import Ledger
from tests.harness.processes import alive

LOOK_LIMIT_S = 30


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        yield cluster.up()


def tls_of(node):
    return Tls(*(Path(node.config["tls"][key]) for key in ("ca", "cert", "key")))


def leadership(node):
    raft = node.view()["raft"]
    return raft["leader"], raft["term"]


def problems(node):
    return {problem["code"]: problem for problem in node.view()["problems"]}


@contextmanager
def undisturbed(cluster):
    """The raft leader leads on, the primary takes writes all the time, no acknowledged row is lost."""
    primary = cluster.wait_whole()
    if cluster.raft_leader() in {None, primary}:
        cluster.lead(cluster.standbys()[0])
    cluster.mark_logs()
    before = leadership(cluster["n1"])
    with Ledger(cluster) as ledger:
        ledger.wait_for_writes(10, more=50)
        yield
        cluster.wait_whole()
        ledger.wait_for_writes(10, more=50)
        audit = ledger.audit(cluster.primary())
    assert {leadership(node) for node in cluster} == {before}
    audit.expect_no_loss()
    assert audit.longest_gap_s() < 1


def restart(cluster, node):
    """The node process alone, so that all its connections are made anew."""
    node.end(signal.SIGTERM)
    node.start()
    cluster.wait_whole()


def follower(cluster):
    """Neither raft leader nor primary."""
    leader, _ = leadership(cluster["n1"])
    return next(node for node in cluster.standbys() if node.name != leader)


def test_the_raft_port_shows_its_certificate_and_status_its_end(cluster):
    node = cluster["n1"]
    own = read(tls_of(node).cert)[0]

    shown = ssl.get_server_certificate((node.place.host, node.place.raft_port), ca_certs=str(tls_of(node).ca))

    assert shown == own.public_bytes(Encoding.PEM).decode()
    assert f"TLS         certificates until {own.not_valid_after_utc:%Y-%m-%d}" in node.command("status").stdout
    assert {member["certificate"]["problem"] for member in node.view()["members"]} == {""}


def test_certificates_are_renewed_while_the_cluster_works(cluster):
    made = cluster.certificates
    with undisturbed(cluster):
        for node in cluster:
            write(tls_of(node).ca.with_name(CA_KEY), (made.store_key(made.authority)).read_bytes())
            copy(made.aged_member(node.name, 0.7), tls_of(node))
        aged = {node.name: read(tls_of(node).cert)[0].not_valid_after_utc for node in cluster}
        for node in cluster:
            cluster.wait_until(lambda node=node: node.logged("certificate.renewed"), LOOK_LIMIT_S, "it is renewed")
            renewed = read(tls_of(node).cert)[0]
            assert renewed.not_valid_after_utc > aged[node.name]
            assert tls_of(node).problem() is None
        restart(cluster, follower(cluster))
    for node in cluster:
        tls_of(node).ca.with_name(CA_KEY).unlink()


def test_a_certificate_that_nobody_renews_is_a_problem_before_and_after_its_end(cluster):
    made, node = cluster.certificates, follower(cluster)
    other = next(each for each in cluster if each is not node)

    copy(made.aged_member(node.name, 0.7), tls_of(node))
    due = cluster.wait_until(lambda: problems(other).get("certificate.due"), LOOK_LIMIT_S, "others are warned")
    assert due["member"] == node.name
    assert "is not renewed: the authority's key is not here" in due["message"]
    assert other.view()["verdict"] == "degraded"

    copy(made.aged_member(node.name, 1.1), tls_of(node))
    unusable = cluster.wait_until(lambda: problems(node).get("certificate.unusable"), LOOK_LIMIT_S, "it has expired")
    assert "expired on" in unusable["message"]
    assert f"appliance certs issue {node.name} --replace" in unusable["hint"]
    assert node.command("status", "--exit-code").returncode == 11

    postmaster = node.postmaster
    node.end(signal.SIGTERM)
    node.start()
    refused = "shows a certificate that is not accepted: it has expired"
    cluster.wait_until(lambda: refused in str(other.view()["raft"]), LOOK_LIMIT_S, "the others say why")
    shown = cluster.wait_until(lambda: problems(node).get("certificate.unusable"), LOOK_LIMIT_S, "it knows itself")
    assert "expired on" in shown["message"]

    copy(made.member(node.name), tls_of(node))
    cluster.wait_whole()
    assert node.postmaster == postmaster
    assert alive(node.pid)


def test_another_authority_without_losing_the_raft_leader(cluster):
    made = cluster.certificates
    place, operator = made.directory, cluster["n1"]
    made.store_key(made.authority)
    old = made.authority.certificate

    def certs(*words):
        done = operator.command("certs", *words, "--dir", str(place))
        assert done.returncode == 0, done.stderr

    def finish():
        return operator.command("certs", "rotate-ca", "finish", "--dir", str(place))

    def trust_what_is_in(place):
        for node in cluster:
            write(tls_of(node).ca, (place / CA).read_bytes())

    with undisturbed(cluster):
        certs("rotate-ca", "begin")
        trust_what_is_in(place)
        by_itself = cluster["n1"]
        write(tls_of(by_itself).ca.with_name(CA_KEY), (place / CA_KEY).read_bytes())
        renewed = by_itself.command("certs", "renew")
        assert renewed.returncode == 0, renewed.stderr
        for node in cluster:
            certs("issue", node.name, "--host", node.place.host, "--replace")
        early = finish()
        late = [node for node in cluster if node is not by_itself]
        said = {line.split(":")[0].strip(): line for line in early.stderr.splitlines()}
        assert (early.returncode, "would be shut out" in early.stderr) == (4, True)
        assert all(f"its certificate is of {subject_of(old).member}" in said[node.name] for node in late)
        for node in late:
            copy(made.tls(node.name), tls_of(node))
        restart(cluster, follower(cluster))
        cluster.wait_until(lambda: finish().returncode == 0, LOOK_LIMIT_S, "every node has seen its new certificate")
        trust_what_is_in(place)
        restart(cluster, follower(cluster))

    made.authority = read_authority(place / CA, place / CA_KEY)
    assert not is_signed_by(made.authority.certificate, old)
    for node in cluster:
        tls = tls_of(node)
        assert read(tls.ca) == (made.authority.certificate,)
        assert is_signed_by(read(tls.cert)[0], made.authority.certificate)
        assert tls.problem() is None

"""Joining a real replica over its real port: token, membership, certificate; each step again, and each refusal."""

import io
from dataclasses import replace

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from appliance.api.published import InviteRequest
from appliance.cli.exits import Code, CommandError
from appliance.cli.join import Here, join
from appliance.cluster.state import FORMAT, NodeRole
from appliance.node.config import NodeConfig
from appliance.node.invitation import decode, key_digest
from appliance.node.machine import ClusterMachine
from appliance.node.messages import Admit, Certify, Join, encode
from appliance.node.messages import decode as decode_message
from appliance.node.registrar import JoinError, Registrar
from raft import Replica, ReplicaConfig, Tls, certificates, joining
from tests.raft.conftest import eventually, free_ports

only_tls = pytest.mark.parametrize("certificates", ["tls"], indirect=True)


class Leader:
    """A cluster of one, with the authority's key or without TLS."""

    def __init__(self, directory, certificates):
        place = f"127.0.0.1:{free_ports(1)[0]}"
        tls = None
        if certificates is not None:
            files = certificates.member("n1")
            tls = {"ca": str(files.ca), "cert": str(files.cert), "key": str(files.key)}
            (files.ca.parent / "ca.key").write_bytes(certificates_key(certificates))
        settings = {"name": "n1", "cluster": "c", "members": {"n1": place}, "tls": tls}
        self.config = NodeConfig.read(settings | {"state_dir": str(directory / "n1")})
        self.replica = Replica(
            ReplicaConfig(
                "c",
                "n1",
                directory / "raft",
                place,
                {"n1": place},
                tls=None if tls is None else Tls(files.ca, files.cert, files.key),
            ),
            ClusterMachine(),
            on_event=lambda _: None,
            on_request=self.handle,
            on_join=self.join,
        )
        self.registrar = Registrar(self.config, self.replica)
        self.replica.start()
        eventually(lambda: self.replica.view().is_leader)

    def join(self, name, question):
        self.asked = decode_message(question)
        return self.registrar.join(name, question)

    def handle(self, peer, payload):
        match decode_message(payload):
            case Admit() | Certify() as asked:
                return encode(self.registrar.answer(asked))

    def invite(self, name="n4", role=NodeRole.DATA, valid_for_s=60.0, identity="i1"):
        answer = self.registrar.invite(InviteRequest(identity, "anna", name, role, valid_for_s), 5.0)
        assert answer.outcome == "accepted", answer
        return answer.message

    def member(self, name):
        return self.replica.status().members.get(name)

    @property
    def tokens(self):
        return self.replica.view().state.tokens


def certificates_key(made):
    return certificates.key_to_pem(made.authority.key)


@pytest.fixture
def leader(tmp_path, certificates):
    leader = Leader(tmp_path, certificates)
    yield leader
    leader.replica.stop()


@pytest.fixture
def here(tmp_path, certificates, leader):
    """A host whose file names where everything goes."""
    place = f"127.0.0.1:{free_ports(1)[0]}"
    below = tmp_path / "n4" / "tls"
    tls = {"ca": str(below / "ca.crt"), "cert": str(below / "node.crt"), "key": str(below / "node.key")}
    settings = {
        "name": "n4",
        "cluster": "c",
        "members": {**leader.config.members, "n4": place},
        "state_dir": str(tmp_path / "n4"),
    }
    path = tmp_path / "node.yml"
    path.write_text(yaml.safe_dump(settings | ({} if certificates is None else {"tls": tls})))
    return Here(path, "", ("pg4.example",))


def test_a_node_joins_with_its_token_and_may_repeat_it(leader, here):
    line = leader.invite()
    for _ in range(2):
        assert join(line, here, 5.0) == 0
        config = NodeConfig.load(here.config)
        member = leader.member("n4")
        assert (member.role, member.replica_id, member.address) == ("joining", "", config.raft_address)
        assert [token.member for token in leader.tokens if token.used_by] == ["n4"]
        if config.tls is not None:
            assert config.tls.key.stat().st_mode & 0o777 == 0o600
            assert Tls(config.tls.ca, config.tls.cert, config.tls.key).problem() is None
            (issued,) = certificates.certificates_from_pem(config.tls.cert.read_bytes())
            assert certificates.subject_of(issued) == certificates.Subject("c", "n4")


def test_the_token_need_not_stand_in_the_list_of_processes(leader, here, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{leader.invite()}\nmore\n"))
    assert join("-", here, 5.0) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(CommandError, match="0 characters are no token"):
        join("-", here, 5.0)


def test_who_joins_says_the_highest_format_that_its_version_knows(leader, here):
    assert join(leader.invite(), here, 5.0) == 0
    assert leader.asked.format == FORMAT > 0


def test_a_version_that_could_not_read_the_log_does_not_join_and_keeps_its_token(leader, here):
    leader.invite()
    (token,) = leader.tokens
    asked = Join(token.id, "secret", "n4", "127.0.0.1:1", "key", format=leader.replica.view().state.format - 1)
    with pytest.raises(JoinError) as error:
        leader.registrar.join("n4", encode(asked))
    assert str(error.value) == (
        "the cluster uses format 1, the version on n4 knows up to 0: install the version there that the members run"
    )
    assert leader.tokens == (token,)


def test_another_key_cannot_use_a_used_token(leader, here, tmp_path):
    line = leader.invite()
    assert join(line, here, 5.0) == 0
    config = NodeConfig.load(here.config)
    if config.tls is not None:
        config.tls.key.unlink()
    else:
        here.config.write_text(here.config.read_text().replace(config.raft_address, "127.0.0.1:1"))
    with pytest.raises(CommandError, match="was used before"):
        join(line, here, 5.0)


def test_what_is_no_use_is_refused_in_words(leader, here):
    line = leader.invite()
    good, index = decode(line), leader.replica.status().last_index
    for changed, said in (
        (replace(good, secret="wrong"), r"no token .* with this secret"),
        (replace(good, token="wrong"), "no token wrong"),
        (replace(good, cluster="other"), "is of node 'n4' of cluster 'c'"),
        (replace(good, member="n5"), "the token is for 'n5'"),
        (replace(good, members={"n1": "127.0.0.1:1"}), "Connection refused"),
    ):
        with pytest.raises(CommandError, match=said):
            join(changed.encode(), here, 5.0)
    assert leader.member("n4") is None
    assert [token.used_by for token in leader.tokens] == [""]
    assert leader.replica.status().last_index == index, "strangers write nothing into the log"


def test_a_file_without_the_members_that_are_there_would_begin_a_cluster_of_its_own(leader, here):
    line = leader.invite()
    here.config.write_text(here.config.read_text().replace("  n1: ", "  n2: "))
    with pytest.raises(CommandError, match="members: add those that are there") as refused:
        join(line, here, 5.0)
    assert refused.value.lines == (f"  n1: {leader.config.raft_address}",)
    assert leader.member("n4") is None


def test_a_token_for_another_member_is_of_no_use(leader, here):
    stolen = replace(decode(leader.invite("n5")), member="n4")
    with pytest.raises(CommandError, match="is for n5, not for n4"):
        join(stolen.encode(), here, 5.0)
    assert leader.member("n4") is None


def test_a_token_is_told_once(leader):
    """Whoever repeats a request whose answer was lost gets no line that looks like a token and is none."""
    line = leader.invite()
    again = leader.registrar.invite(InviteRequest("i1", "anna", "n4", NodeRole.DATA, 60.0), 5.0)
    assert (again.outcome, again.code) == ("refused", "token.told")
    assert decode(line).secret not in repr(again)
    assert [token.id for token in leader.tokens] == [decode(line).token]
    assert decode(leader.invite(identity="i2")).token != decode(line).token


def test_nobody_is_admitted_or_certified_without_a_used_token(leader):
    line = decode(leader.invite())
    for asked in (Admit(line.token, "n4", "127.0.0.1:1", "key"), Certify(line.token, "n4", "127.0.0.1:1", "key", "")):
        work = leader.registrar.admit if isinstance(asked, Admit) else leader.registrar.certify
        with pytest.raises(Exception, match=r"no token|has no key"):
            work(asked)
    with pytest.raises(Exception, match="is no address"):  # also when a member asks
        leader.registrar.admit(Admit(line.token, "n4", "\x1b[2J:1", "key"))


def question(line, signer=None, /, **other):
    """What a stranger may ask by hand; `signer` signs the certificate request."""
    good, key = decode(line), signer or certificates.new_key()
    request = certificates.request_to_pem(certificates.request(certificates.Subject(good.cluster, good.member), key))
    asked = Join(
        good.token,
        good.secret,
        good.member,
        "127.0.0.1:1",
        key_digest(key.public_key()),
        request.decode(),
        format=FORMAT,
    )
    return replace(asked, **other)


def index(leader):
    return leader.replica.status().last_index


@only_tls
def test_a_used_token_moves_nobody_without_its_key(leader, here):
    """Which key that was is no secret: everybody who connects to PostgreSQL is shown its certificate."""
    line = leader.invite()
    assert join(line, here, 5.0) == 0
    place, before = leader.member("n4").address, index(leader)
    (used_by,) = [token.used_by for token in leader.tokens]
    for asked in (
        question(line),
        replace(question(line), key=used_by),
        replace(question(line), key=used_by, request=""),
    ):
        with pytest.raises(joining.JoinError, match=r"was used before|for another key|no certificate request"):
            joining.ask(decode(line).door, "n4", encode(asked), 5.0)
    assert leader.member("n4").address == place
    assert index(leader) == before


def test_who_repeats_the_question_writes_nothing_into_the_log(leader, here):
    line = leader.invite()
    assert join(line, here, 5.0) == 0
    before = index(leader)
    for _ in range(3):
        assert join(line, here, 5.0) == 0
    assert index(leader) == before


def test_a_question_that_could_not_be_lived_with_uses_no_token(leader):
    line = leader.invite()
    before = index(leader)
    for wrong, said in (
        ({"address": "nowhere"}, "is no address"),
        ({"address": "x" * 300 + ":1"}, "is no address"),
        ({"address": "\x1b[2J:7400"}, "is no address"),
        ({"address": "0.0.0.0:7400"}, "no address that others can reach"),
        ({"address": ":7400"}, "no address that others can reach"),
        ({"key": "x" * 50_000}, "digest"),
        ({"key": ""}, "digest"),
    ):
        with pytest.raises(joining.JoinError, match=said):
            joining.ask(decode(line).door, "n4", encode(question(line, **wrong)), 5.0)
    assert [token.used_by for token in leader.tokens] == [""]
    assert leader.member("n4") is None
    assert index(leader) == before


@only_tls
def test_hosts_that_no_certificate_can_name_use_no_token(leader):
    line = leader.invite()
    for hosts, said in (
        (["*.example.com"], "neither a DNS name nor an IP address"),
        (["a b"], "neither a DNS name nor an IP address"),
        ([f"pg{number}" for number in range(65)], "66 hosts are more than the 64"),
    ):
        with pytest.raises(joining.JoinError, match=said):
            joining.ask(decode(line).door, "n4", encode(question(line, hosts=tuple(hosts))), 5.0)
    assert [token.used_by for token in leader.tokens] == [""]
    assert leader.member("n4") is None


@only_tls
def test_nothing_of_a_request_but_its_key_comes_into_the_certificate(leader):
    """It asks to be an authority, for other names, of other kinds."""
    line, key = leader.invite(), certificates.new_key()
    names = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "c"),
        x509.NameAttribute(NameOID.COMMON_NAME, "n4"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "authorities"),
    ]
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(names))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("n1")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    asked = question(line, key, request=certificates.request_to_pem(greedy).decode(), hosts=("pg4.example",))
    answer = decode_message(joining.ask(decode(line).door, "n4", encode(asked), 5.0))
    (issued,) = certificates.certificates_from_pem(answer.certificate.encode())
    assert not certificates.is_authority(issued)
    assert certificates.hosts_of(issued) == ("127.0.0.1", "pg4.example")
    assert sorted(issued.subject.rfc4514_string().split(",")) == ["CN=n4", "O=c"]


@only_tls
def test_a_request_for_another_name_uses_no_token(leader):
    line, key = leader.invite(), certificates.new_key()
    for member in ("n1", "N4", "n4 ", "n4\0", "\uff4e4", ""):
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "c")]
        names += [x509.NameAttribute(NameOID.COMMON_NAME, member)] if member else []
        other = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
        asked = question(line, key, request=certificates.request_to_pem(other).decode())
        with pytest.raises(joining.JoinError, match=r"the request is for|does not name one member"):
            joining.ask(decode(line).door, "n4", encode(asked), 5.0)
    assert [token.used_by for token in leader.tokens] == [""]


@only_tls
def test_of_the_authorities_file_only_certificates_go_out(leader, here):
    """Some keep the key in the same file."""
    ca = leader.config.tls.ca
    ca.write_bytes(ca.with_name("ca.key").read_bytes() + b"# ours\n" + ca.read_bytes())
    line = leader.invite()
    assert b"PRIVATE" not in decode(line).ca
    assert join(line, here, 5.0) == 0
    given = NodeConfig.load(here.config).tls.ca.read_bytes()
    assert given == decode(line).ca
    assert given.startswith(b"-----BEGIN CERTIFICATE-----")
    assert b"PRIVATE" not in given


def test_a_learner_is_a_learner(leader, here):
    file = yaml.safe_load(here.config.read_text())
    here.config.write_text(yaml.safe_dump(file | {"role": "learner"}))
    assert join(leader.invite(role=NodeRole.LEARNER), here, 5.0) == 0
    assert leader.member("n4").role == "learner"


def test_an_address_that_another_member_has_is_refused_by_name(leader, here):
    line, taken = leader.invite(), leader.config.raft_address
    file = yaml.safe_load(here.config.read_text())
    here.config.write_text(yaml.safe_dump(file | {"raft": {"advertise": taken}}))

    with pytest.raises(CommandError, match=rf"may not: {taken} is the address of n1; say --address with that of n4"):
        join(line, here, 5.0)
    assert leader.member("n4") is None


def test_a_member_that_runs_keeps_its_address(leader, here):
    """Its name was meant for another node, or its host is to be replaced while it still carries the cluster."""
    own = leader.config.raft_address
    file = yaml.safe_load(here.config.read_text())
    moved = file["members"].pop("n4")
    here.config.write_text(yaml.safe_dump(file | {"name": "n1", "members": {"n1": moved}}))

    with pytest.raises(CommandError, match=f"n1 is a member at {own}, and connected: end its node if {moved}"):
        join(leader.invite("n1"), here, 5.0)
    assert leader.member("n1").address == own


def test_a_file_with_another_role_than_the_token_is_told(leader, here):
    file = yaml.safe_load(here.config.read_text())
    here.config.write_text(yaml.safe_dump(file | {"role": "witness"}))
    line = leader.invite()

    with pytest.raises(CommandError, match="role: witness, the token is for a data"):
        join(line, here, 5.0)
    here.config.write_text(yaml.safe_dump(file))
    assert join(line, here, 5.0) == 0


def test_nobody_there_is_another_exit_code_than_a_refusal(leader, here):
    away = replace(decode(leader.invite()), members={"n1": "127.0.0.1:1"})
    with pytest.raises(CommandError, match=r"no member can be reached: n1 at 127.0.0.1:1: Connection refused") as found:
        join(away.encode(), here, 5.0)
    assert found.value.code == Code.UNREACHABLE

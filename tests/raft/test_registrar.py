"""Joining a real replica over its real port: token, membership, certificate; each step again, and each refusal."""

from dataclasses import replace

import pytest
import yaml

from appliance.api.published import InviteRequest
from appliance.cli.exits import CommandError
from appliance.cli.join import Here, join
from appliance.cluster.state import NodeRole
from appliance.node.config import NodeConfig
from appliance.node.invitation import decode
from appliance.node.machine import ClusterMachine
from appliance.node.messages import Admit, Certify, encode
from appliance.node.messages import decode as decode_message
from appliance.node.registrar import Registrar
from raft import Replica, ReplicaConfig, Tls, certificates
from tests.raft.conftest import eventually, free_ports


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
        return self.registrar.join(name, question)

    def handle(self, peer, payload):
        match decode_message(payload):
            case Admit() as asked:
                return encode(self.registrar.admit(asked))
            case Certify() as asked:
                return encode(self.registrar.certify(asked))

    def invite(self, name="n4", role=NodeRole.DATA, valid_for_s=60.0):
        answer = self.registrar.invite(InviteRequest("i1", "anna", name, role, valid_for_s), 5.0)
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


def test_nobody_is_admitted_or_certified_without_a_used_token(leader):
    line = decode(leader.invite())
    for asked in (Admit(line.token, "n4", "127.0.0.1:1", "key"), Certify(line.token, "n4", "127.0.0.1:1", "key", "")):
        work = leader.registrar.admit if isinstance(asked, Admit) else leader.registrar.certify
        with pytest.raises(Exception, match=r"no token|has no key"):
            work(asked)


def test_a_learner_is_a_learner(leader, here):
    assert join(leader.invite(role=NodeRole.LEARNER), here, 5.0) == 0
    assert leader.member("n4").role == "learner"

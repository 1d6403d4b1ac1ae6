"""`appliance certs` with real files, whose chains openssl and Python's ssl verify."""

import json
import os
import pwd
import ssl
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from appliance.api.published import ReplicaSeen
from appliance.ha.seen import CertificateSeen, ReportSeen
from appliance.node import privileges
from appliance.node.certificates import readable
from raft.tls import Sealed
from tests.harness.certificates import Certificates
from tests.unit.api.building import VOTERS


@pytest.fixture
def place(tmp_path, appliance):
    directory = tmp_path / "certificates"
    assert appliance("certs", "init", "--cluster", "shop", "--dir", directory).code == 0
    return directory


def issue(appliance, place, member="n1", *more):
    ran = appliance("certs", "issue", member, "--dir", place, *more)
    assert ran.code == 0, ran.err


def node_file(place, member="n1", **tls):
    config = place.parent / f"{member}.yml"
    given = {"ca": place / "ca.crt", "cert": place / f"{member}.crt", "key": place / f"{member}.key"} | tls
    members = {"n1": "10.0.0.1:7400", "n2": "10.0.0.2:7400", "n3": "10.0.0.3:7400"}
    config.write_text(
        yaml.safe_dump(
            {
                "name": member,
                "cluster": "shop",
                "members": members,
                "state_dir": str(place.parent),
                "tls": {key: str(path) for key, path in given.items()},
            }
        )
    )
    return config


def mode(path):
    return path.stat().st_mode & 0o777


def shown(appliance, *files):
    ran = appliance("certs", "show", *files, "-o", "json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def trusts(ca, server, host):
    """Python's own client with the authorities of `ca` talks to the server, by its host name."""
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(server.with_suffix(".crt"), server.with_suffix(".key"))
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = ssl.create_default_context(cafile=ca).wrap_bio(received, to_send, server_hostname=host)
    answering = Sealed(listening, server=True)
    for _ in range(4):
        try:
            asking.do_handshake()
        except ssl.SSLWantReadError:
            answering.receive(to_send.read())
            answering.established()
            received.write(answering.to_send())
        except ssl.SSLCertVerificationError:
            return False
        else:
            return True
    raise AssertionError("the handshake does not end")


def test_what_is_issued_is_trusted_by_its_hosts(place, appliance):
    issue(appliance, place, "n1", "--host", "10.0.0.1", "--host", "db1.example")

    assert trusts(place / "ca.crt", place / "n1", "db1.example")
    assert trusts(place / "ca.crt", place / "n1", "10.0.0.1")
    assert not trusts(place / "ca.crt", place / "n1", "db2.example")
    verified = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", place / "ca.crt", place / "n1.crt"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr


def test_keys_are_for_their_owner_only(place, appliance):
    issue(appliance, place)

    assert [mode(place / name) for name in ("ca.key", "n1.key")] == [0o600, 0o600]
    assert [mode(place / name) for name in ("ca.crt", "n1.crt")] == [0o644, 0o644]
    assert sorted(os.listdir(place)) == ["ca.crt", "ca.key", "n1.crt", "n1.key"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_root_writes_for_the_owner_of_the_directory(place, tmp_path, appliance):
    nobody = pwd.getpwnam("nobody")
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, nobody.pw_uid, nobody.pw_gid)

    issue(appliance, place, "n1", "--out", out)

    assert {(out / name).stat().st_uid for name in ("n1.crt", "n1.key")} == {nobody.pw_uid}
    assert not (place / "n1.crt").exists()


def test_without_a_host_it_is_the_members_name(place, appliance):
    issue(appliance, place, "db-1")

    assert shown(appliance, place / "db-1.crt")[0]["hosts"] == ["db-1"]


def test_show_says_whom_by_whom_and_how_long(place, appliance):
    issue(appliance, place, "n1", "--host", "db1", "--valid-for", "30d")
    (member,), (authority,) = shown(appliance, place / "n1.crt"), shown(appliance, place / "ca.crt")

    assert (member["member"], member["cluster"], member["hosts"]) == ("n1", "shop", ["db1"])
    assert member["issuer"] == authority["member"] == authority["issuer"]
    assert (member["authority"], authority["authority"]) == (False, True)
    assert member["valid_from"] < member["renew_at"] < member["expires_at"] < authority["expires_at"]
    assert member["state"] == "valid"
    assert len(member["fingerprint"]) == 64

    table = appliance("certs", "show", place / "n1.crt", place / "ca.crt").out.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "n1", authority["member"][:16]]


@pytest.mark.parametrize(("life", "lasts"), [("30min", timedelta(minutes=30)), ("2d", timedelta(days=2))])
def test_it_lives_as_long_as_asked(place, appliance, life, lasts):
    began = datetime.now(UTC)
    issue(appliance, place, "n1", "--valid-for", life)
    until = datetime.fromisoformat(shown(appliance, place / "n1.crt")[0]["expires_at"])

    assert timedelta(seconds=-1) <= until - began - lasts <= timedelta(seconds=30)


@pytest.mark.parametrize(("lived", "state"), [(0.1, "valid"), (0.7, "due"), (1.1, "expired")])
def test_show_says_what_is_due_and_what_expired(tmp_path, appliance, lived, state):
    made = Certificates(tmp_path / "aged", "shop")
    tls = made.aged_member("n1", lived)

    assert shown(appliance, tls.cert)[0]["state"] == state


def test_show_and_renew_find_the_files_of_the_node(place, appliance):
    issue(appliance, place, "n1", "--host", "db1", "--valid-for", "30d")
    config, key = node_file(place), (place / "n1.key").read_bytes()
    before = shown(appliance, "--config", config)

    ran = appliance("certs", "renew", "--config", config)

    after = shown(appliance, "--config", config)
    assert ran.code == 0, ran.err
    assert [each["file"] for each in after] == [str(place / "n1.crt"), str(place / "ca.crt")]
    assert after[0]["fingerprint"] != before[0]["fingerprint"]
    assert after[0]["hosts"] == ["db1"]
    assert after[1] == before[1]
    assert (place / "n1.key").read_bytes() == key
    assert trusts(place / "ca.crt", place / "n1", "db1")


def test_a_renewal_gives_back_what_had_expired(tmp_path, appliance):
    made = Certificates(tmp_path / "aged", "shop", with_key=True)
    made.aged_member("n1", 1.1)
    config = node_file(tmp_path / "aged")

    assert appliance("certs", "renew", "--config", config).code == 0
    assert shown(appliance, tmp_path / "aged" / "n1.crt")[0]["state"] == "valid"


def test_a_node_without_the_authoritys_key_cannot_renew(place, appliance):
    issue(appliance, place)
    before = (place / "n1.crt").read_bytes()

    ran = appliance("certs", "renew", "--config", node_file(place, ca_key=place / "elsewhere.key"))

    assert ran.code == 1
    assert f"the authority's key is not here, in {place / 'elsewhere.key'}: where it lies, `appliance certs" in ran.err
    assert (place / "n1.crt").read_bytes() == before


def test_a_node_without_tls_has_no_certificates(tmp_path, appliance):
    config = tmp_path / "node.yml"
    config.write_text('{name: n1, cluster: shop, members: {n1: "10.0.0.1:7400"}, state_dir: /var/lib/appliance}')

    ran = appliance("certs", "renew", "--config", config)

    assert (ran.code, "no tls in it" in ran.err) == (1, True)


def test_nothing_is_overwritten_unasked(place, appliance):
    issue(appliance, place)
    before = {file: (place / file).read_bytes() for file in os.listdir(place)}

    again = appliance("certs", "init", "--cluster", "shop", "--dir", place)
    twice = appliance("certs", "issue", "n1", "--dir", place)

    assert (again.code, twice.code) == (4, 4)
    assert "ca.crt is there already" in again.err
    assert "n1.crt" in twice.err
    assert {file: (place / file).read_bytes() for file in os.listdir(place)} == before
    issue(appliance, place, "n1", "--replace")
    assert (place / "n1.key").read_bytes() != before["n1.key"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("issue", "ca"), 4, "its files would be the authority's"),
        (("issue", "n 1"), 2, "MEMBER: 'n 1' is no node name"),
        (("issue", "n1", "--valid-for", "3 weeks"), 2, "--valid-for: '3 weeks' is no life"),
        (("issue", "n1", "--valid-for", "0d"), 2, "--valid-for: '0d' is no life"),
        (("issue", "n1", "--valid-for", "101y"), 2, "--valid-for: '101y' is no life"),
        (("issue", "n1", "--host", "a b"), 1, "'a b' is neither a DNS name nor an IP address"),
        (("rotate-ca", "finish"), 4, "no rotation is under way"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_no_file(place, appliance, words, code, said):
    ran = appliance("certs", *words, "--dir", place)

    assert ran.code == code
    assert said in ran.err
    assert sorted(os.listdir(place)) == ["ca.crt", "ca.key"]


def test_no_authority_is_said_with_the_file(tmp_path, appliance):
    ran = appliance("certs", "issue", "n1", "--dir", tmp_path)

    assert (ran.code, f"{tmp_path / 'ca.crt'}: no such file" in ran.err) == (1, True)


def test_an_authoritys_key_that_is_another_ones_is_said(place, tmp_path, appliance):
    other = tmp_path / "other"
    appliance("certs", "init", "--cluster", "shop", "--dir", other)
    (place / "ca.key").write_bytes((other / "ca.key").read_bytes())

    ran = appliance("certs", "issue", "n1", "--dir", place)

    assert ran.code == 1
    assert "belongs to none of the trusted authorities" in ran.err


def test_a_rotation_trusts_both_until_it_is_finished(place, appliance):
    issue(appliance, place, "n1")
    issue(appliance, place, "n2")
    old_ca = place.parent / "old.crt"
    old_ca.write_bytes((place / "ca.crt").read_bytes())

    assert appliance("certs", "rotate-ca", "begin", "--dir", place).code == 0
    issue(appliance, place, "n1", "--replace")
    new, old = shown(appliance, place / "ca.crt")
    assert [shown(appliance, place / f"{name}.crt")[0]["issuer"] for name in ("n1", "n2")] == [
        new["member"],
        old["member"],
    ]
    assert all(trusts(place / "ca.crt", place / name, name) for name in ("n1", "n2"))
    assert not trusts(old_ca, place / "n1", "n1")

    early = appliance("certs", "rotate-ca", "finish", "--unasked", "--dir", place)
    assert (early.code, "n2.crt not yet of the new authority" in early.err) == (4, True)
    assert appliance("certs", "rotate-ca", "begin", "--dir", place).code == 4

    assert appliance("certs", "renew", "--config", node_file(place, "n2")).code == 0
    assert appliance("certs", "rotate-ca", "finish", "--unasked", "--dir", place).code == 0
    assert [each["member"] for each in shown(appliance, place / "ca.crt")] == [new["member"]]
    assert all(trusts(place / "ca.crt", place / name, name) for name in ("n1", "n2"))


@pytest.fixture
def rotating(place, appliance):
    """The directory of a rotation that has begun, with the names of the new authority and the old one."""
    (old,) = shown(appliance, place / "ca.crt")
    assert appliance("certs", "rotate-ca", "begin", "--dir", place).code == 0
    new, _ = shown(appliance, place / "ca.crt")
    return place, new["member"], old["member"]


def tell(node, heard, **changes):
    """What the members say of their certificates, by name; None: without TLS."""
    reports = {
        name: ReportSeen(replace(seen.report, certificate=heard[name]), changes.get(name, seen.age_s))
        for name, seen in node.value.reports.items()
        if name in heard
    }
    node.value = replace(node.value, reports=reports, report=reports["pg1"].report)


def test_a_rotation_ends_when_every_member_can_do_without_the_old_authority(rotating, appliance, node, url):
    place, new, old = rotating
    tell(node, dict.fromkeys(("pg1", "pg2", "pg3"), CertificateSeen("", issuer=new, trusts=(new, old))))

    finished = appliance("certs", "rotate-ca", "finish", "--dir", place, "--api", url)

    assert (finished.code, finished.err) == (0, "")
    assert [each["member"] for each in shown(appliance, place / "ca.crt")] == [new]


@pytest.mark.parametrize(
    ("of_pg3", "age_s", "said"),
    [
        (lambda new, old: CertificateSeen("", issuer=old, trusts=(new, old)), 0.3, "pg3: its certificate is of {old}"),
        (
            lambda new, old: CertificateSeen("", issuer=new, trusts=(old,)),
            0.3,
            "pg3: its ca.crt does not hold the new authority, but {old}",
        ),
        (lambda new, old: CertificateSeen("", trusts=(new,)), 0.3, "pg3: its certificate is of nobody"),
        (lambda new, old: CertificateSeen("", issuer=new, trusts=(new, old)), 60, "pg3: its last report is 60 s old"),
        (lambda new, old: None, 0.3, "pg3: its node runs without TLS"),
    ],
)
def test_a_member_that_needs_the_old_authority_keeps_it(rotating, appliance, node, url, of_pg3, age_s, said):
    place, new, old = rotating
    ready = CertificateSeen("", issuer=new, trusts=(new, old))
    tell(node, {"pg1": ready, "pg2": ready, "pg3": of_pg3(new, old)}, pg3=age_s)
    finish = ("certs", "rotate-ca", "finish", "--dir", place, "--api", url)

    refused = appliance(*finish)

    assert (refused.code, "1 of 3 members would be shut out" in refused.err) == (4, True)
    assert said.format(old=old) in refused.err
    assert "pg2" not in refused.err
    assert len(shown(appliance, place / "ca.crt")) == 2
    assert appliance(*finish, "--leave-out", "pg9").code == 2
    assert appliance(*finish, "--leave-out", "pg3").code == 0


def test_who_has_not_been_heard_of_keeps_the_old_authority_too(rotating, appliance, node, url):
    place, new, _ = rotating
    tell(node, dict.fromkeys(("pg1", "pg2"), CertificateSeen("", issuer=new, trusts=(new,))))
    joining = {**VOTERS, "pg4": ReplicaSeen("joining", "10.0.0.4:7400")}
    node.value = replace(node.value, raft=replace(node.value.raft, members=joining))

    refused = appliance("certs", "rotate-ca", "finish", "--dir", place, "--api", url)

    assert (refused.code, "2 of 4 members" in refused.err) == (4, True)
    assert all(f"{name}: it has not reported what it has" in refused.err for name in ("pg3", "pg4"))


def test_a_rotation_does_not_end_unseen(rotating, appliance, node, url):
    place, new, _ = rotating
    finish = ("certs", "rotate-ca", "finish", "--dir", place)
    ready = CertificateSeen("", issuer=new, trusts=(new,))

    nowhere = appliance(*finish, "--api", "http://127.0.0.1:1")
    assert (nowhere.code, "the cluster cannot be asked" in nowhere.err) == (3, True)
    tell(node, dict.fromkeys(("pg1", "pg2", "pg3"), ready))
    node.value = replace(node.value, seen=replace(node.value.seen, contact_s=60.0), last_renewal_s=60.0)
    stale = appliance(*finish, "--api", url)
    assert (stale.code, "no contact with a quorum" in stale.err) == (3, True)
    node.value = replace(node.value, cluster="other")
    other = appliance(*finish, "--api", url)
    assert (other.code, "belongs to 'other'" in other.err) == (4, True)

    assert len(shown(appliance, place / "ca.crt")) == 2
    assert appliance(*finish, "--unasked").code == 0


def test_a_certificate_in_the_directory_of_who_is_left_out_does_not_count(place, appliance):
    issue(appliance, place, "n1")
    assert appliance("certs", "rotate-ca", "begin", "--dir", place).code == 0
    finish = ("certs", "rotate-ca", "finish", "--unasked", "--dir", place)

    assert appliance(*finish).code == 4
    assert appliance(*finish, "--leave-out", "n1").code == 0


def test_a_rotation_needs_no_key_of_the_old_authority(place, appliance):
    (place / "ca.key").unlink()

    assert appliance("certs", "rotate-ca", "begin", "--dir", place).code == 0
    issue(appliance, place, "n1")
    assert trusts(place / "ca.crt", place / "n1", "n1")


def test_what_is_no_certificate_is_said_with_its_file(tmp_path, appliance):
    Path(tmp_path / "x.crt").write_text("nothing")

    ran = appliance("certs", "show", tmp_path / "x.crt")

    assert ran.code == 1
    assert f"{tmp_path / 'x.crt'}: no certificate in PEM" in ran.err


@pytest.fixture
def own_user(monkeypatch):
    """Nodes of this test run as whoever runs the test, whom its directories belong to."""
    monkeypatch.setattr(privileges, "run_user", lambda: pwd.getpwuid(os.geteuid()))


def test_a_nodes_check_looks_at_its_certificate(place, appliance, own_user):
    issue(appliance, place, "n1", "--host", "10.0.0.1")
    issue(appliance, place, "n2")
    fine = appliance("node", "--check", "--config", node_file(place))
    assert (fine.code, fine.out.endswith("3 members: fine\n")) == (0, True), fine.err
    assert "tls" not in fine.err

    nowhere = appliance("node", "--check", "--config", node_file(place, "n2"))
    assert nowhere.code == 0
    assert (
        "n2.crt names n2, not 10.0.0.2, where standbys reach PostgreSQL; issue it with --host 10.0.0.2" in nowhere.err
    )

    swapped = appliance("node", "--check", "--config", node_file(place, cert=place / "n2.crt", key=place / "n2.key"))
    assert swapped.code == 2
    assert "tls: the certificate in" in swapped.err
    assert "is for 'n2' of cluster 'shop', this is 'n1' of 'shop'" in swapped.err

    missing = appliance("node", "--check", "--config", node_file(place, key=place / "n9.key"))
    assert missing.code == 2
    assert f"tls: cannot read {place / 'n9.key'}" in missing.err


def test_a_nodes_check_tells_of_a_certificate_that_nobody_would_accept(place, appliance, own_user, tmp_path):
    appliance("certs", "init", "--cluster", "shop", "--dir", tmp_path / "other")
    issue(appliance, tmp_path / "other", "n1", "--host", "10.0.0.1")
    foreign = {"cert": tmp_path / "other" / "n1.crt", "key": tmp_path / "other" / "n1.key"}

    checked = appliance("node", "--check", "--config", node_file(place, **foreign))

    assert checked.code == 0
    assert f"{foreign['cert']} is of no use with the authorities in {place / 'ca.crt'}" in checked.err


def test_a_nodes_check_refuses_a_key_that_postgresql_would_refuse(place, appliance, own_user):
    issue(appliance, place, "n1", "--host", "10.0.0.1")
    (place / "n1.key").chmod(0o644)
    config = node_file(place)

    refused = appliance("node", "--check", "--config", config)
    assert (refused.code, "has mode 0644, which PostgreSQL refuses; make it 0600" in refused.err) == (2, True)

    config.write_text(config.read_text() + "role: witness\n")
    assert appliance("node", "--check", "--config", config).code == 0


def test_who_may_read_a_file_goes_by_its_owner_its_mode_and_the_way_there(place):
    key, nobody = place / "ca.key", pwd.getpwnam("nobody")

    assert readable(key, pwd.getpwuid(os.geteuid()))
    assert not readable(key, nobody)
    assert not readable(place / "ca.crt", nobody), "it may be read, and the directory not be entered"
    assert readable(Path("/etc/passwd"), nobody)
    assert readable(place / "missing", nobody)


def test_a_nodes_check_names_keys_that_everybody_can_read(place, appliance, own_user):
    issue(appliance, place, "n1", "--host", "10.0.0.1")
    file = node_file(place)
    file.write_text(file.read_text() + "role: witness\n")  # PostgreSQL would refuse its own
    assert "every user" not in appliance("node", "--check", "--config", file).err
    for name in ("n1.key", "ca.key"):
        (place / name).chmod(0o644)
        found = appliance("node", "--check", "--config", file)
        assert found.code == 0
        assert f"{place / name} has mode 0644, so every user of this host can read it; make it 0600" in found.err
        (place / name).chmod(0o600)

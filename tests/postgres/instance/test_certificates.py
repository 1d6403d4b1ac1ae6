"""With a certificate members speak to each other encrypted and verified, and a new one needs no restart."""

import signal
import socket
import ssl
from dataclasses import replace
from types import SimpleNamespace

import psycopg
import pytest

from appliance.cluster.config import Policy
from appliance.cluster.state import ClusterState, Member, NodeRole
from appliance.ha.seen import Notes
from appliance.node.config import NodeConfig
from appliance.node.guard_client import GuardStatus, Postmaster
from appliance.node.local import LocalPostgres
from appliance.node.observe import Observer, Signalled
from appliance.postgres.certificate import Certificate
from appliance.postgres.credentials import REPLICATION_ROLE, REWIND_ROLE
from tests.harness.certificates import Certificates

STATE = ClusterState()


@pytest.fixture
def authority(root):
    return Certificates(root / "tls")


@pytest.fixture
def secured(member, template, authority):
    """Makes members that have a certificate; the first is a running primary."""

    def make(name, like=None):
        tls = authority.member(name)
        return member(name, like=like, certificate=Certificate.found(tls.ca, tls.cert, tls.key))

    primary = make("pg1", like=template)
    primary.start()
    make.primary = primary
    return make


@pytest.fixture
def pair(secured):
    primary, standby = secured.primary, secured("pg2")
    seen = standby.clone(primary)
    assert seen.ok, seen
    standby.follow(primary)
    standby.start(standby=True)
    standby.until(lambda seen: seen.streaming)
    return primary, standby


def encrypted(primary):
    """Of each standby that streams."""
    return primary.sql("SELECT application_name, ssl FROM pg_stat_replication JOIN pg_stat_ssl USING (pid)")


def test_members_clone_stream_and_rewind_encrypted_and_verified(pair):
    primary, standby = pair
    assert encrypted(primary) == [["pg2", "t"]]
    verified = "verify-full" if standby.binaries.major >= 15 else "verify-ca"
    assert f"sslmode={verified} sslrootcert={standby.certificate.ca}" in standby.seen().primary_conninfo
    assert primary.sql("SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL") == []

    standby.caught_up(primary)
    standby.follow(None)
    standby.reload()
    standby.until(lambda seen: seen.receiver is None)
    primary.sql("CREATE TABLE public.lost AS SELECT 1 AS id")
    standby.promote(2)
    standby.sql("CREATE TABLE public.kept AS SELECT 1 AS id")
    standby.monitor.checkpoint(limit_s=20)
    standby.until(lambda seen: seen.checkpoint_timeline == 2)
    primary.crash()
    seen = primary.rewind(standby, 2)
    assert seen.ok, seen
    primary.follow(standby)
    primary.start(standby=True)
    primary.until(lambda seen: seen.streaming)
    primary.caught_up(standby)
    assert encrypted(standby) == [["pg1", "t"]]
    assert primary.value("SELECT to_regclass('public.lost')") is None


@pytest.mark.parametrize("role", [REPLICATION_ROLE, REWIND_ROLE, "app"])
def test_who_comes_in_the_clear_is_turned_away(secured, role):
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba.conf .* no encryption"):
        connect(secured.primary, role, sslmode="disable")
    if role == "app":
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(secured.primary, role, sslmode="require")
    else:
        connect(secured.primary, role, sslmode="require").close()


def test_for_applications_the_configuration_may_say_otherwise(secured):
    primary = secured.primary
    primary.stop()
    primary.settings = replace(primary.settings, hba=("host all all all scram-sha-256",))
    primary.start()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        connect(primary, "app", sslmode="disable")
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba.conf rejects .* no encryption"):
        connect(primary, REWIND_ROLE, sslmode="disable")


def test_a_client_needs_no_certificate_but_one_that_it_shows_must_be_trusted(secured, authority, root):
    primary, mine = secured.primary, authority.member("client")
    strange = Certificates(root / "strange").member("client")
    connect(primary, REWIND_ROLE, sslmode="require", sslcert=mine.cert, sslkey=mine.key).close()
    with pytest.raises(psycopg.OperationalError, match="unknown ca"):
        connect(primary, REWIND_ROLE, sslmode="require", sslcert=strange.cert, sslkey=strange.key)


def connect(member, role, **more):
    secrets = member.credentials
    passwords = {REPLICATION_ROLE: secrets.replication, REWIND_ROLE: secrets.rewind, "app": "unknown"}
    replication = {"replication": "true"} if role == REPLICATION_ROLE else {}
    return psycopg.connect(
        host="127.0.0.1",
        port=member.port,
        dbname="postgres",
        user=role,
        password=passwords[role],
        **replication,
        **more,
    )


def test_a_source_with_another_authority_is_refused_in_words(pair, root):
    primary, standby = pair
    strange = Certificates(root / "strange")
    strange.trust(strange.authority)
    standby.certificate = replace(standby.certificate, ca=strange.directory / "ca.crt")
    standby.follow(primary)
    standby.reload()
    standby.until(lambda seen: seen.receiver is None and "certificate verify failed" in standby.log())
    standby.stop()
    seen = standby.clone(primary)
    assert not seen.ok
    assert "certificate verify failed" in seen.error
    primary.stop()
    primary.settings = replace(primary.settings, certificate=None)
    primary.start()
    seen = standby.clone(primary)
    assert "server does not support SSL, but SSL was required" in seen.error


def test_a_server_with_the_certificate_of_another_host_is_refused(secured, authority, binaries):
    primary, standby = secured.primary, secured("pg2")
    authority.member("pg1", hosts=["other.example"])
    primary.reload()
    primary.until(lambda seen: names_shown_by(primary) == ["other.example"])
    seen = standby.clone(primary)
    if binaries.major >= 15:
        assert 'does not match host name "127.0.0.1"' in seen.error
    else:
        assert seen.ok, "its libpq finds no address in any certificate"


def test_a_new_certificate_is_loaded_by_a_reload_and_who_is_connected_stays(secured, authority):
    primary = secured.primary
    node = observed(primary)
    assert node.look().settings_changed, "what PostgreSQL has loaded is not known at first"
    node.local.apply_settings(STATE, Policy(), "")
    assert not node.look().settings_changed
    verified = "verify-full" if psycopg.pq.version() >= 150000 else "verify-ca"
    connection = connect(primary, REWIND_ROLE, sslmode=verified, sslrootcert=primary.certificate.ca)
    began, pid = primary.value("SELECT pg_postmaster_start_time()"), connection.info.backend_pid

    successor = authority.new_authority()
    authority.trust(authority.authority, successor)
    authority.member("pg1", authority=successor, hosts=["renewed.example"])
    assert node.look().settings_changed
    node.local.apply_settings(STATE, Policy(), "")
    primary.until(lambda seen: names_shown_by(primary) == ["renewed.example"])
    assert not node.look().settings_changed
    assert connection.execute("SELECT pg_backend_pid()").fetchone() == (pid,)
    assert primary.value("SELECT pg_postmaster_start_time()") == began
    connection.close()


def test_files_that_do_not_fit_leave_the_last_certificate_in_use(secured, authority):
    primary = secured.primary
    node = observed(primary)
    node.local.apply_settings(STATE, Policy(), "")
    authority.member("pg2", hosts=["renewed.example"])
    authority.tls("pg2").cert.rename(primary.certificate.cert)
    assert node.look().settings_changed
    node.local.apply_settings(STATE, Policy(), "")
    primary.until(lambda seen: "SSL configuration was not reloaded" in primary.log())
    assert "localhost" in names_shown_by(primary)
    authority.tls("pg2").key.rename(primary.certificate.key)
    assert node.look().settings_changed
    node.local.apply_settings(STATE, Policy(), "")
    primary.until(lambda seen: names_shown_by(primary) == ["renewed.example"])


def test_a_key_that_others_may_read_is_said_once_and_loaded_when_its_mode_is_mended(secured, authority):
    primary = secured.primary
    node = observed(primary)
    node.local.apply_settings(STATE, Policy(), "")
    authority.member("pg1", hosts=["renewed.example"])
    primary.certificate.key.chmod(0o640)
    with pytest.raises(ValueError, match="has mode 0640, which PostgreSQL refuses; make it 0600"):
        node.local.apply_settings(STATE, Policy(), "")
    assert not node.look().settings_changed, "other settings must not wait for it"
    assert "localhost" in names_shown_by(primary)
    primary.certificate.key.chmod(0o600)
    assert node.look().settings_changed
    node.local.apply_settings(STATE, Policy(), "")
    primary.until(lambda seen: names_shown_by(primary) == ["renewed.example"])


def test_a_new_cluster_is_tried_with_its_certificate(member, authority):
    tls = authority.member("pg1")
    one = member("pg1", certificate=Certificate.found(tls.ca, tls.cert, tls.key))
    tls.key.chmod(0o644)
    seen = one.initialise(settings=one.settings)
    assert not seen.ok
    assert f'private key file "{tls.key}" has group or world access' in seen.error
    tls.key.chmod(0o600)
    seen = one.initialise(settings=one.settings)
    assert seen.ok, seen


def observed(primary):
    """Its node's observer and files, beside a guard that does what a guard would do."""
    certificate = primary.certificate
    config = NodeConfig.read(
        {
            "name": primary.name,
            "cluster": "c",
            "members": {primary.name: "127.0.0.1:7400"},
            "state_dir": str(primary.root),
            "postgresql": {
                "listen": f"127.0.0.1:{primary.port}",
                "data_dir": str(primary.data_dir),
                "socket_dir": str(primary.root),
                "parameters": {"shared_buffers": "16MB"},
            },
            "tls": {"ca": str(certificate.ca), "cert": str(certificate.cert), "key": str(certificate.key)},
        }
    )
    guard = SimpleNamespace(reload=lambda: primary.process.send_signal(signal.SIGHUP))
    local = LocalPostgres(config, primary.binaries, guard, primary.monitor)
    me = Member(primary.name, NodeRole.DATA, "127.0.0.1:7400", "http://127.0.0.1:8008", f"127.0.0.1:{primary.port}")
    observer = Observer(me, local, Signalled())
    status = GuardStatus(
        1, 1, True, Postmaster(primary.process.pid, 0.0, primary.data_dir), False, None, None, None, None
    )
    return SimpleNamespace(local=local, look=lambda: observer.look(STATE, Policy(), status, Notes(), None, None, {}))


def names_shown_by(member):
    """Whom the certificate is for that a new client gets to see."""
    context = ssl.create_default_context(cafile=member.certificate.ca)
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", member.port), 5) as plain:
        plain.sendall(bytes([0, 0, 0, 8, 4, 210, 22, 47]))  # SSLRequest
        assert plain.recv(1) == b"S"
        with context.wrap_socket(plain) as connection:
            return [name for _, name in connection.getpeercert()["subjectAltName"]]

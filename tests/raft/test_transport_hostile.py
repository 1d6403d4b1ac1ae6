"""Who reaches the port and is no member: closed, counted, told once, and nobody else notices."""

import contextlib
import os
import socket
import ssl
import time

import pytest

from raft.codec import HELLO_LIMIT_BYTES, encode, encode_log
from raft.connection import HANDSHAKE_LIMIT_S
from raft.port import CONNECTION_LIMIT, UNKNOWN_LIMIT
from tests.harness.certificates import Certificates
from tests.harness.places import free_ports
from tests.harness.raft_messages import append
from tests.harness.transports import Party, Recorder, Stranger, hello

only_tls = pytest.mark.parametrize("certificates", ["tls"], indirect=True)
only_clear = pytest.mark.parametrize("certificates", ["clear"], indirect=True)


@pytest.fixture
def members():
    return {name: f"127.0.0.1:{port}" for name, port in zip(("n1", "n2", "n3"), free_ports(3), strict=True)}


@pytest.fixture
def n1(members, certificates):
    """It has peers, which do not run unless a test starts them."""
    party = Party("n1", members, certificates).start()
    yield party
    party.close()


@pytest.fixture
def n2(members, certificates, n1, wait):
    """A peer that must not notice anything."""
    party = Party("n2", members, certificates).start()
    wait(lambda: party.connected("n1") and n1.connected("n2"))
    yield party
    assert party.connected("n1")
    assert n1.connected("n2")
    assert not {("disconnected", "n1"), ("disconnected", "n2")} & {event[:2] for event in n1.told + party.told}
    before = len(n1.terms("n2"))
    assert party.send("n1", 1)
    wait(lambda: len(n1.terms("n2")) == before + 1)
    party.close()


@pytest.fixture
def stranger(members, certificates):
    """Opens connections to n1, as n3 unless told otherwise."""
    with contextlib.ExitStack() as open_ones:

        def stranger(tls="n3", **options):
            certificate = certificates and tls and certificates.member(tls)
            return open_ones.enter_context(Stranger(members["n1"], certificate, **options))

        yield stranger


def plain(members, source="127.0.0.1"):
    return Stranger(members["n1"], source=source)


# -- bytes that are no message -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\0\0\4junk",
        b"\0\1\0\1" + b"x" * 70_000,
        b"\x80\x04\x95" + os.urandom(200),
        os.urandom(3000),
        encode({"type": "ping"}),
        encode_log(append(term=9)),
        encode(hello("n3", "n1", cluster="x" * 1024, replica_id=7)),
        encode(hello("n3", "n1"))[:-1] + b"\xc1",
    ],
)
def test_junk_is_closed_counted_and_told_once(n1, n2, members, stranger, junk, wait, certificates):
    for _ in range(3):
        with plain(members) as visitor:
            visitor.say(junk)
            assert visitor.is_shut_within(HANDSHAKE_LIMIT_S + 2)
    said_in_tls = 0
    if certificates is not None:
        visitor = stranger()
        with contextlib.suppress(OSError):  # it may be closed before all of it was said
            visitor.say(junk)
        assert visitor.is_shut_within(HANDSHAKE_LIMIT_S + 2)
        said_in_tls = 1
    wait(lambda: n1.count("junk") + n1.count("tls") + n1.count("silent") == 3 + said_in_tls)
    assert len(n1.refusals) <= 1 + said_in_tls
    assert {who for who, _ in n1.refusals} == {"127.0.0.1"}
    assert not n1.messages["n3"]


def test_a_message_that_is_cut_off_is_counted(n1, n2, stranger, wait):
    visitor = stranger()
    visitor.say(encode(hello("n3", "n1"))[:-3])
    visitor.close()
    wait(lambda: n1.count("junk") == 1)
    assert n1.refusals == [("127.0.0.1", "somebody at 127.0.0.1 closed the connection within a message")]


def test_who_only_knocks_is_nobodys_business(n1, n2, members, wait):
    for _ in range(20):
        plain(members).close()
    time.sleep(0.3)
    assert not any(n1.transport.refusals().values())
    assert n1.refusals == []


def test_silence_and_trickles_end_in_time(n1, n2, members, stranger, wait):
    with plain(members) as silent, stranger() as slow:
        began_s = time.monotonic()
        said = encode(hello("n3", "n1"))
        with contextlib.suppress(OSError):
            for at in range(len(said)):
                slow.say(said[at : at + 1])
                time.sleep(0.1)
                if time.monotonic() - began_s > HANDSHAKE_LIMIT_S + 2:
                    break
        assert slow.is_shut_within(0.5)
        assert silent.is_shut_within(0.5)
        assert time.monotonic() - began_s < HANDSHAKE_LIMIT_S + 3
    wait(lambda: n1.count("silent") == 2)
    assert len(n1.refusals) == 1


def test_a_hello_that_announces_more_than_its_limit_is_not_waited_for(n1, n2, stranger, wait):
    visitor = stranger()
    began_s = time.monotonic()
    visitor.say((HELLO_LIMIT_BYTES + 1).to_bytes(4, "big"))
    wait(lambda: n1.count("junk") == 1)
    assert time.monotonic() - began_s < HANDSHAKE_LIMIT_S - 0.5


def test_what_is_said_together_with_the_hello_is_heard(n1, stranger, wait):
    stranger().say(encode(hello("n3", "n1")) + encode_log(append(term=9)))
    wait(lambda: n1.terms("n3") == [9])


def test_a_refusal_arrives_even_if_more_was_said_than_is_read(n1, n2, stranger):
    visitor = stranger()
    visitor.say(encode(hello("n3", "n1", to="n2")))
    with contextlib.suppress(OSError):
        for _ in range(10):
            time.sleep(0.02)
            visitor.say(b"x" * 4000)
    assert "looks for 'n2'" in visitor.hear()["reason"]


@only_tls
def test_a_client_hello_without_end_is_cut_off(n1, n2, members, wait):
    """It claims to be as long as OpenSSL permits, which is longer than we do."""
    with plain(members) as visitor, contextlib.suppress(OSError):
        visitor.say(b"\x16\x03\x01\x40\0\x01\x01\xff\x00\x03\x03" + b"x" * 16_378)
        for _ in range(6):
            visitor.say(b"\x16\x03\x01\x40\0" + b"x" * 16_384)
        assert visitor.is_shut_within(1)
    wait(lambda: n1.refusals == [("127.0.0.1", "somebody at 127.0.0.1 sent more than 65536 bytes of TLS handshake")])


@only_tls
def test_a_handshake_has_a_limit_in_bytes_and_time(n1, n2, members, wait, certificates):
    """A real ClientHello, and then handshake records or notes without end."""
    bio_in, bio_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    client = context.wrap_bio(bio_in, bio_out)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    client_hello = bio_out.read()
    huge = b"\x01\xff\xff\xff"  # a handshake message that claims sixteen megabytes
    for more in (
        [b"\x14\x03\x03\0\1\1"] * 100_000,
        [b"\x16\x03\x03\x40\0" + huge + b"x" * 16_380] * 2000,
        [b"\x17\x03\x03\x40\0" + os.urandom(16384)] * 2000,
    ):
        for first in (client_hello, b""):
            with plain(members) as visitor, contextlib.suppress(OSError):
                began_s = time.monotonic()
                visitor.say(first)
                for record in more:
                    visitor.say(record)
            assert time.monotonic() - began_s < HANDSHAKE_LIMIT_S + 2
    wait(lambda: n1.count("tls") == 6)
    assert len(n1.refusals) == 1


# -- names and certificates -------------------------------------------------------------------------------


@only_tls
def test_without_a_certificate_nobody_is_heard(n1, n2, members, certificates, wait):
    with Stranger(members["n1"], trusts=certificates.tls("n1")) as visitor:
        answer = visitor.hello("n3", "n1")
        assert answer["type"] == "refuse"
        assert answer["reason"] == "'n3' shows no certificate: one of cluster 'c' is needed"
        assert visitor.is_shut_within(2)
    wait(lambda: n1.count("certificate") == 1)
    assert n1.refusals[0][0] == "127.0.0.1"
    assert n1.refusals[0][1].startswith("a node that calls itself 'n3' at 127.0.0.1 shows no certificate")


@only_tls
def test_the_name_in_the_certificate_counts_and_not_the_one_that_is_said(n1, n2, stranger, wait):
    answer = stranger("n2").hello("n3", "n1")
    assert answer["reason"] == "'n3' of cluster 'c' has the certificate of 'n2' of 'c'"
    wait(lambda: n1.count("identity") == 1)
    assert [who for who, _ in n1.refusals] == ["127.0.0.1"]
    assert ("introduced", "n3") not in [event[:2] for event in n1.told]


@only_tls
def test_a_certificate_of_another_cluster_opens_nothing_even_if_we_trust_who_signed_it(
    n1, n2, members, tmp_path, certificates, wait
):
    theirs = Certificates(tmp_path / "theirs", "x")
    certificates.trust(certificates.authority, theirs.authority)
    tls = theirs.member("n3")
    theirs.trust(certificates.authority)
    with Stranger(members["n1"], tls) as visitor:
        assert visitor.hello("n3", "n1")["reason"] == "'n3' shows a certificate of cluster 'x', ours is 'c'"
    wait(lambda: n1.count("certificate") == 1)


@only_tls
def test_a_certificate_of_a_foreign_authority_is_refused_whatever_it_says(
    n1, n2, members, certificates, tmp_path, wait
):
    """Also one that calls itself as ours does."""
    foreign = Certificates(tmp_path / "foreign").member("n3")
    foreign.ca.write_bytes(certificates.tls("n1").ca.read_bytes())
    with Stranger(members["n1"], foreign) as visitor:
        assert visitor.hello("n3", "n1") is None
    wait(lambda: n1.count("certificate") == 1)
    ((who, words),) = n1.refusals
    assert who == "127.0.0.1"
    assert words.endswith("shows a certificate that is not accepted: none of the trusted authorities has signed it")


@only_tls
def test_a_certificate_of_a_member_that_is_none_any_more_opens_nothing(n1, n2, stranger, wait):
    answer = stranger("n9").hello("n9", "n1")
    assert answer["reason"] == "'n9' is no other member of cluster 'c': removed, or not added yet"
    wait(lambda: n1.count("stranger") == 1)


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        ({"cluster": "x"}, "cluster", "belongs to cluster 'x', ours is 'c'"),
        ({"to": "n2"}, "identity", "looks for 'n2', this is 'n1': check the addresses of the members"),
        ({"from": "n9"}, "stranger", "is no other member of cluster 'c'"),
        ({"from": "n1"}, "stranger", "is no other member of cluster 'c'"),
        ({"kind": "watch"}, "protocol", "asks for an unknown kind of connection, 'watch'"),
        ({"proto": 1}, "protocol", "speaks protocol 1, we speak 2: run the same version everywhere"),
        ({"proto": 3, "new": True}, "protocol", "speaks protocol 3, we speak 2: run the same version everywhere"),
    ],
)
@only_clear
def test_who_has_no_business_here_is_told_why(n1, n2, stranger, said, reason, words, wait):
    for _ in range(3):
        visitor = stranger()
        answer = visitor.hello("n3", "n1", **said)
        assert answer["type"] == "refuse"
        assert words in answer["reason"]
        assert visitor.is_shut_within(2)
    wait(lambda: n1.count(reason) == 3)
    assert len(n1.refusals) == 1
    assert words in n1.refusals[0][1]


def test_a_name_with_control_characters_steers_no_terminal(n1, n2, stranger, wait):
    stranger().hello("\x1b[2Jn3\n" + "x" * 900, "n1", replica_id="\0" * 1000)
    wait(lambda: len(n1.refusals) == 1)
    assert n1.refusals[0][1].isprintable()
    assert len(n1.refusals[0][1]) < 500


@only_tls
def test_what_was_recorded_cannot_be_said_again(n1, n2, members, certificates, wait):
    """n3 speaks through a proxy that keeps all of it; later the same bytes are sent once more."""
    recorder = Recorder(members["n1"])
    n3 = Party("n3", {**members, "n1": recorder.place}, certificates).start()
    try:
        wait(lambda: n3.connected("n1"))
        assert n3.send("n1", 4711)
        wait(lambda: n1.terms("n3") == [4711])
    finally:
        n3.close()
        recorder.close()
    time.sleep(0.5)
    told = len(n1.told)
    refused = n1.count("tls")
    assert len(recorder.said) >= 2
    for said in recorder.said:
        with plain(members) as visitor, contextlib.suppress(OSError):
            visitor.say(bytes(said))
            assert visitor.is_shut_within(HANDSHAKE_LIMIT_S + 1)
    wait(lambda: n1.count("tls") + n1.count("silent") == refused + len(recorder.said))
    assert n1.terms("n3") == [4711]
    assert [event for event in n1.told[told:] if event[0] in ("introduced", "connected")] == []


# -- crowds -----------------------------------------------------------------------------------------------


def test_one_address_cannot_hold_more_than_its_share_and_members_still_come_in(
    n1, members, certificates, stranger, wait
):
    crowd = [plain(members) for _ in range(3 * UNKNOWN_LIMIT)]
    try:
        assert len(n1.transport._port._visitors.unknown) <= UNKNOWN_LIMIT
        n2 = Party("n2", members, certificates).start()
        try:
            wait(lambda: n2.connected("n1"), limit_s=2)
        finally:
            n2.close()
        assert n1.count("crowded") >= UNKNOWN_LIMIT
        assert len(n1.refusals) <= 2  # crowded, and silent
    finally:
        for each in crowd:
            each.close()


def test_a_crowd_from_everywhere_does_not_keep_members_out(n1, members, certificates, wait):
    crowd = []
    try:
        crowd.extend(plain(members, source=f"127.0.1.{1 + number % 250}") for number in range(2 * CONNECTION_LIMIT))
        assert len(n1.transport._port._visitors.all) <= CONNECTION_LIMIT
        n2 = Party("n2", members, certificates).start()
        try:
            wait(lambda: n2.connected("n1"), limit_s=3)
            assert n2.send("n1", 3)
            wait(lambda: n1.terms("n2") == [3])
        finally:
            n2.close()
        wait(lambda: not n1.transport._port._visitors.all, limit_s=HANDSHAKE_LIMIT_S + 3)
    finally:
        for each in crowd:
            each.close()


def test_an_endless_stream_of_strangers_disturbs_no_member_and_leaves_nothing(n1, n2, members, stranger, wait):
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    def only_members():
        return all(len(party.transport._port._visitors.all) == 2 for party in (n1, n2))

    wait(only_members)
    before = open_files()
    for number in range(300):
        with contextlib.suppress(OSError), plain(members) as visitor:
            visitor.say(os.urandom(1 + number))
    wait(only_members)
    assert open_files() <= before + 2  # links to n3, which does not run, come and go
    assert len(n1.refusals) <= 3


@pytest.mark.parametrize("kind", ["raft", "request"])
def test_a_member_holds_one_connection_of_each_kind(n1, members, stranger, kind, wait):
    first, second = stranger(), stranger()
    assert first.hello("n3", "n1", kind=kind)["type"] == "welcome"
    assert second.hello("n3", "n1", kind=kind)["type"] == "welcome"
    assert first.is_shut_within(2)
    second.say({"type": "ping"})
    wait(lambda: len(n1.transport._port._visitors.all) == 1)


def test_a_second_process_under_a_name_is_refused_while_the_first_is_there(n1, stranger, wait):
    first = stranger()
    assert first.hello("n3", "n1", session="one")["type"] == "welcome"
    answer = stranger().hello("n3", "n1", session="two", replica_id="other")
    assert "another process already speaks as 'n3'" in answer["reason"]
    wait(lambda: n1.count("double") == 1)
    first.close()
    wait(lambda: not n1.transport._port._visitors.all)
    assert stranger().hello("n3", "n1", session="two", replica_id="other")["type"] == "welcome"


def test_a_member_that_falls_silent_is_given_up(n1, stranger):
    visitor = stranger()
    assert visitor.hello("n3", "n1")["type"] == "welcome"
    began_s = time.monotonic()
    assert visitor.is_shut_within(6)
    assert 2 < time.monotonic() - began_s < 5


def test_a_port_that_is_taken_is_an_error(members, n1, certificates):
    with pytest.raises(Exception, match="cannot listen on"):
        Party("n1", members, certificates).start()
    assert socket.create_connection(("127.0.0.1", int(members["n1"].rpartition(":")[2]))).close() is None

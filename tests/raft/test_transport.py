"""Transports among themselves: what arrives, who is introduced to whom, and members that change."""

import contextlib
import socket
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest

from raft.codec import encode
from raft.connection import BACKLOG_LIMIT_BYTES, EXPIRY_GRACE_S
from raft.members import Introduction
from raft.port import GUEST_LIMIT, INBOX_LIMIT_MESSAGES
from raft.tls import Sealed
from tests.harness.certificates import YEAR, now
from tests.harness.raft_messages import append
from tests.harness.transports import Party, Stranger


@pytest.fixture
def meet(places, certificates, wait):
    """Parties of these names, all connected with each other."""
    parties = []

    def meet(*names, **options):
        members = {name: places[name] for name in names}
        new = [Party(name, members, certificates, **options).start() for name in names]
        parties.extend(new)
        wait(lambda: all(party.connected(peer) for party in new for peer in names if peer != party.name))
        return new

    meet.parties = parties
    yield meet
    for party in parties:
        party.close()


def test_messages_arrive_whole_and_in_order(meet, wait):
    n1, n2 = meet("n1", "n2")
    for number in range(2000):
        assert n1.send("n2", number)
        assert n2.send("n1", number)
    wait(lambda: n2.terms("n1") == list(range(2000)) and n1.terms("n2") == list(range(2000)))


def test_large_messages_arrive_between_small_ones(meet, wait):
    n1, n2 = meet("n1", "n2")
    command = bytes(range(256)) * 4096
    for number in range(5):
        entries = [(b"\0" + command, index, 1) for index in range(2, 5)]
        assert n1.transport.send("n2", append(*entries, sent=number))
        wait(lambda number=number: len(n2.messages["n1"]) == 2 * number + 1)
        assert n1.send("n2", number)
        wait(lambda number=number: len(n2.messages["n1"]) == 2 * number + 2)
    for message in n2.messages["n1"][::2]:
        assert [entry[0][1:] == command for entry in message.entries] == [True] * 3


def test_everybody_is_introduced_before_being_told_as_connected(meet, wait):
    n1, n2 = meet("n1", "n2")
    for party, peer in ((n1, n2), (n2, n1)):
        wait(lambda party=party, peer=peer: ("connected", peer.name) in party.told)
        assert party.told.index(("introduced", peer.name, peer.said)) < party.told.index(("connected", peer.name))


def test_what_is_said_is_as_new_as_the_connection(meet, wait):
    n1, n2 = meet("n1", "n2")
    n1.said = Introduction("id of n1", "abc", 3)
    n2.transport._peers["n1"].raft._opening.end()
    wait(lambda: ("introduced", "n1", n1.said) in n2.told)


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (("aa", 0), ("bb", 0), "two clusters under one name"),
        (("aa", 1), ("aa", 2), "which has replaced ours, 1, with `raft recover`"),
        (("aa", 2), ("aa", 1), "belongs to incarnation 1, which was replaced by 2 with `raft recover`"),
    ],
)
def test_another_cluster_id_or_incarnation_is_refused_in_words(meet, wait, places, certificates, ours, theirs, words):
    members = {name: places[name] for name in ("n1", "n2")}
    for name, (cluster_id, incarnation) in (("n1", ours), ("n2", theirs)):
        party = Party(name, members, certificates)
        party.said = Introduction(f"id of {name}", cluster_id, incarnation)
        meet.parties.append(party.start())
    n1, n2 = meet.parties
    wait(lambda: words in str(n1.problem("n2")) or words in str(n1.refusals))
    wait(lambda: n1.count("cluster") > 0 and n2.count("cluster") > 0)
    assert not n1.connected("n2")
    assert not n2.connected("n1")
    assert not any(kind in ("introduced", "connected") for kind, *_ in n1.told + n2.told)


def test_a_replica_of_a_replaced_incarnation_is_told_so(meet, wait, places, certificates):
    members = {name: places[name] for name in ("n1", "n2")}
    for incarnation, name in enumerate(members):
        party = Party(name, members, certificates)
        party.said = Introduction(f"id of {name}", "aa", incarnation)
        meet.parties.append(party.start())
    n1, _ = meet.parties
    wait(lambda: "incarnation" in str(n1.problem("n2")))
    told = n1.problem("n2")
    assert told.removeprefix(f"peer n2 at {places['n2']} ") in {
        "refused us: 'n1' belongs to incarnation 0, which was replaced by 1 with `raft recover`",
        "belongs to incarnation 1, which has replaced ours, 0, with `raft recover`",
    }


def test_a_new_replica_is_let_in_by_a_founded_one(meet, places, certificates, wait):
    members = {name: places[name] for name in ("n1", "n2")}
    n1, n2 = (Party(name, members, certificates) for name in members)
    meet.parties.extend((n1, n2))
    n1.said = Introduction("id of n1", "aa", 4)
    n1.start()
    n2.start()
    wait(lambda: n1.connected("n2") and n2.connected("n1"))


# -- members that change ----------------------------------------------------------------------------------


def test_a_member_that_is_added_gets_connected_both_ways(meet, places, certificates, wait):
    n1, n2 = meet("n1", "n2")
    n3 = Party("n3", places, certificates).start()
    meet.parties.append(n3)
    wait(lambda: "'n3' is no other member of cluster 'c'" in str(n3.problem("n1")))
    for party in (n1, n2):
        party.set_members(places)
    wait(lambda: all(party.connected(peer) for party, peer in ((n1, "n3"), (n2, "n3"), (n3, "n1"), (n3, "n2"))))
    assert n3.send("n1", 7)
    wait(lambda: n1.terms("n3") == [7])
    assert n1.send("n2", 8)
    wait(lambda: n2.terms("n1") == [8])


def test_a_member_that_is_dropped_is_out_both_ways_and_not_told_of_any_more(meet, places, wait):
    n1, _, n3 = meet("n1", "n2", "n3")
    told = len(n1.told)
    n1.set_members({name: places[name] for name in ("n1", "n2")})
    assert not n1.send("n3")
    assert n1.transport.ask("n3", {"type": "ping"}) == "'n3' is no member of this cluster"
    wait(lambda: not n3.connected("n1"))
    wait(lambda: "no other member" in str(n3.problem("n1")))
    assert [status.name for status in n1.transport.status({})] == ["n2"]
    assert [event[0] for event in n1.told[told:] if event[1] == "n3" and event[0] != "unanswered"] == ["disconnected"]
    assert n3.connected("n2")


def test_a_member_that_is_dropped_and_added_again_is_connected_again(meet, places, wait):
    n1, n2 = meet("n1", "n2")
    both = {name: places[name] for name in ("n1", "n2")}
    for _ in range(5):
        n1.set_members({"n1": places["n1"]})
        n1.set_members(both)
    wait(lambda: n1.connected("n2") and n2.connected("n1"))
    wait(lambda: n1.send("n2", 9) and 9 in n2.terms("n1"))
    assert [event for event in n1.told if event[:2] in (("connected", "n2"), ("disconnected", "n2"))][-1][
        0
    ] == "connected"


def test_a_member_that_moves_is_found_at_its_new_address(meet, places, certificates, wait):
    n1, n2 = meet("n1", "n2")
    moved = {"n1": places["n1"], "n2": places["n3"]}
    n2.close()
    wait(lambda: not n1.connected("n2"))
    there = Party("n2", moved, certificates).start()
    meet.parties.append(there)
    n1.set_members(moved)
    wait(lambda: n1.connected("n2") and there.connected("n1"))
    assert next(status.address for status in n1.transport.status({})) == places["n3"]


def test_an_address_that_changes_while_connected_is_gone_to(meet, places, certificates, wait):
    n1, n2 = meet("n1", "n2")
    other = Party("n2", {"n1": places["n1"], "n2": places["n3"]}, certificates)
    other.said = n2.said
    other.transport.listen()
    meet.parties.append(other)
    n1.set_members({"n1": places["n1"], "n2": places["n3"]})
    wait(lambda: n1.connected("n2") and ("disconnected", "n2") in n1.told)
    n1.send("n2", 5)
    wait(lambda: other.terms("n1") == [5])


def test_a_member_that_may_be_at_several_places_is_looked_for_at_each(meet, places, certificates, wait):
    n1, n2 = meet("n1", "n2")
    n1.set_members({"n1": places["n1"], "n2": (places["n3"], places["n2"])})
    time.sleep(0.1)
    assert n1.connected("n2")  # it is where it may be
    n2.close()
    wait(lambda: not n1.connected("n2"))
    there = Party("n2", {"n1": places["n1"], "n2": places["n3"]}, certificates).start()
    meet.parties.append(there)
    wait(lambda: n1.connected("n2") and there.connected("n1"))
    there.close()
    wait(lambda: not n1.connected("n2"))
    back = Party("n2", {"n1": places["n1"], "n2": places["n2"]}, certificates).start()
    meet.parties.append(back)
    wait(lambda: n1.connected("n2") and back.connected("n1"))


def test_that_nobody_is_at_another_place_does_not_hide_why_a_peer_refuses(meet, places, wait):
    n1, n2, _ = meet("n1", "n2", "n3")
    n1.set_members({"n1": places["n1"], "n2": (places["n2"], "127.0.0.1:1"), "n3": places["n3"]})
    n2.set_members({"n2": places["n2"], "n3": places["n3"]})
    wait(lambda: "no other member" in str(n1.problem("n2")))
    seen = set()
    for _ in range(100):
        time.sleep(0.01)
        seen.add("no other member" in n1.problem("n2"))
    assert seen == {True}


def test_what_is_no_address_is_not_taken_for_one(meet, places, certificates, wait):
    n1, n2 = meet("n1", "n2")
    n2.said = Introduction("id of n2", "", 0, "nowhere")
    n2.close()
    again = Party("n2", n2.members, certificates)
    again.said = n2.said
    meet.parties.append(again.start())
    wait(lambda: "says that it is at 'nowhere', which is no address" in str(again.problem("n1")))
    assert not n1.connected("n2")


# -- guests: they may have joined while this one was away ----------------------------------------------------


def of_group(party, cluster_id="aa"):
    party.said = Introduction(f"id of {party.name}", cluster_id, 0, party.members[party.name])
    return party


@pytest.fixture
def guest_of(meet, places, certificates, wait):
    """n1, which knows n2 only, and n3, which knows both."""

    def guest_of(ours="aa", theirs="aa", admitted=("n3",)):
        n1 = of_group(Party("n1", {name: places[name] for name in ("n1", "n2")}, certificates), ours)
        n3 = of_group(Party("n3", places, certificates), theirs)
        meet.parties.extend((n1, n3))
        n1.admitted = set(admitted)
        n1.start()
        n3.start()
        return n1, n3

    return guest_of


def test_one_that_joined_unheard_is_heard_and_answered_for_as_long_as_it_may_be_news(guest_of, wait):
    n1, n3 = guest_of()
    wait(lambda: n3.connected("n1") and ("connected", "n3") in n1.told)
    assert n1.told.index(("introduced", "n3", n3.said)) < n1.told.index(("connected", "n3"))
    assert n3.send("n1", 5)
    wait(lambda: n1.terms("n3") == [5])
    assert n1.send("n3", 6)
    wait(lambda: n3.terms("n1") == [6])
    assert [status.name for status in n1.transport.status({})] == ["n2"]
    n1.admitted.clear()
    wait(lambda: not n3.connected("n1") and ("disconnected", "n3") in n1.told)
    wait(lambda: "no other member" in str(n3.problem("n1")))
    assert not n1.send("n3", 7)
    assert n1.count("stranger") > 0


def test_an_empty_journal_hears_a_leader_of_whatever_name(guest_of, wait):
    """It may be that of a member that lost its disk while the others changed."""
    n1, n3 = guest_of(ours="")
    wait(lambda: n3.connected("n1") and ("connected", "n3") in n1.told)


def test_a_guest_that_is_added_keeps_its_connections(guest_of, places, wait):
    n1, n3 = guest_of()
    wait(lambda: n3.connected("n1") and ("connected", "n3") in n1.told)
    n1.admitted.clear()
    n1.set_members(places)
    time.sleep(1.2)  # longer than between two signs of life
    assert n1.connected("n3")
    assert n3.connected("n1")
    assert ("disconnected", "n3") not in n1.told
    assert ("disconnected", "n1") not in n3.told


def test_a_guest_stays_when_others_are_added(guest_of, places, wait):
    n1, n3 = guest_of()
    wait(lambda: n3.connected("n1") and ("connected", "n3") in n1.told)
    n1.set_members({"n1": places["n1"]})
    assert n1.send("n3", 6)
    wait(lambda: n3.terms("n1") == [6])


def test_a_guest_that_has_gone_is_not_looked_for(guest_of, wait):
    n1, n3 = guest_of()
    wait(lambda: ("connected", "n3") in n1.told)
    n3.close()
    wait(lambda: ("disconnected", "n3") in n1.told)
    wait(lambda: not [thread for thread in threading.enumerate() if thread.name == "raft raft to n3"])


@pytest.mark.parametrize(
    ("ours", "theirs", "admitted"),
    [("aa", "", ["n3"]), ("", "", ["n3"]), ("aa", "aa", []), ("aa", "bb", ["n3"])],
    ids=["of no group yet", "both new", "while a leader is heard", "of another group"],
)
def test_others_are_no_guests(guest_of, wait, ours, theirs, admitted):
    n1, n3 = guest_of(ours, theirs, admitted)
    wait(lambda: "'n3' is no other member of cluster 'c'" in str(n3.problem("n1")))
    assert [event for event in n1.told if event[1] == "n3"] == []
    assert not n1.send("n3")


def test_a_guest_asks_no_questions(guest_of, wait):
    n1, n3 = guest_of()
    wait(lambda: n3.connected("n1"))
    time.sleep(1)
    assert n3.transport.ask("n1", {"type": "request", "id": 1, "payload": b""}) is not None
    assert n1.requests == []


def test_guests_are_few_and_take_no_place_from_members(meet, places, certificates, wait):
    n1, n2 = meet("n1", "n2")
    n1.said = Introduction("id of n1", "aa", 0, places["n1"])
    names = [f"g{number}" for number in range(GUEST_LIMIT + 1)]
    n1.admitted = set(names)

    def call(name):
        guest = Stranger(places["n1"], certificates and certificates.member(name))
        return guest, guest.hello(name, "n1", cluster_id="aa", address="127.0.0.1:1")

    guests = [call(name) for name in names]
    assert [answer["type"] for _, answer in guests] == ["welcome"] * GUEST_LIMIT + ["refuse"]
    assert "one too many" in guests[-1][1]["reason"]
    wait(lambda: n1.count("crowded") == 1)
    assert n1.connected("n2")
    assert n2.send("n1", 1)
    wait(lambda: n1.terms("n2") == [1])
    n1.set_members({"n1": places["n1"], "n2": places["n2"], "n3": places["n3"]})
    for guest, _ in guests:
        guest.close()

    def let_in():
        guest, answer = call(names[-1])
        guest.close()
        return answer["type"] == "welcome"

    wait(let_in)


def test_a_name_is_looked_up_at_each_connect_and_a_slow_lookup_stops_nobody(
    meet, places, certificates, wait, monkeypatch
):
    """The name server is the test: first it hangs, then it says one address, then another."""
    answers, hanging = {}, threading.Event()
    real = socket.getaddrinfo

    def look_up(host, *arguments, **options):
        if host != "n2.test":
            return real(host, *arguments, **options)
        hanging.wait(20)
        return real(answers["n2.test"], *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    port = places["n2"].rpartition(":")[2]
    n1 = Party("n1", {**places, "n2": f"n2.test:{port}"}, certificates)
    n3 = Party("n3", places, certificates).start()
    meet.parties.extend((n1, n3))
    began_s = time.monotonic()
    n1.start()
    wait(lambda: n1.connected("n3"))
    assert not n1.send("n2")
    n1.set_members({**places, "n2": f"n2.test:{port}"})
    n1.transport.status({})
    assert time.monotonic() - began_s < 5
    answers["n2.test"] = "127.0.0.2"
    hanging.set()
    first = Party("n2", places, certificates, listen=f"127.0.0.2:{port}").start()
    wait(lambda: n1.connected("n2"))
    first.close()
    answers["n2.test"] = "127.0.0.3"
    second = Party("n2", places, certificates, listen=f"127.0.0.3:{port}").start()
    meet.parties.append(second)
    wait(lambda: n1.connected("n2"))
    assert n1.send("n2", 3)
    wait(lambda: second.terms("n1") == [3])


def test_a_peer_that_comes_back_is_connected_within_a_second(meet, places, certificates, wait):
    n1, n2 = meet("n1", "n2")
    n2.close()
    wait(lambda: not n1.connected("n2"))
    time.sleep(1)
    back = Party("n2", {name: places[name] for name in ("n1", "n2")}, certificates)
    meet.parties.append(back)
    began_s = time.monotonic()
    back.start()
    wait(lambda: n1.connected("n2") and back.connected("n1"))
    assert time.monotonic() - began_s < 1.5


def test_closing_ends_every_thread_and_frees_the_port(meet, places, wait):
    before = set(threading.enumerate())
    parties = meet("n1", "n2", "n3")
    for party in parties:
        party.close()
    wait(lambda: not [t for t in set(threading.enumerate()) - before if t.name.startswith("raft")], limit_s=5)
    host, _, port = places["n1"].rpartition(":")
    socket.create_server((host, int(port))).close()


# -- slow and hostile members -----------------------------------------------------------------------------


def stalled_member(places, certificates, name="n2"):
    """Takes the place of a member: welcomes whoever comes, and reads nothing after that."""
    import ssl

    host, _, port = places[name].rpartition(":")
    listener = socket.create_server((host, int(port)))
    kept = [listener]
    if certificates is not None:
        tls = certificates.member(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key)

    def serve():
        while True:
            try:
                accepted, _ = listener.accept()
                stream = accepted if certificates is None else context.wrap_socket(accepted, server_side=True)
                kept.append(stream)
                stream.recv(65536)
                stream.sendall(
                    encode(
                        {
                            "type": "welcome",
                            "proto": 2,
                            "cluster": "c",
                            "cluster_id": "",
                            "incarnation": 0,
                            "from": name,
                            "replica_id": f"id of {name}",
                            "address": "",
                        }
                    )
                )
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    return kept


def test_a_peer_that_reads_nothing_never_holds_up_the_sender_and_is_dropped(places, certificates, wait):
    kept = stalled_member(places, certificates)
    n1, n3 = (Party(name, places, certificates).start() for name in ("n1", "n3"))
    try:
        wait(lambda: n1.connected("n2") and n1.connected("n3"))
        message = append((b"\0" + b"x" * 2**20, 2, 1))
        longest_s = sent = 0
        while True:
            began_s = time.monotonic()
            taken = n1.transport.send("n2", message)
            longest_s = max(longest_s, time.monotonic() - began_s)
            if not taken:
                break
            sent += 1
            assert n1.send("n3", sent)
        assert longest_s < 0.5
        assert BACKLOG_LIMIT_BYTES / 2**20 - 1 <= sent < 100
        wait(lambda: ("disconnected", "n2") in n1.told)
        wait(lambda: n3.terms("n1") == list(range(1, sent + 1)))
    finally:
        for party in (n1, n3):
            party.close()
        for each in kept:
            each.close()


def test_what_waited_for_a_slow_reader_arrives_whole_and_in_order(meet, wait):
    """The owner of n2 takes nothing for a while, so n2 stops reading n1, and n1's backlog fills."""
    n1, n2, n3 = meet("n1", "n2", "n3")
    n2.holds = True
    entry = (b"\0" + b"x" * 2**20, 2, 1)
    for number in range(28):
        wait(lambda number=number: len(n2.messages["n1"]) >= min(number, 16))  # what is taken as far as it will be
        assert n1.transport.send("n2", append(entry, sent=number))
        assert n3.send("n2", number)
    wait(lambda: n2.terms("n3") == list(range(28)))
    time.sleep(0.3)
    assert len(n2.messages["n1"]) <= 17
    n2.work()
    wait(lambda: [message.sent for message in n2.messages["n1"]] == list(range(28)))
    assert n1.connected("n2")


def test_a_peer_that_floods_waits_for_itself(meet, wait):
    n1, n2, n3 = meet("n1", "n2", "n3")
    n2.holds = True
    for number in range(2 * INBOX_LIMIT_MESSAGES):
        assert n1.send("n2", number)
    wait(lambda: len(n2.messages["n1"]) == INBOX_LIMIT_MESSAGES)
    assert n3.send("n2", 1)
    wait(lambda: n2.terms("n3") == [1])
    assert len(n2.messages["n1"]) == INBOX_LIMIT_MESSAGES
    n2.work()
    wait(lambda: n2.terms("n1") == list(range(2 * INBOX_LIMIT_MESSAGES)))


def test_junk_from_a_member_ends_its_connection_and_is_told_once(meet, places, certificates, wait):
    n1, n2 = meet("n1", "n2")
    n2.close()
    wait(lambda: not n1.connected("n2") and not n1.transport._port._visitors.all)
    for junk in (b"\0\0\0\4junk", b"\xff\xff\xff\xff", encode({"type": "answer", "id": 1, "ok": True, "payload": b""})):
        with Stranger(places["n1"], certificates and certificates.tls("n2")) as member:
            assert member.hello("n2", "n1")["type"] == "welcome"
            member.say(junk)
            assert member.is_shut_within(2)
    wait(lambda: n1.count("junk") == 3)
    told = [reason for who, reason in n1.refusals if who == "n2"]
    assert len(told) == 1
    assert told[0].startswith(f"peer n2 at {places['n2']} sent what has no place here: ")


# -- requests ---------------------------------------------------------------------------------------------


def test_questions_and_answers_cross_on_one_connection(meet, wait, monkeypatch):
    """Both directions of a connection at once, from many threads; a cipher never sees two of them."""
    collisions = watch_for_two_at_once(monkeypatch, "seal", "open")
    n1, n2 = meet("n1", "n2")
    wait(lambda: n1.transport.ask("n2", {"type": "ping"}) is None and n2.transport.ask("n1", {"type": "ping"}) is None)

    def ask(party, peer, first):
        for number in range(first, first + 50):
            payload = number.to_bytes(4, "big") * (1 + number * 37 % 9000)
            assert party.transport.ask(peer, {"type": "request", "id": number, "payload": payload}) is None
            time.sleep(0.002)

    threads = [
        threading.Thread(target=ask, args=(party, peer, first))
        for party, peer in ((n1, "n2"), (n2, "n1"))
        for first in (1000, 2000, 3000, 4000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for party in (n1, n2):
        wait(lambda party=party: len(party.answers) == 200)
        for _, answer in party.answers:
            number = answer["id"]
            assert answer["payload"] == (number.to_bytes(4, "big") * (1 + number * 37 % 9000))[::-1]
    assert collisions == []


def watch_for_two_at_once(monkeypatch, *names):
    """Note when one of these methods of a Sealed is entered while another is still at work."""
    inside, collisions = {}, []

    def watched(method):
        def call(sealed, data):
            if inside.setdefault(id(sealed), threading.current_thread()) is not threading.current_thread():
                collisions.append(method.__name__)
            time.sleep(0.0002)
            try:
                return method(sealed, data)
            finally:
                inside.pop(id(sealed), None)

        return call

    for name in names:
        monkeypatch.setattr(Sealed, name, watched(getattr(Sealed, name)))
    return collisions


def test_an_answer_for_somebody_who_does_not_read_holds_up_nobody(meet, places, certificates, wait):
    n1, n2, n3 = meet("n1", "n2", "n3")
    n3.close()
    wait(lambda: not n1.connected("n3") and len(n1.transport._port._visitors.all) == 2)
    request = {"type": "request", "payload": b"x" * 2**20}
    with Stranger(places["n1"], certificates and certificates.tls("n3")) as deaf:
        assert deaf.hello("n3", "n1", kind="request")["type"] == "welcome"
        for number in range(40):
            try:
                deaf.say({**request, "id": number})
            except OSError:
                break
        wait(lambda: n2.transport.ask("n1", {"type": "request", "id": 7, "payload": b"abc"}) is None)
        wait(lambda: ("n1", {"type": "answer", "id": 7, "ok": True, "payload": b"cba"}) in n2.answers)


# -- certificates under way -------------------------------------------------------------------------------


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_authority_and_certificates_are_replaced_without_a_restart(meet, certificates, wait):
    parties = meet("n1", "n2", "n3")
    old, new = certificates.authority, certificates.new_authority()

    def reconnect():
        for party in parties:
            for peer in party.transport._peers.values():
                for link in peer.both():
                    link._end()
        time.sleep(0.1)
        names = {party.name for party in parties}
        wait(lambda: all(party.connected(peer) for party in parties for peer in names - {party.name}))

    certificates.trust(old, new)
    for party in parties:
        certificates.member(party.name, authority=new)
        reconnect()
    certificates.trust(new)
    reconnect()
    assert [party.refusals for party in parties] == [[], [], []]


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_an_expired_certificate_is_named_at_both_ends_and_its_renewal_mends_it(meet, certificates, places, wait):
    certificates.authority = certificates.new_authority(issued=now() - 3 * YEAR)
    certificates.trust(certificates.authority)
    n1, n2 = meet("n1", "n2")
    certificates.member("n2", issued=now() - 2 * YEAR)
    for party, peer in ((n1, "n2"), (n2, "n1")):
        party.transport._peers[peer].raft._end()
    wait(
        lambda: (
            n1.problem("n2") == f"peer n2 at {places['n2']} shows a certificate that is not accepted: it has expired"
        )
    )
    wait(lambda: n2.problem("n1") == f"peer n1 at {places['n1']} says that our certificate has expired")
    wait(
        lambda: (
            ("127.0.0.1", "somebody at 127.0.0.1 shows a certificate that is not accepted: it has expired")
            in n1.refusals
        )
    )
    assert n1.count("certificate") > 0
    certificates.member("n2", valid_for=timedelta(hours=1))
    wait(lambda: n1.connected("n2") and n2.connected("n1"))


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_who_asks_for_the_certificate_waits_for_no_file(certificates, places):
    n1 = Party("n1", {"n1": places["n1"]}, certificates).start()
    try:
        time.sleep(0.3)  # its thread has looked, and does again in ten seconds
        seen = n1.transport.certificate()
        assert (seen.expires_at, seen.problem) == (certificates.tls("n1").expires_at(), None)
        certificates.tls("n1").cert.unlink()
        assert n1.transport.certificate() is seen
    finally:
        n1.close()


def short_lived(certificates, name, life_s=4):
    """As if they were all issued like this one, for whoever starts next; and when it is over."""
    tls = certificates.member(name, valid_for=timedelta(seconds=life_s))
    return SimpleNamespace(member=certificates.tls), tls.expires_at()


def end_of(party, peer):
    return party.transport._peers[peer].raft._connection


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_connections_end_with_the_certificate_that_one_side_has_shown(certificates, places, wait):
    members = {name: places[name] for name in ("n1", "n2")}
    files, end = short_lived(certificates, "n2")
    n1, n2 = Party("n1", members, certificates).start(), Party("n2", members, files).start()
    try:
        wait(lambda: n1.connected("n2") and n2.connected("n1"))
        wait(lambda: not n1.connected("n2") and not n2.connected("n1"))
        assert now() >= end
        refused = f"peer n2 at {places['n2']} shows a certificate that is not accepted: it has expired"
        wait(lambda: n1.problem("n2") == refused)
        wait(lambda: n2.problem("n1") == f"peer n1 at {places['n1']} says that our certificate has expired")
        assert now() < end + timedelta(seconds=5)
        assert not n1.send("n2")
        certificates.member("n2")
        wait(lambda: n1.connected("n2") and n2.connected("n1"))
    finally:
        n1.close()
        n2.close()


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_one_that_was_renewed_in_time_costs_no_pause_and_no_word(certificates, places, wait, monkeypatch):
    """All of a cluster may end in the same second: no peer is lost for as long as a retry waits."""
    monkeypatch.setattr("raft.link._RETRY_S", (60.0, 60.0))
    members = {name: places[name] for name in ("n1", "n2")}
    (files, end), _ = short_lived(certificates, "n2"), short_lived(certificates, "n1")
    n1, n2 = (Party(name, members, files) for name in members)
    for party in (n1, n2):
        party.transport.listen()
    for party in (n1, n2):
        party.transport.start()
    try:
        wait(lambda: n1.connected("n2") and n2.connected("n1"))
        before = end_of(n1, "n2"), end_of(n2, "n1")
        for name in members:
            certificates.member(name)
        wait(lambda: {end_of(n1, "n2"), end_of(n2, "n1")}.isdisjoint((*before, None)))
        assert end <= now() < end + timedelta(seconds=4)
        assert n1.refusals == n2.refusals == []
        time.sleep(3)  # as long as the other side would have waited with ending the old ones
        assert n1.send("n2", 7)
        assert n2.send("n1", 8)
        wait(lambda: n2.terms("n1") == [7] and n1.terms("n2") == [8])
        assert [told[0] for told in n1.told].count("disconnected") == 1
    finally:
        n1.close()
        n2.close()


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
@pytest.mark.parametrize("short", ["n1", "n2"])
def test_a_member_that_keeps_a_connection_beyond_its_certificate_is_hung_up_on(certificates, places, wait, short):
    """Also when it is our own that is over: who has shown it then shows what there is now, or is refused."""
    files, end = short_lived(certificates, short, life_s=3)
    other = "n2" if short == "n1" else "n1"
    certificates.member(other)
    n1 = Party("n1", places, files).start()
    try:
        with Stranger(places["n1"], certificates.tls("n2")) as member:
            assert member.hello("n2", "n1")["type"] == "welcome"
            while not member.is_shut_within(0.5):
                assert now() < end + timedelta(seconds=EXPIRY_GRACE_S + 3)
                with contextlib.suppress(OSError):
                    member.say({"type": "ping"})
            assert now() >= end + timedelta(seconds=EXPIRY_GRACE_S)
    finally:
        n1.close()


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_a_member_whose_certificate_is_over_is_not_spoken_to_although_it_listens(certificates, places, wait):
    files, end = short_lived(certificates, "n2")
    kept = stalled_member(places, files)
    n1 = Party("n1", places, certificates).start()
    try:
        wait(lambda: n1.connected("n2"))
        wait(lambda: not n1.connected("n2"))
        assert end <= now() < end + timedelta(seconds=3)
    finally:
        n1.close()
        for each in kept:
            each.close()


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_an_own_certificate_that_only_our_clock_calls_over_is_for_the_other_side_to_judge(certificates, places, wait):
    """Otherwise a clock that is wrong here would end each connection as soon as it is made, over and over."""
    files, end = short_lived(certificates, "n1", life_s=2)
    listener = stalled_member(places, certificates)
    wait(lambda: now() > end)
    n1 = Party("n1", places, files).start()  # and who listens there asks nobody for a certificate
    try:
        wait(lambda: n1.connected("n2"))
        connection = end_of(n1, "n2")
        time.sleep(2.5)
        assert end_of(n1, "n2") is connection
    finally:
        n1.close()
        for each in listener:
            each.close()


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_swapped_addresses_are_found_before_anything_is_said(meet, certificates, places, wait):
    meet("n1", "n2")
    n3 = Party("n3", {"n1": places["n2"], "n2": places["n1"], "n3": places["n3"]}, certificates).start()
    meet.parties.append(n3)
    wait(lambda: "has the certificate of 'n2', not of 'n1': check the addresses" in str(n3.problem("n1")))
    assert n3.count("identity") > 0


@pytest.mark.parametrize("certificates", ["tls"], indirect=True)
def test_one_side_without_tls_is_named_by_both(certificates, places, wait):
    members = {name: places[name] for name in ("n1", "n2")}
    n1, n2 = Party("n1", members, certificates).start(), Party("n2", members, None).start()
    try:
        wait(lambda: "is TLS off there?" in str(n1.problem("n2")))
        wait(lambda: n1.count("tls") > 0 and n2.count("tls") > 0)
        assert ("127.0.0.1", "somebody at 127.0.0.1 does not speak TLS 1.3; is TLS off there?") in n1.refusals
        assert ("127.0.0.1", "somebody at 127.0.0.1 speaks TLS, which is off here") in n2.refusals
        assert not n1.connected("n2")
        assert not n2.connected("n1")
    finally:
        n1.close()
        n2.close()

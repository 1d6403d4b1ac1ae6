"""R16 in a node: promises that outlive the process that gave them, and a lease that goes on by them."""

from dataclasses import replace

import pytest

from appliance.cluster.config import Policy
from appliance.ha.seen import Notes
from appliance.node import failsafe as module
from appliance.node.failsafe import RETRY_S, Failsafe
from appliance.node.messages import AskPromise, Promise, encode
from appliance.node.notes import NotesFile
from tests.unit.ha.test_failsafe import ALONE, POLICY, silent, vouched

from .building import Clock, Consensus

LASTS_S = POLICY.depose_after_s


class Standby:
    def __init__(self, path, clock):
        self.clock, self.path = clock, path
        self.start()

    def start(self):
        self.notes = NotesFile(self.path)
        self.failsafe = Failsafe("pg2", Consensus(vouched()), self.notes, lambda: None)

    def asked(self, epoch=4, policy=POLICY):
        answer = self.failsafe.ask(AskPromise("pg1", epoch))
        self.failsafe.settle(vouched(), replace(ALONE, notes=self.notes.value), policy)
        return answer.result(0).refused

    @property
    def left_s(self):
        return self.failsafe.left_s(vouched())


@pytest.fixture
def clock(monkeypatch):
    return Clock.of(monkeypatch, module)


@pytest.fixture
def node(tmp_path, clock):
    path = tmp_path / "notes.json"
    NotesFile(path).write(Notes(epoch=4, pledge=4))
    return Standby(path, clock)


def test_a_promise_lasts_a_ttl_and_begins_anew_with_each(node):
    assert node.left_s == 0
    assert node.asked() == ""
    assert node.left_s == pytest.approx(LASTS_S)
    node.clock.now_s += 2
    assert node.left_s == pytest.approx(LASTS_S - 2)
    node.asked()
    assert node.left_s == pytest.approx(LASTS_S)
    node.clock.now_s += LASTS_S
    assert node.left_s == 0


def test_what_was_promised_is_on_the_disk_and_counts_from_the_next_start(node):
    node.asked()
    node.clock.now_s += 5
    node.start()
    assert node.left_s == pytest.approx(LASTS_S)
    newer = replace(vouched(), appointment=replace(vouched().appointment, epoch=5))
    assert node.failsafe.left_s(newer) == 0, "it was over when epoch 5 was appointed"


def test_the_disk_is_written_once_for_an_epoch_and_what_it_refuses_is_not_promised(node, monkeypatch):
    written = []
    monkeypatch.setattr(node.notes, "write", written.append)
    node.asked()
    assert written == [Notes(epoch=4, pledge=4, promised_epoch=4, promised_s=LASTS_S)]
    node.notes.value = written.pop()
    node.asked()
    assert written == []

    def full(notes):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(node.notes, "write", full)
    assert node.asked(policy=replace(POLICY, ttl_s=60.0)) == "cannot note it: No space left on device"
    assert node.left_s == pytest.approx(LASTS_S)


def test_a_refusal_is_in_words(node):
    assert node.asked(epoch=3).startswith("knows pg1 as primary of epoch 4")
    assert node.notes.value.promised_epoch == 0
    assert node.left_s == 0


# The primary's side


@pytest.fixture
def asking(tmp_path, clock):
    consensus = Consensus(vouched())
    failsafe = Failsafe("pg1", consensus, NotesFile(tmp_path / "notes.json"), lambda: None)
    failsafe.tell(vouched(), silent(), POLICY)
    return failsafe, consensus


def test_a_lease_counts_from_before_the_question(asking, clock):
    failsafe, consensus = asking
    began_s = clock.now_s
    assert [(peer, question) for peer, question, _ in consensus.asked] == [("pg2", AskPromise("pg1", 4))]
    clock.now_s += 0.7
    assert failsafe.hear() is None
    failsafe.tell(vouched(), silent(), POLICY)
    assert len(consensus.asked) == 1, "one round at a time"
    consensus.answer(Promise())
    vouch = failsafe.hear()
    assert (vouch.epoch, vouch.asked_s, vouch.by) == (4, began_s, {"pg2"})


def test_one_that_does_not_promise_is_enough_to_stop(asking, clock):
    failsafe, consensus = asking
    consensus.answer(Promise("is pledged to election 5"))
    assert failsafe.hear() is None
    assert failsafe.refusals == {"pg2": "is pledged to election 5"}
    failsafe.tell(vouched(), silent(), POLICY)
    assert len(consensus.asked) == 1
    clock.now_s += RETRY_S
    failsafe.tell(vouched(), silent(), POLICY)
    assert len(consensus.asked) == 2
    consensus.asked[-1][2].set_result(encode(AskPromise("pg2", 4)))
    assert failsafe.hear() is None
    assert failsafe.refusals == {"pg2": "gave another answer"}


def test_nobody_is_asked_when_it_is_off(tmp_path, clock):
    consensus = Consensus(vouched())
    failsafe = Failsafe("pg1", consensus, NotesFile(tmp_path / "notes.json"), lambda: None)
    failsafe.tell(vouched(), silent(), Policy())
    assert consensus.asked == []

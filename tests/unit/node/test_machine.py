"""The agreed state between versions of us: equal, or the older one has stopped. And the gate before what is new."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.cluster.apply import apply
from appliance.cluster.codec import THIS, encode_command, encode_state
from appliance.cluster.commands import Depose, RaiseFormat
from appliance.cluster.state import FORMAT, ClusterState
from appliance.node.machine import ClusterMachine
from raft import NewerVersionNeeded, Verdict
from tests.unit.cluster.building import TAPES, Tape, next_command, state
from tests.unit.cluster.versions import CARELESS, NEXT, NEXT_FORMAT, Rename, encoded, judge

OLD, NEW, HASTY = ClusterMachine(), ClusterMachine(NEXT, judge), ClusterMachine(CARELESS, judge)
AGREED = state(format=NEXT_FORMAT)
INSTALL = f"this node knows up to format {FORMAT}: install the newer version on this host"


# -- never two states ------------------------------------------------------------------------------------


def some_entry(present, tape):
    """Mostly what one of the two versions proposes; also what should never get into a log."""
    command = encoded(next_command(present, tape))
    damaged = json.loads(command)
    damaged[tape.pick("format", "type", "body", "trace")] = tape.pick(0, 1, FORMAT, NEXT_FORMAT, 9, "Rename", {}, None)
    foreign = json.loads(command)
    foreign["body"]["colour"] = "blue"
    return tape.pick(
        command,
        command,
        command,
        encoded(Rename(tape.name())),
        encode_command(Rename(tape.name()), CARELESS),
        encoded(RaiseFormat(tape.pick(FORMAT, NEXT_FORMAT, NEXT_FORMAT, NEXT_FORMAT + 1))),
        json.dumps(damaged).encode(),
        json.dumps(foreign).encode(),
        bytes(tape.byte() for _ in range(4)),
    )


def stepped(machine, present, entry):
    """The next state and whether it was refused; None when this version has to stop."""
    try:
        after, verdict = machine.apply(present, entry)
    except NewerVersionNeeded:
        return None
    return after, verdict.refused is not None


@pytest.mark.parametrize("newer", [NEW, HASTY], ids=["gated", "careless"])
@settings(max_examples=200, deadline=None)
@given(choices=TAPES)
def test_two_versions_agree_or_the_older_one_has_stopped_at_a_prefix(newer, choices):
    present, tape = state(), Tape(choices)
    while tape.left > 0:
        entry = some_entry(present, tape)
        old, new = stepped(OLD, present, entry), stepped(newer, present, entry)
        if old is None:
            return
        assert old == new
        assert OLD.load(newer.dump(new[0])) == newer.load(OLD.dump(old[0])) == new[0]
        present = new[0]


@pytest.mark.parametrize("newer", [NEW, HASTY], ids=["gated", "careless"])
def test_walks_of_two_versions_go_both_ways(newer):
    """The one above is no proof if no walk ever reaches what is new, or every walk stops at once."""
    renamed = stopped_late = 0
    for seed in range(400):
        present, tape = state(), Tape(bytes((seed * 31 + n * n * 7) % 256 for n in range(200)))
        steps, old_runs = 0, True
        while tape.left > 0:
            entry = some_entry(present, tape)
            old_runs = old_runs and stepped(OLD, present, entry) is not None
            new = stepped(newer, present, entry)
            if new is None:
                break
            steps += old_runs
            renamed += new[0].name != present.name
            present = new[0]
        stopped_late += not old_runs and steps > 3
    assert renamed > 20
    assert stopped_late > 20


@settings(max_examples=100, deadline=None)
@given(TAPES, st.sampled_from([1, NEXT_FORMAT]))
def test_a_state_is_taken_over_from_another_version_or_it_is_said_why_not(choices, number):
    present = state(format=number)
    tape = Tape(choices)
    for _ in range(5):
        present = apply(present, next_command(present, tape)).state
    dumped = NEW.dump(present)
    if present.format <= FORMAT:
        assert OLD.load(dumped) == present
    else:
        with pytest.raises(NewerVersionNeeded, match=f"holds a state of format {present.format}; {INSTALL}"):
            OLD.load(dumped)


def test_what_the_state_of_a_newer_version_has_besides_says_nothing_before_its_format():
    document = json.loads(encode_state(state()))
    document["state"]["colour"] = ""
    assert OLD.load(json.dumps(document).encode()) == state()


# -- where the older one stops ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        (encoded(Rename("shop2")), f"command 'Rename' of format {NEXT_FORMAT}"),
        (encoded(RaiseFormat(NEXT_FORMAT)), f"the step to format {NEXT_FORMAT}"),
        (b'{"format":1,"type":"Rename","body":{"name":"x"}}', "command 'Rename' of format 1"),
    ],
)
def test_it_stops_before_what_it_does_not_know_and_says_what_would_do(entry, what):
    with pytest.raises(NewerVersionNeeded) as error:
        OLD.apply(state(), entry)
    assert str(error.value) == f"holds {what}; {INSTALL}"


def test_what_no_version_takes_stops_nobody():
    for junk in (b"", b"[]", b'{"format":"9","type":"Rename","body":{}}', b'{"format":9,"type":"Rename"}'):
        after, verdict = OLD.apply(state(), junk)
        assert after == state()
        assert verdict.refused.startswith("command.malformed: ")
        assert NEW.apply(state(), junk) == (after, verdict)


# -- the gate --------------------------------------------------------------------------------------------


def test_a_command_above_the_agreed_format_is_refused_by_who_knows_it_also_at_its_place_in_the_log():
    early = f"format.ahead: Rename needs format {NEXT_FORMAT}, 1 is agreed on"
    assert NEW.objection(state(), encoded(Rename("shop2"))) == early
    assert NEW.apply(state(), encoded(Rename("shop2"))) == (state(), Verdict(early))
    assert NEW.objection(AGREED, encoded(Rename("shop2"))) is None
    assert NEW.apply(AGREED, encoded(Rename("shop2")))[0].name == "shop2"


def test_the_step_opens_the_gate_once_and_for_all():
    raised, verdict = NEW.apply(state(), encoded(RaiseFormat(NEXT_FORMAT)))
    assert (raised, verdict) == (AGREED, Verdict())
    for number in (1, NEXT_FORMAT):
        assert NEW.apply(raised, encoded(RaiseFormat(number))) == (
            raised,
            Verdict(f"format.agreed: format {NEXT_FORMAT} is agreed on already"),
        )


def test_everything_that_this_version_proposes_passes_the_gate_of_a_new_cluster():
    """Until a command of format 2 has a proposer that asks for it."""
    assert ClusterState().format == min(THIS.format_of(name) for name in THIS.commands)
    assert OLD.objection(state(), encoded(Depose(4, "silent"))) is None


def test_what_another_version_could_not_read_does_not_enter_the_log():
    with pytest.raises(NewerVersionNeeded):
        OLD.objection(state(), encoded(Rename("shop2")))
    assert OLD.objection(state(), b"junk") == "command.malformed: not a JSON document"


def test_a_dump_says_the_format_that_is_agreed_on_and_not_the_highest_known():
    assert json.loads(NEW.dump(state()))["format"] == 1
    assert json.loads(NEW.dump(AGREED))["format"] == NEXT_FORMAT

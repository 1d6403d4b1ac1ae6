"""What replicas say when they meet, and what they make of it."""

import pytest

from raft.certificates import Subject
from raft.introductions import Introducer
from raft.members import Introduction
from raft.refusals import RefusedByPeerError, RefusedError
from tests.harness.transports import hello


def introducer(name, *members, cluster="c"):
    return Introducer(
        Subject(cluster, name),
        {member: f"{member}:7400" for member in members},
        lambda: Introduction(f"id of {name}", "g", 0),
        admits=lambda _: False,
        certified=False,
    )


def refusal(by, caller, **other):
    """How `by` refuses the caller's hello, as it goes over the wire."""
    said = hello(caller.own.member, by.own.member, **{"cluster_id": "g", **other})
    with pytest.raises(RefusedError) as refused:
        by.check_hello(said, None)
    return by.refuse(repr(caller.own.member), refused.value)


def heard(caller, answer):
    with pytest.raises(RefusedByPeerError) as error:
        caller.check_answer("n1", answer)
    return error.value


@pytest.mark.parametrize("name", ["n3", 'the "third"', "n'3"])
def test_who_is_refused_as_no_member_knows_it(name):
    by, caller = introducer("n1", "n1", "n2"), introducer(name, "n1", "n2", name)
    error = heard(caller, refusal(by, caller))
    assert error.no_member
    assert error.words == f"{name!r} is no other member of cluster 'c': removed, or not added yet"
    assert (error.reason, str(error)) == ("refused", f"refused us: {error.words}")


def test_another_reason_is_not_taken_for_that():
    by, caller = introducer("n1", "n1", "n2", "n3"), introducer("n3", "n1", "n2", "n3")
    for other in ({"cluster_id": "h"}, {"to": "n9"}, {"incarnation": 7}):
        assert not heard(caller, refusal(by, caller, **other)).no_member


def test_what_is_said_of_somebody_else_is_not_taken_for_oneself():
    by, caller = introducer("n1", "n1", "n2"), introducer("n3", "n1", "n2", "n3")
    assert not heard(caller, refusal(by, introducer("n4", "n1"))).no_member

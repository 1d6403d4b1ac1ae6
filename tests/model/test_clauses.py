"""Each clause of R5 to R8 and R13 left out in turn: the model notices, so it would notice if the code lost it."""

from dataclasses import replace

import pytest

from appliance.cluster import synchronous
from tests.model.clauses import APPOINT_N1, BOTH, CLAUSES, OPEN
from tests.model.model import Model
from tests.model.play import VOTES, named, of, play, run
from tests.model.search import every_state
from tests.model.world import Budget, agreed, running

LIMIT = 20_000


@pytest.mark.parametrize("name", CLAUSES)
def test_without_it_something_does_not_hold_any_more(name, monkeypatch):
    clause = CLAUSES[name]
    if clause.twin is not None:
        clause.twin(monkeypatch)
    clause.without(monkeypatch)
    fault = found(clause)

    assert fault.startswith(clause.noticed), fault or "nothing was noticed"
    assert fault


@pytest.mark.parametrize("name", [name for name, clause in CLAUSES.items() if clause.twin is not None])
def test_it_holds_where_what_guards_the_same_is_left_out(name, monkeypatch):
    CLAUSES[name].twin(monkeypatch)

    assert found(CLAUSES[name]) == ""


def found(clause):
    """The first fault in this clause's world; empty: none in so many states."""
    model = Model(agreed(clause.nodes, *clause.listed, wanted_k=clause.wanted_k), late_reports=clause.late_reports)
    start, fault = run(model, running(clause.nodes, *clause.listed, left=clause.left), *clause.after)
    return fault or every_state(model, start, limit=LIMIT).fault


def test_without_the_holders_nobody_can_be_appointed_and_something_could(monkeypatch):
    """R7a the other way round: a clause that keeps the cluster alive (T10). n2 was level with n1, which is gone."""
    left = Budget(elections=2, crashes=1, deaths=1)

    def last_step():
        model = Model(agreed(3, BOTH))
        steps = (OPEN, *of("n1", VOTES[:3]), *of("n2", VOTES[:3]), APPOINT_N1, "n1: dies for ever", OPEN)
        world = play(model, running(3, BOTH, left=left), "n0: host crashes", *steps, "n2 reads the log", "n2 pledge")
        return named(model, world, "raft leader: Appoint…node='n2'")

    assert last_step()
    suffice = synchronous.suffice

    def without_holders(grounds, voters):
        return suffice(tuple(replace(each, holders=frozenset()) for each in grounds), voters)

    monkeypatch.setattr(synchronous, "suffice", without_holders)
    with pytest.raises(AssertionError, match="OpenElection"):
        last_step()

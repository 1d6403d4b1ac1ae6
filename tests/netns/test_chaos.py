"""The short form of `./dev chaos`: always the same schedules, all its checks, six minutes of faults."""

import time

import pytest

from tests.chaos.campaign import Campaign, Plan
from tests.chaos.clients import IMPATIENCE_S, Clients, Role, inserts
from tests.chaos.faults import FAULTS
from tests.chaos.field import Field, go_on, stop
from tests.chaos.ledger import Outcome, read
from tests.chaos.tables import Tables

RUNS = {
    "three nodes": Plan(4, nodes=3, mode="quorum", limit_s=150),
    "five nodes, by priority": Plan(5, nodes=5, mode="on", limit_s=120),
    "asynchronous": Plan(6, nodes=3, mode="off", limit_s=90),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", RUNS)
def test_nothing_acknowledged_is_lost_under_random_faults(name):
    campaign = Campaign(RUNS[name])
    broken = campaign.run()
    assert not broken, f"{broken}\nkept: {campaign.directory}"
    tally = campaign.tally
    assert tally.lost == 0 or campaign.plan.mode == "off"
    assert tally.outcomes["acknowledged"] > 100 * tally.rounds
    assert len({kind.name for kind in FAULTS} & set(tally.struck)) >= 5, f"hardly a fault struck: {tally.struck}"


def test_a_commit_whose_wait_for_a_standby_was_cancelled_is_not_acknowledged(tmp_path):
    """PostgreSQL answers it with success and a WARNING."""
    tables = Tables("impatient")
    with Field(3, "quorum") as field:
        primary, enter = field.cluster.primary(), field.network.enter()
        primary.sql(tables.make())
        role = Role("impatient", field.cluster.dsn([primary]), inserts(tables), 0.01, enter, impatient=True)
        stopped = [node.walreceiver() for node in field.cluster.standbys()]
        with Clients([role], tmp_path / "ledger", enter) as clients:
            field.cluster.wait_until(lambda: clients.writes() >= 20, 20, "the client writes")
            stop(stopped)
            time.sleep(4 * IMPATIENCE_S)
            go_on(stopped)
        contents = tables.contents(field.wait_whole(20))
    cancelled = [each for each in read(tmp_path / "ledger") if each.why.startswith("canceling wait for synchronous")]
    assert cancelled, "nobody waited"
    assert {each.outcome for each in cancelled} == {Outcome.UNKNOWN}
    assert all(contents.has(each) for each in cancelled), "nothing else happened, so they are there"
    assert all(each.ended_s - each.begun_s > IMPATIENCE_S for each in cancelled)

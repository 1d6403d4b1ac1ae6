"""T1 to T13 of docs/safety.md, those that concern synchronous mode, step by step through the real rules.

n0 is the primary, S = {n1, n2}, k = 1 unless said otherwise. What is tried at the end of each trace is what broke an
earlier wording of the rules: it must not be possible now. The clause that keeps it so is left out in test_clauses.py.
"""

from dataclasses import replace

from appliance.cluster.apply import apply
from appliance.cluster.commands import Appoint, ChangeSync, FinaliseSync, OpenElection, Rebuild, Rebuilt
from appliance.cluster.state import Position, Vote
from appliance.node.coordinator import LeaseLedger
from tests.model.clauses import APPOINT_N1, BOTH, FAILOVER, LOADS, NONE, ONE, OPEN, SETTLES, TO_N1
from tests.model.model import Model, with_node
from tests.model.play import LEAVES, OPENS, VOTES, named, of, play
from tests.model.search import every_state
from tests.model.world import Budget, agreed, running, sync_set

PLENTY = Budget(writes=9, elections=9, changes=9, crashes=9, deaths=9, losses=9, cuts=9, late=9)


TO_NOBODY = "raft leader: ChangeSync(epoch=1, version=2, wanted=SyncSet(k=0"
AWAY = (OPEN, *of("n1", VOTES[:3]), *of("n2", VOTES[:3]), APPOINT_N1)
"""the primary is gone, and with it what the receivers were connected with"""


def begin(*listed, nodes=3, wanted_k=1, left=PLENTY, **changes):
    listed = listed or (BOTH,)
    return Model(agreed(nodes, *listed, wanted_k=wanted_k, **changes)), running(nodes, *listed, left=left)


def only(world, **left):
    """From here on no more than this happens, so that all of it can be tried."""
    return world._replace(left=Budget(**left))


def refused(model, world, command):
    return apply(model.state(world.log), command).refused


def vote(world, name, election):
    node = world.nodes[int(name[1:])]
    return Vote(election, name, node.incarnation, Position(node.wal[-1], len(node.wal)))


def nothing_breaks(model, world, limit=1000):
    """Whatever comes next, as far as this many states reach."""
    found = every_state(model, world, limit=limit)
    assert not found.fault, found
    return found


def test_t1_a_primary_that_runs_has_no_vote_and_acknowledges_nothing_once_it_has_one():
    model, world = begin()
    world = play(model, world, OPEN, *of("n1", VOTES), "n0 reads the log")

    assert not named(model, world, "raft leader: Appoint"), "n0 runs, and one vote of S is not enough"

    world = play(model, world, *of("n0", LEAVES)[1:], "raft leader: Appoint…node='n1'", "n1 reads the log")
    nothing_breaks(model, only(world, writes=1))


def test_t1_who_has_voted_does_not_restart_for_the_epoch_before():
    model, world = begin()
    world = play(model, world, OPEN, *of("n0", LEAVES[:3]), "n0: agent restarts at 0")

    assert model.state(world.nodes[0].view).primary == "n0", "it has read of no election"
    assert not named(model, world, "n0 restart_in_place")
    nothing_breaks(model, only(world, writes=1))


def test_t3_a_pledge_outlives_a_restart_and_lost_notes_take_the_data_with_them():
    model, world = begin()
    world = play(model, world, *FAILOVER)

    again = play(model, world, "n2: agent restarts at 0")
    assert again.nodes[2].notes.pledge == 2
    assert not named(model, again, "n2 follow"), "n0 is the primary that it knows, of an epoch below its pledge"

    lost = play(model, world, "n2: host crashes", "n2: notes are lost", "n2: comes back at 0")
    assert not named(model, lost, "n2 start_standby")
    nothing_breaks(model, only(lost, writes=1))


def test_t3_a_vote_of_an_abandoned_election_counts_in_no_later_one():
    model, world = begin()
    world = play(model, world, OPEN, *of("n1", VOTES), *of("n2", VOTES))
    votes = (vote(world, "n1", 2), vote(world, "n2", 2))
    later = apply(model.state(world.log), OpenElection(3, 1, "again")).state

    assert apply(later, OpenElection(3, 1, "once more")).refused == "election.number: 3 was used, the highest is 3"
    answer = apply(later, Appoint(3, "n1", votes, 2, sync_set(1, "n2"), "", "")).refused
    assert answer == "election.other: n1 voted in election 2"


def test_t4_a_change_to_nobody_before_the_appointment_makes_its_votes_too_few():
    model, world = begin(ONE)
    late = ChangeSync(1, 2, NONE)
    before = play(model, world, OPEN, *of("n1", VOTES))
    after = play(model, world, TO_NOBODY, "raft leader: Depose", OPEN, *of("n1", VOTES))
    appoint = Appoint(2, "n1", (vote(after, "n1", 2),), 2, NONE, "", "")

    assert refused(model, before, appoint) is None
    assert (refused(model, after, appoint) or "").startswith("quorum.votes_missing")
    assert (refused(model, before, late) or "").startswith("lease.not_held"), "nor does it slip in between"


def test_t5_the_walsender_of_one_that_leaves_counts_still():
    """k 2→1 with S {n1, n2}→{n1}: n2 alone confirms through a walsender that has read only half of it."""
    model, world = begin(sync_set(2, "n1", "n2"))
    world = play(model, world, TO_N1)
    able = model.state(world.log)

    nothing_breaks(model, only(world, writes=1))
    asked = replace(able, epoch=2, election=None)
    opened = apply(asked, OpenElection(3, 1, "")).state
    alone = Appoint(3, "n1", (vote(world, "n1", 3),), 2, NONE, "", "")
    assert (apply(opened, alone).refused or "").startswith("quorum.votes_missing"), (
        "V = {n1} satisfies both, not the union"
    )


def test_t6_what_an_old_walsender_confirms_is_seen_before_the_change_is_final():
    """n = 4, S = {n1, n2, n3}, k 1→2: a commit behind x is confirmed by n1 alone, through n2's old walsender."""
    model, world = begin(sync_set(1, "n1", "n2", "n3"), nodes=4, wanted_k=2)
    world = play(
        model, world, "raft leader: ChangeSync…k=2…n1…n2…n3", *LOADS, "n0 settle_sync…mark the WAL",
        "n0: walsender of n1 reads settings", "n0 writes", "n1 receives", "n1 receives",
    )  # fmt: skip

    assert len(world.acked) == 3, "the walsenders of n2 and n3 count by k = 1"
    assert not named(model, world, "n0 settle_sync…again"), "y is noted when they do no more"
    nothing_breaks(model, only(world))


def test_t7_a_connection_shows_the_set_and_commits_do_not_wait():
    model, world = begin(NONE)
    world = play(model, world, "raft leader: ChangeSync…k=1…n1…n2", *LOADS, "n0 writes")

    assert world.acked == world.nodes[0].wal, "acknowledged, and nobody else has it"
    assert named(model, world, "n0 settle_sync…checkpoint"), "so this comes before anything else"
    nothing_breaks(model, only(world))


def test_t7_a_standby_appointed_with_nobody_and_then_with_somebody_opens_with_commits_that_wait():
    """Found by walks through this model: the standby had loaded the empty set, so the flag was down when it opened."""
    model, world = begin(NONE, nodes=2)
    alone = "raft leader: Appoint(election=2, node='n0'…wanted=SyncSet(k=0"
    with_n1 = "raft leader: Appoint(election=3, node='n0'…wanted=SyncSet(k=1"
    steps = ("n0 writes", "raft leader: Depose", OPEN)
    world = play(model, world, *steps, *of("n0", LEAVES), alone, *of("n0", OPENS[:4]))
    assert world.nodes[0].shown.version == 2
    assert world.nodes[0].waits
    world = play(model, world, "raft leader: Depose", OPEN, *of("n0", VOTES[:2]), *of("n1", VOTES[:3]), with_n1)
    world = play(model, world, *of("n0", ("reads the log", "renews", "promote", "postmaster reads", "promote")))

    assert world.nodes[0].running == "primary"
    assert len(world.acked) == 2, "what it had acknowledged alone; nothing since"
    nothing_breaks(model, only(world, writes=1))


def test_t8_a_stale_finalisation_is_refused():
    model, world = begin()
    world = play(
        model, world, TO_N1, *SETTLES, "n0 settle_sync…in force…late", "n2 streams from n0",
        "raft leader: ChangeSync(epoch=1, version=3, wanted=SyncSet(k=1, members=frozenset({'n2'})",
    )  # fmt: skip

    assert named(model, world, "at last: FinaliseSync(epoch=1, version=2)")[0].log == world.log
    assert refused(model, world, FinaliseSync(1, 2)) == "sync.version: version 3 is the newest, not 2"
    assert model.state(world.log).sync[0].wanted == BOTH, "the union of all that was not final"


def test_t8_an_agent_that_restarts_with_an_older_log_loads_no_older_set():
    model, world = begin()
    world = play(model, world, TO_N1, *SETTLES, "n0 settle_sync…in force", "n0: agent restarts at 0")

    assert model.look(world, 0).decision.rule == "wait_for_log"
    nothing_breaks(model, only(world, writes=1))


def test_t9_the_appointed_opens_with_its_own_set_and_with_the_data_that_voted():
    model, world = begin()
    steps = (OPEN, *of("n0", LEAVES), *of("n1", VOTES[:3]))
    world = play(model, world, *steps, "raft leader: Appoint…node='n0'…wanted=SyncSet(k=1, members=frozenset({'n1'})")
    world = play(model, world, "n0 reads the log", "n0 renews")

    assert world.nodes[0].shown.version == 1
    assert "load its synchronous set" in model.look(world, 0).decision.because

    world = play(model, world, "n0 promote", "n0: postmaster reads settings 2")
    shorter = with_node(world, 0, world.nodes[0]._replace(wal=()))
    other = with_node(world, 0, world.nodes[0]._replace(incarnation="n0-9"))
    held = model.state(world.log).appointment
    assert named(model, world, f"n0 promote (appointed in epoch {held.epoch})")
    assert not named(model, other, "n0 promote (appointed"), "not the directory that voted"
    assert not named(model, with_node(shorter, 0, shorter.nodes[0]._replace(running="")), "n0 promote")


def test_t9_the_appointed_waits_for_the_wal_of_its_own_vote():
    model, world = begin()
    world = play(model, world, "n0 writes", "n1 receives", *FAILOVER, *of("n1", OPENS[:4]))
    behind = with_node(world, 1, world.nodes[1]._replace(wal=(1,)))

    assert named(model, world, "n1 promote (appointed in epoch 2)")
    assert model.look(behind, 1).decision.because == "appointed in epoch 2: waits for the WAL of its own vote"


def test_t10_the_only_one_that_was_appointed_dies_for_ever_and_another_that_has_everything_comes_back():
    model, world = begin()
    world = play(model, world, "n0 writes", "n1 receives", "n0: host crashes", *AWAY, "n1: dies for ever")

    assert not named(model, world, "raft leader: Appoint")
    world = play(
        model, world, "n0: comes back at", "n0 reads the log", OPEN, "n0 reads the log", "n0 pledge",
        "n0 start_standby", "n2 reads the log", "n2 pledge", "raft leader: Appoint…node='n0'…node='n0'…node='n2'",
    )  # fmt: skip
    assert model.state(world.log).primary == "n0"
    nothing_breaks(model, only(world))


def test_t10_without_it_one_that_was_level_is_enough():
    """n0 is away; n1 and n2 were level, so n2 alone has everything when n1 is gone as well."""
    model, world = begin()
    world = play(model, world, "n0: host crashes", *AWAY, "n1: dies for ever", OPEN, "n2 reads the log", "n2 pledge")

    assert named(model, world, "raft leader: Appoint…node='n2'")


def test_t11_a_rebuild_is_refused_while_a_set_takes_the_node_back_and_voids_what_it_was():
    model, world = begin(ONE)
    late = Rebuild("n2")
    assert refused(model, world, late) is None

    back = play(model, world, "raft leader: ChangeSync…k=1…n1…n2")
    assert (refused(model, back, late) or "").startswith("rebuild.synchronous")

    voted = play(model, world, OPEN, *of("n1", VOTES), *of("n2", VOTES))
    votes = (vote(voted, "n1", 2), vote(voted, "n2", 2))
    begun = apply(model.state(voted.log), late).state
    appoint = Appoint(2, "n1", votes, 2, sync_set(1, "n2"), "", "")
    assert (apply(begun, appoint).refused or "").startswith("candidate.no_data: n2")
    made = apply(begun, Rebuilt("n2", "n2-1")).state
    assert (apply(made, appoint).refused or "").startswith("candidate.incarnation: n2")


def test_t13_an_epoch_that_is_being_deposed_is_confirmed_no_more():
    """The ledger of the raft leader keeps it so; with it no lease outlives its appointment."""
    ledger = LeaseLedger()
    assert ledger.confirm(1, 1, 10.0)
    assert ledger.begin_deposing(1, 1, 9.0) is None, "a renewal came after that"
    assert ledger.begin_deposing(1, 1, 11.0) is not None
    assert not ledger.confirm(1, 1, 12.0)

    model, world = begin(fencing="lease")
    assert not named(model, world, OPEN)
    world = play(model, world, "the lease runs out")
    assert not named(model, world, "n0 renews")
    world = play(
        model, world, "raft leader: Depose", "raft leader: OpenElection", *of("n1", VOTES[:3]), *of("n2", VOTES[:3])
    )
    play(model, world, APPOINT_N1, *of("n1", OPENS))

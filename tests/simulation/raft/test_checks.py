"""Each check notices a made-up bad history, and lets the good one next to it pass."""

from dataclasses import replace

import pytest

from tests.simulation.raft.checks import (
    Answers,
    Commits,
    Entries,
    Held,
    History,
    Leaders,
    States,
    Violation,
    Votes,
    changes_members,
    recovered,
)


def always(index, term):
    return True


def test_two_leaders_in_one_term():
    leaders = Leaders()
    leaders.leads(1, "a")
    leaders.leads(1, "a")
    leaders.leads(2, "b")
    with pytest.raises(Violation, match="two leaders in term 1: a and b"):
        leaders.leads(1, "b")


def test_two_votes_in_one_term():
    votes = Votes()
    votes.votes("a", 1, "b")
    votes.votes("a", 1, "b")
    votes.votes("a", 2, "c")
    with pytest.raises(Violation, match="a voted twice in term 1"):
        votes.votes("a", 1, "c")


def test_a_leader_without_a_majority_of_votes():
    votes = Votes()
    votes.votes("1", 2, "a")
    votes.votes("2", 2, "a")
    votes.votes("3", 1, "a")
    votes.elected("a", "1", 2, ["1", "2", "3"])
    votes.elected("a", "1", 9, ["1"])
    with pytest.raises(Violation, match="a leads term 2 with the votes of 2 of 4"):
        votes.elected("a", "1", 2, ["1", "2", "3", "4"])


def test_two_entries_with_one_index_and_term():
    entries = Entries()
    entries.added(2, 1, b"x", 0, "a")
    entries.added(2, 1, b"x", 0, "b")
    entries.added(2, 2, b"y", 0, "b")
    with pytest.raises(Violation, match="b has another entry 2 of term 1"):
        entries.added(2, 1, b"y", 0, "b")


def test_equal_entries_after_different_ones():
    entries = Entries()
    entries.added(3, 2, b"x", 1, "a")
    with pytest.raises(Violation, match="after term 2, elsewhere after 1"):
        entries.added(3, 2, b"x", 2, "b")


class TestAnswers:
    @pytest.fixture
    def answers(self):
        answers = Answers()
        answers.holds("a", 3, 7)
        answers.holds("a", 3, 6)
        return answers

    def test_an_acknowledged_entry_dropped_in_the_same_term(self, answers):
        answers.drops("a", 3, 8)
        answers.drops("b", 3, 7)
        with pytest.raises(Violation, match="a drops entry 7"):
            answers.drops("a", 3, 7)

    def test_in_a_later_term_it_may_be_dropped(self, answers):
        answers.drops("a", 4, 7)
        answers.holds("a", 4, 5)
        answers.drops("a", 4, 7)

    def test_a_leader_that_counts_on_what_a_peer_does_not_have(self, answers):
        held = Held("b", term=3, base_index=4, terms=(1, 3))
        answers.believed("a", "b", 6, 3, held, leading=3)
        answers.believed("a", "b", 3, 1, held, leading=3)
        with pytest.raises(Violation, match="a believes that b has entry 7 of term 3"):
            answers.believed("a", "b", 7, 3, held, leading=3)
        with pytest.raises(Violation, match="entry 6 of term 2"):
            answers.believed("a", "b", 6, 2, held, leading=4)

    def test_a_leader_may_hear_late_what_a_peer_had_before_a_later_term(self, answers):
        answers.believed("a", "b", 7, 3, Held("b", term=4, base_index=4, terms=(1, 3)), leading=3)


class TestCommits:
    @pytest.fixture
    def commits(self):
        commits = Commits()
        commits.committed(2, 1, 1, "a", 1.0, always)
        commits.committed(3, 1, 1, "a", 2.0, always)
        commits.committed(4, 3, 3, "b", 5.0, always)
        return commits

    def test_two_entries_committed_at_one_index(self, commits):
        commits.committed(3, 1, 1, "b", 6.0, always)
        with pytest.raises(Violation, match="c commits entry 3 of term 2"):
            commits.committed(3, 2, 2, "c", 6.0, always)

    def test_a_commit_after_a_gap(self, commits):
        with pytest.raises(Violation, match="nobody has committed 5"):
            commits.committed(6, 3, 3, "a", 6.0, always)

    def test_a_commit_of_a_term_that_falls(self, commits):
        with pytest.raises(Violation, match="after term 3"):
            commits.committed(5, 2, 3, "a", 6.0, always)

    def test_a_commit_that_no_majority_has(self, commits):
        with pytest.raises(Violation, match="without a majority"):
            commits.committed(5, 3, 3, "a", 6.0, lambda index, term: False)

    def test_a_leader_that_lacks_a_committed_entry(self, commits):
        commits.leads(4, "a", {2: 1, 3: 1, 4: 3}.get)
        commits.leads(4, "a", {4: 3}.get)
        commits.leads(2, "a", {2: 1, 3: 1}.get)
        with pytest.raises(Violation, match="leads term 4 with 0 at entry 4"):
            commits.leads(4, "a", {2: 1, 3: 1, 4: 0}.get)
        with pytest.raises(Violation, match="leads term 2 with 0 at entry 3"):
            commits.leads(2, "a", {2: 1, 3: 0}.get)

    def test_a_leader_of_a_term_before_that_in_which_an_entry_was_committed(self, commits):
        """It was elected before that commit, and noticed it late."""
        commits.committed(5, 3, 6, "b", 7.0, always)
        commits.leads(5, "a", {2: 1, 3: 1, 4: 3, 5: 5}.get)
        with pytest.raises(Violation, match="leads term 7 with 5 at entry 5"):
            commits.leads(7, "a", {2: 1, 3: 1, 4: 3, 5: 5}.get)

    def test_a_commit_in_a_term_after_whose_successor_has_committed(self, commits):
        commits.committed(5, 3, 6, "b", 7.0, always)
        with pytest.raises(Violation, match="commits 6 in term 5, after term 6"):
            commits.committed(6, 4, 5, "a", 8.0, always)

    def test_contact_after_a_later_term_has_committed(self, commits):
        commits.in_contact(1, "a", 4.9)
        commits.in_contact(3, "b", 9.0)
        with pytest.raises(Violation, match="followed term 1 at 5"):
            commits.in_contact(1, "a", 5.1)
        with pytest.raises(Violation, match="followed term 2"):
            commits.in_contact(2, "a", 5.1)


def test_a_change_of_members_against_the_rules():
    def change(before="abc", after="abcd", *, pending=False, committed_term=3):
        changes_members("a", 7, 3, before, after, pending=pending, committed_term=committed_term)

    change()
    change(after="abc")
    with pytest.raises(Violation, match="more than one voter"):
        change(after="abd")
    with pytest.raises(Violation, match="before the last change is committed"):
        change(pending=True)
    with pytest.raises(Violation, match="before it has committed one of term 3"):
        change(committed_term=2)


class TestStates:
    @pytest.fixture
    def states(self):
        states = States()
        states.applied(1, b"1", b"x")
        states.applied(2, b"2", b"y")
        states.at_index(5, 2, b"2", "a")
        return states

    def test_equal_states_pass(self, states):
        states.applied(1, b"1", b"x")
        states.at_index(5, 2, b"2", "b")
        states.at_index(1, 0, b"", "b")

    def test_another_order(self, states):
        with pytest.raises(Violation, match="state 1 by"):
            states.applied(1, b"2", b"y")

    def test_a_command_applied_twice(self, states):
        with pytest.raises(Violation, match="applied twice: at 1 and at 3"):
            states.applied(3, b"3", b"x")

    def test_another_state_at_one_index(self, states):
        with pytest.raises(Violation, match="b at index 5 is at state 1, elsewhere at state 2"):
            states.at_index(5, 1, b"1", "b")

    def test_a_state_out_of_nowhere(self, states):
        with pytest.raises(Violation, match="nobody applied"):
            states.at_index(6, 2, b"other", "b")


class TestHistory:
    @pytest.fixture
    def history(self):
        return History()

    def test_a_good_history(self, history):
        write, barrier = history.begin(b"x"), history.begin(None)
        history.applied(write, 2, 2, b"..x..")
        history.applied(barrier, 1, 1, None)
        later = history.begin(None)
        history.applied(later, 2, 2, None)
        states = States()
        states.applied(1, b"1", b"x")
        history.finish(states)
        assert (history.acknowledged, history.barriers) == (1, 2)

    def test_a_write_placed_before_one_that_was_acknowledged_before_it_began(self, history):
        history.applied(history.begin(b"x"), 7, 7, b"x")
        late = history.begin(b"y")
        with pytest.raises(Violation, match="operation 1 is at index 6, 7 had been acknowledged before"):
            history.applied(late, 6, 9, b"y")

    def test_a_stale_read(self, history):
        history.applied(history.begin(b"x"), 7, 7, b"x")
        with pytest.raises(Violation, match="barrier 1 shows index 6"):
            history.applied(history.begin(None), 6, 6, None)

    def test_reads_that_go_back(self, history):
        history.applied(history.begin(None), 3, 9, None)
        with pytest.raises(Violation, match="barrier 1 shows index 8"):
            history.applied(history.begin(None), 8, 8, None)

    def test_a_write_placed_before_what_had_been_read(self, history):
        history.applied(history.begin(None), 9, 9, None)
        with pytest.raises(Violation, match="at index 9"):
            history.denied(history.begin(b"x"), 9, b"x")

    def test_an_acknowledgement_before_the_view_has_it(self, history):
        with pytest.raises(Violation, match="the view is at 6"):
            history.applied(history.begin(b"x"), 7, 6, b"x")

    def test_an_acknowledgement_of_another_command(self, history):
        with pytest.raises(Violation, match="which holds b'y'"):
            history.applied(history.begin(b"x"), 7, 7, b"y")

    def test_a_command_at_two_places(self, history):
        write = history.begin(b"x")
        history.applied(write, 7, 7, b"x")
        history.retry(write)
        history.applied(write, 7, 9, b"x")
        with pytest.raises(Violation, match="at index 7 and at 8"):
            history.applied(write, 8, 9, b"x")

    def test_a_lost_acknowledgement(self, history):
        history.applied(history.begin(b"x"), 7, 7, b"x")
        with pytest.raises(Violation, match="acknowledged and is lost"):
            history.finish(States())

    def test_a_command_that_was_to_enter_no_log(self, history):
        write = history.begin(b"x")
        history.never(write)
        history.finish(States())
        states = States()
        states.applied(1, b"1", b"x")
        history.retry(write)
        history.finish(states)
        history.never(write)
        with pytest.raises(Violation, match="was said to never enter"):
            history.finish(states)


class TestRecovered:
    durable = Held("r1", "g", 0, 3, "a", 4, (1, 3), 4)
    attempted = replace(durable, term=4, vote="b", terms=(1, 3, 4))

    @pytest.mark.parametrize("found", [durable, attempted])
    def test_one_of_the_two_comes_back(self, found):
        recovered(found, (self.durable, self.attempted), "a")

    @pytest.mark.parametrize(
        "change",
        [{"term": 2}, {"vote": None}, {"terms": (1,)}, {"terms": (1, 2)}, {"replica_id": "r2"}, {"cluster_id": ""}],
        ids=str,
    )
    def test_anything_else_is_noticed(self, change):
        with pytest.raises(Violation, match="came back"):
            recovered(replace(self.durable, **change), (self.durable, self.attempted), "a")

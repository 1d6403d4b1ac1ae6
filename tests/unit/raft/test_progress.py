"""What a leader knows of one peer, and which of its messages a majority has followed."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raft.progress import Parts, Progress, confirmed, majority_of

NEVER = 0


def answered(*stamps):
    return [Progress("id", 2, answered=stamp) for stamp in stamps]


# -- who has followed ----------------------------------------------------------------------------------


def test_a_majority_counts_the_leader_itself():
    assert confirmed(answered(5, NEVER), 2) == 5
    assert confirmed(answered(5, 9), 2) == 9
    assert confirmed(answered(5, 9, 7, NEVER), 3) == 7


def test_nothing_is_confirmed_before_a_majority_has_answered():
    assert confirmed(answered(NEVER, NEVER), 2) is None
    assert confirmed(answered(5, NEVER, NEVER, NEVER), 3) is None
    assert confirmed([], 2) is None


def test_with_a_majority_of_one_there_is_nobody_to_ask():
    assert confirmed([], 1) is None


@given(st.lists(st.integers(0, 9), max_size=7))
def test_what_is_confirmed_a_majority_has_answered(stamps):
    majority = majority_of(["leader", *map(str, range(len(stamps)))])
    reached = confirmed(answered(*stamps), majority)
    followed = 1 + sum(stamp >= (reached or 10) for stamp in stamps)
    assert reached is None or followed >= majority
    assert reached is not None or majority == 1 or 1 + sum(stamp > 0 for stamp in stamps) < majority


@given(st.sets(st.integers(0, 20)))
def test_two_majorities_of_the_same_voters_meet(voters):
    assert 2 * majority_of(voters) > len(voters)


# -- what it has ---------------------------------------------------------------------------------------


def test_a_success_ends_probing():
    progress = Progress("id", 10)
    progress.accept(6, last_index=20)
    assert (progress.match_index, progress.next_index, progress.probing) == (5, 10, False)


def test_an_older_success_takes_nothing_back():
    progress = Progress("id", 2)
    progress.accept(9, last_index=20)
    progress.accept(4, last_index=20)
    assert (progress.match_index, progress.next_index) == (8, 9)


def test_a_success_claims_no_more_than_there_is():
    progress = Progress("id", 2)
    progress.accept(900, last_index=20)
    assert (progress.match_index, progress.next_index) == (20, 21)


def test_a_refusal_turns_back_and_asks_one_thing_at_a_time():
    progress = Progress("id", 10, probing=False)
    progress.refuse(4, sent=7, now=9, last_index=20)
    assert (progress.next_index, progress.probing, progress.turned) == (4, True, 9)


def test_d7_later_refusals_of_one_flight_change_nothing():
    progress = Progress("id", 10, probing=False)
    progress.refuse(4, sent=7, now=9, last_index=20)
    progress.refuse(5, sent=8, now=10, last_index=20)
    progress.refuse(6, sent=9, now=11, last_index=20)
    assert progress.next_index == 4
    progress.refuse(3, sent=12, now=13, last_index=20)
    assert progress.next_index == 3


def test_a_refusal_never_turns_back_before_the_first_entry_nor_past_the_last():
    progress = Progress("id", 10)
    progress.refuse(0, sent=1, now=2, last_index=20)
    assert progress.next_index == 2
    progress.refuse(900, sent=3, now=4, last_index=20)
    assert progress.next_index == 21


def test_who_refuses_what_it_had_acknowledged_has_lost_it():
    progress = Progress("id", 2)
    progress.accept(10, last_index=20)
    progress.refuse(4, sent=5, now=6, last_index=20)
    assert progress.match_index == 3


def test_where_to_go_on_is_no_word_of_what_it_has():
    """Whoever refuses names the end of its log, and nobody knows whether that is the leader's log."""
    progress = Progress("id", 21)
    progress.refuse(10, sent=5, now=6, last_index=20)
    assert (progress.next_index, progress.match_index) == (10, 0)


def test_a_refusal_does_not_end_a_snapshot_and_a_success_does():
    progress = Progress("id", 2, parts=Parts(9, b"packed"))
    progress.refuse(2, sent=5, now=6, last_index=20)
    assert progress.parts is not None
    progress.accept(10, last_index=20)
    assert progress.parts is None


def test_a_new_connection_sends_again_what_was_not_acknowledged():
    progress = Progress("id", 2, parts=Parts(9, b"packed"))
    progress.accept(10, last_index=20)
    progress.next_index = 21
    progress.restart()
    assert (progress.next_index, progress.probing, progress.probed, progress.parts) == (10, True, False, None)


def test_a_new_connection_to_who_has_not_answered_yet_changes_nothing():
    progress = Progress("id", 15)
    progress.restart()
    assert (progress.next_index, progress.match_index) == (15, 0)


class Flight(RuleBasedStateMachine):
    """A leader that sends ahead, and a follower whose answers come late, twice, or not at all."""

    LAST = 12

    def __init__(self):
        super().__init__()
        self.stamp = 0
        self.held = 1
        self.progress = Progress("id", self.LAST + 1)
        self.answers = []

    @rule(count=st.integers(0, 4), arrives=st.booleans())
    def send(self, count, arrives):
        self.stamp += 1
        previous = self.progress.next_index - 1
        last = min(previous + count, self.LAST)
        if not self.progress.probing:
            self.progress.next_index = last + 1
        if not arrives:
            return
        if previous > self.held:
            self.answers.append((False, self.held + 1, self.stamp))
        else:
            self.held = max(self.held, last)
            self.answers.append((True, last + 1, self.stamp))

    @precondition(lambda self: self.answers)
    @rule(place=st.integers(0, 50), again=st.booleans())
    def answer(self, place, again):
        place %= len(self.answers)
        success, next_index, sent = self.answers[place] if again else self.answers.pop(place)
        if success:
            self.progress.accept(next_index, self.LAST)
        else:
            self.stamp += 1
            self.progress.refuse(next_index, sent, self.stamp, self.LAST)

    @rule()
    def reconnect(self):
        self.progress.restart()

    @invariant()
    def never_counts_what_the_follower_does_not_have(self):
        assert self.progress.match_index <= self.held
        assert self.progress.match_index < self.progress.next_index <= self.LAST + 1

    def teardown(self):
        """Once nothing is lost any more, the follower gets everything."""
        self.progress.restart()
        for _ in range(2 * self.LAST):
            self.answers.clear()
            self.send(4, True)
            self.answer(0, False)
        assert self.progress.match_index == self.held == self.LAST


TestFlight = Flight.TestCase
TestFlight.settings = settings(max_examples=40, stateful_step_count=30)

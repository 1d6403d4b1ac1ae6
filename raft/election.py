"""Elections: asking first, voting once a term, and keeping still while somebody leads.

PySyncObj begins an election in its tick when its own deadline has passed. That deadline lies in eternity, and is set
only when a pre-vote has been won: no timer is ever compared in two places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.compat import CANDIDATE, FOLLOWER, LEADER
from raft.messages import AskPreVote, AskVote, PreVote, TimeoutNow, Vote
from raft.progress import majority_of

if TYPE_CHECKING:
    from raft.core import Core

NEVER_S = 2.0**40
_NO_ROUND = -1
"""No answer bears this number."""


class Election:
    """When this replica asks for votes, and to whom it gives its own."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._journal = core.journal
        self._inside = core.inside
        self._settings = core.settings
        self._clock = core.clock
        self._pre_votes: tuple[int, set[str]] = (_NO_ROUND, set())
        self._votes: tuple[int, set[str]] = (0, set())
        self.transferred = False
        """The leader has asked for the election that is at hand."""
        self.deadline_s = self._clock() + self._draw_timeout_s()

    def receive(self, peer: str, message: AskPreVote | PreVote | AskVote | Vote | TimeoutNow) -> None:
        match message:
            case AskPreVote():
                self._on_ask_pre_vote(peer, message)
            case PreVote():
                self._on_pre_vote(peer, message)
            case AskVote():
                self._on_ask_vote(peer, message)
            case Vote():
                self._on_vote(peer, message)
            case TimeoutNow():
                self._on_timeout_now(peer, message)

    def postpone(self) -> None:
        self.deadline_s = self._clock() + self._draw_timeout_s()

    def consider(self) -> None:
        """Ask first whether an election would be won (pre-vote, D19): a node that was cut off deposes nobody."""
        if self._clock() < self.deadline_s:
            return
        self.postpone()
        if not self._core.votes:
            return
        self._pre_votes = (self._core.next_stamp(), {self._core.name})
        if self._majority(self._pre_votes[1]):
            self._campaign()
            return
        number, journal = self._pre_votes[0], self._journal
        for peer in self._others():
            self._core.post(peer, AskPreVote(*self._core.envelope(), number, journal.last_index, journal.last_term))

    def _campaign(self) -> None:
        """Let PySyncObj's next tick, which is at hand, begin an election."""
        self._pre_votes = (_NO_ROUND, set())
        self._inside.election_deadline = -1.0
        self.postpone()

    def stay(self) -> None:
        """Somebody leads, or may soon: no election from here for now."""
        self.call_off()
        self.transferred = False
        self.postpone()

    def call_off(self) -> None:
        """Begin no election that was about to begin; pre-votes still on their way are for a time that is over."""
        self._inside.election_deadline = NEVER_S
        self._pre_votes = (_NO_ROUND, set())

    def _others(self) -> list[str]:
        return sorted(self._core.members.current.voters - {self._core.name})

    def _majority(self, names: set[str]) -> bool:
        voters = self._core.members.current.voters
        return len(names & voters) >= majority_of(voters)

    def _on_ask_pre_vote(self, peer: str, message: AskPreVote) -> None:
        granted = (
            message.term >= self._inside.term
            and self._is_up_to_date(message.last_term, message.last_index)
            and not self._hears_leader()
        )
        self._core.post(peer, PreVote(*self._core.envelope(), message.number, granted))

    def _on_pre_vote(self, peer: str, message: PreVote) -> None:
        inside = self._inside
        if message.term > inside.term and not message.granted:
            self._core.step_down(message.term)
        number, granted = self._pre_votes
        if inside.state == LEADER or message.number != number or not message.granted:
            return
        if message.term <= inside.term and self._core.is_voter(peer, message):
            granted.add(peer)
            if self._majority(granted):
                self._campaign()

    def ask_vote(self, peer: str) -> None:
        """PySyncObj has begun an election and asks each voter."""
        journal = self._journal
        self._core.post(peer, AskVote(*self._core.envelope(), journal.last_index, journal.last_term, self.transferred))

    def _on_ask_vote(self, peer: str, message: AskVote) -> None:
        inside, journal = self._inside, self._journal
        if message.term > inside.term:
            if self._hears_leader() and not message.transfer:
                return  # stickiness: whoever hears a leader does not help to depose it
            self._core.step_down(message.term)
        granted = (
            message.term == inside.term
            and inside.state == FOLLOWER
            and journal.vote in {None, message.replica}
            and self._is_up_to_date(message.last_term, message.last_index)
        )
        if granted:
            inside.set_term(message.term, message.replica)
            self.stay()
        self._core.post(peer, Vote(*self._core.envelope(), message.term, granted))

    def _on_vote(self, peer: str, message: Vote) -> None:
        inside = self._inside
        if message.term > inside.term:
            self._core.step_down(message.term)
        if inside.state != CANDIDATE or message.for_term != inside.term or not message.granted:
            return
        if not self._core.is_voter(peer, message):
            return
        if self._votes[0] != inside.term:
            self._votes = (inside.term, {self._core.name})
        self._votes[1].add(peer)  # by voter, not by message
        if self._majority(self._votes[1]):
            inside.become_leader()

    def _on_timeout_now(self, peer: str, message: TimeoutNow) -> None:
        inside = self._inside
        led = inside.leader is not None and inside.leader.id == peer and message.term == inside.term
        if led and inside.state == FOLLOWER and self._core.votes:
            self.transferred = True
            self._campaign()

    def _is_up_to_date(self, last_term: int, last_index: int) -> bool:
        return (last_term, last_index) >= (self._journal.last_term, self._journal.last_index)

    def _hears_leader(self) -> bool:
        """A leader hears a majority, else PySyncObj's tick would have ended its leadership (check-quorum)."""
        if self._inside.state == LEADER:
            return True
        heard_s = self._core.heard_s
        return heard_s is not None and self._clock() - heard_s < self._settings.election_min_s

    def _draw_timeout_s(self) -> float:
        return self._core.draw.uniform(self._settings.election_min_s, self._settings.election_max_s)

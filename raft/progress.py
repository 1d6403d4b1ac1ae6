"""The leader's view of its peers: what each one has, and what it is sent next.

Holds values and answers values; the sending itself is the core's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Parts:
    """A snapshot on its way to one peer, a part at a time."""

    index: int
    packed: bytes
    held: int = 0
    """Bytes that the peer has."""
    sent_s: float | None = None
    """When the part at `held` left; None when it has not."""


@dataclass(slots=True)
class Progress:
    """One peer, in one term of this leader."""

    replica: str
    """Its replica id: what another replica of the same name says counts for nothing here."""
    next_index: int
    match_index: int = 0
    probing: bool = True
    """Until an answer shows what it has, one message at a time; afterwards entries are sent ahead of answers."""
    probed: bool = False
    """That one message has left."""
    answered: int = 0
    """The latest of this leader's messages that it has answered: proof that it followed when that was sent."""
    turned: int = 0
    """Refusals of messages up to this one belong to a flight that has been turned back already (D7)."""
    parts: Parts | None = None

    def restart(self) -> None:
        """A new connection: what left on the old one may be lost. Where nothing is known, the next answer will tell."""
        if self.match_index > 0:
            self.next_index = self.match_index + 1
        self.probing, self.probed, self.parts = True, False, None

    def accept(self, next_index: int, last_index: int) -> None:
        """Everything below `next_index` is on its disk; it can claim no more than this leader has."""
        known = min(next_index, last_index + 1)
        self.match_index = max(self.match_index, known - 1)
        self.next_index = max(self.next_index, known)
        self.probing, self.probed, self.parts = False, False, None

    def refuse(self, next_index: int, sent: int, now: int, last_index: int) -> None:
        """It lacks what came before the message `sent`. Only the first refusal of a flight turns the sender back."""
        if sent <= self.turned or self.parts is not None:
            return
        self.next_index = max(2, min(next_index, last_index + 1))
        self.match_index = min(self.match_index, self.next_index - 1)
        self.probing, self.probed = True, False
        self.turned = now


def confirmed(progress: Iterable[Progress], majority: int) -> int | None:
    """The latest message that a majority, this leader included, is known to have followed; None before the first.

    With a majority of one there is nobody to ask: the answer is None, and the caller needs none.
    """
    answered = sorted((peer.answered for peer in progress), reverse=True)
    if majority < 2 or len(answered) < majority - 1:
        return None
    return answered[majority - 2] or None


def majority_of(voters: Collection[str]) -> int:
    return len(voters) // 2 + 1

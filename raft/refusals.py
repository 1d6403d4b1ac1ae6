"""Who was not let in, and why: counted always, told once.

Whoever reaches the port can make as many refusals as it likes, of as many kinds and from as many addresses as it likes.
So what is remembered is bounded, and what is told is bounded by it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

Reason: TypeAlias = Literal[
    "certificate",
    "cluster",
    "crowded",
    "defect",
    "double",
    "identity",
    "junk",
    "protocol",
    "refused",
    "silent",
    "stranger",
    "tls",
]
"""certificate: none, expired, or of an authority we do not trust. cluster: another cluster, or an incarnation of ours
that is over. crowded: too many connections. defect: a failure of our own on its account. double: a second process under
one name. identity: another member than it says, or than was looked for. junk: bytes that are no message with a place
here. protocol: another version. refused: by the other side, which says why. silent: nothing whole in time. stranger: no
member. tls: no TLS, or none with us."""

REASONS: tuple[Reason, ...] = get_args(Reason)
MEMORY_LIMIT = 256
FORGET_S = 600.0
"""What has not happened for this long is news when it happens again, once its place is needed."""
_WORDS_LIMIT = 400


class RefusedError(Exception):
    """The other side will not talk to us or we will not talk to it; the message is for people."""

    def __init__(self, reason: Reason, words: str, peer: str | None = None) -> None:
        super().__init__(printable(words))
        self.reason = reason
        self.peer = peer
        """The member that it concerns; None for whoever is none."""


class RefusedByPeerError(RefusedError):
    """The other side will not talk to us, and has said why."""

    def __init__(self, words: str, *, no_member: bool) -> None:
        super().__init__("refused", f"refused us: {words}")
        self.words = printable(words)
        self.no_member = no_member
        """It does not count us to its group, or not any more."""


class Refusals:
    """Counts by reason, and the first of each peer and reason told. Any thread."""

    def __init__(self, on_refused: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._on_refused = on_refused
        self._clock = clock
        self._mutex = threading.Lock()
        self._counts: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._peers: set[tuple[str, Reason]] = set()
        self._strangers: dict[tuple[str, Reason], float] = {}
        """When it last happened; what is longest ago comes first."""

    def note(self, error: RefusedError, host: str) -> None:
        """`host` names who is no peer."""
        who = error.peer or host
        with self._mutex:
            self._counts[error.reason] += 1
            news = self._is_news((who, error.reason), stranger=error.peer is None)
        if news:
            self._on_refused(who, str(error))

    def forget(self, peer: str) -> None:
        """All is well with it: the next refusal is news again."""
        with self._mutex:
            self._peers = {key for key in self._peers if key[0] != peer}

    def counts(self) -> Mapping[Reason, int]:
        with self._mutex:
            return dict(self._counts)

    def _is_news(self, key: tuple[str, Reason], *, stranger: bool) -> bool:
        if not stranger:
            known = key in self._peers
            self._peers.add(key)
            return not known
        now_s = self._clock()
        known = self._strangers.pop(key, None) is not None
        if not known and not self._has_room(now_s):
            return False
        self._strangers[key] = now_s
        return not known

    def _has_room(self, now_s: float) -> bool:
        if len(self._strangers) < MEMORY_LIMIT:
            return True
        oldest = next(iter(self._strangers))
        if now_s - self._strangers[oldest] < FORGET_S:
            return False
        del self._strangers[oldest]
        return True


def printable(words: str) -> str:
    """What strangers say goes into logs and onto terminals: cut, and without what steers them."""
    cut = words if len(words) <= _WORDS_LIMIT else f"{words[:_WORDS_LIMIT]}…"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cut)

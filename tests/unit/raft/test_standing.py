"""What a replica makes of what its peers said when they refused it."""

from dataclasses import replace
from pathlib import Path

import pytest

from raft.api import HeardRefusal, PeerStatus, ReplicaConfig
from raft.clock import boottime_s
from raft.compat import FOLLOWER
from raft.core import Facts
from raft.standing import removed_by
from tests.unit.raft.bench import voters

CONFIG = ReplicaConfig("c", "n3", Path("unused"), "n3:1", {"n3": "n3:1"})
ALONE = Facts(FOLLOWER, 3, None, 9, 9, 9, None, {}, voters("n1", "n2", "n3"), votes=True)


def peer(name, *, no_member=None):
    heard = None if no_member is None else HeardRefusal("in words", 1000.0, no_member=no_member)
    return PeerStatus(name, f"{name}:1", False, None, None, None, heard)


NO_MEMBER = [peer("n1", no_member=True), peer("n2", no_member=True)]


def test_the_word_of_a_majority_counts_however_old_it_is():
    assert removed_by(CONFIG, ALONE, NO_MEMBER) == ("n1", "n2")


@pytest.mark.parametrize("other", [peer("n2"), peer("n2", no_member=False)], ids=["silent", "another reason"])
def test_what_one_of_two_says_is_not_enough(other):
    assert removed_by(CONFIG, ALONE, [peer("n1", no_member=True), other]) == ()


def test_who_hears_a_leader_is_a_member():
    """One that was added just now: others may have refused it a moment before they learned of it."""
    for silent_s, by in ((0.0, ()), (CONFIG.election_max_s / 2, ()), (CONFIG.election_max_s + 0.1, ("n1", "n2"))):
        assert removed_by(CONFIG, replace(ALONE, contact_s=boottime_s() - silent_s), NO_MEMBER) == by

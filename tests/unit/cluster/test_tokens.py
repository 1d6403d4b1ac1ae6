"""Join tokens: one member, one key, one lifetime; the secret is nowhere."""

import math
from dataclasses import replace

import pytest

from appliance.cluster.apply import apply
from appliance.cluster.commands import Announce, IssueToken, RemoveMember, RevokeToken, UseToken
from appliance.cluster.state import JoinToken, NodeRole
from appliance.cluster.tokens import LONGEST_S, TOKENS_LIMIT

from .building import member, state

NOW_S = 1_800_000_000.0
TOKEN = JoinToken("t1", "d1", "pg4", NodeRole.DATA, NOW_S + 3600)
ISSUE = IssueToken(TOKEN, NOW_S)
USE = UseToken("t1", "d1", "pg4", "key of pg4", NOW_S + 10)


def after(*commands, before=None):
    present = before or state()
    for command in commands:
        applied = apply(present, command)
        assert applied.refused is None, applied.refused
        present = applied.state
    return present


def code(before, command):
    applied = apply(before, command)
    assert applied.refused is None or applied.state is before
    return (applied.refused or "").partition(":")[0]


def test_a_token_serves_one_key_and_that_one_again():
    used = after(ISSUE, USE)

    assert used.tokens == (replace(TOKEN, used_by="key of pg4"),)
    assert after(USE, before=used) == used
    assert code(used, replace(USE, key="key of another")) == "token.used"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (replace(USE, id="t2"), "token.unknown"),
        (replace(USE, digest="d2"), "token.unknown"),
        (replace(USE, member="pg5"), "token.other_member"),
        (replace(USE, now_unix_s=TOKEN.expires_unix_s), "token.expired"),
        (replace(USE, now_unix_s=math.nan), "token.expired"),
        (RevokeToken("t2"), "token.unknown"),
        (ISSUE, "token.exists"),
        (replace(ISSUE, token=replace(TOKEN, id="t2", expires_unix_s=NOW_S)), "token.lifetime"),
        (replace(ISSUE, token=replace(TOKEN, id="t2", expires_unix_s=NOW_S + LONGEST_S + 1)), "token.lifetime"),
        (replace(ISSUE, token=replace(TOKEN, id="t2", expires_unix_s=math.inf)), "token.lifetime"),
        (replace(ISSUE, token=replace(TOKEN, id="t2"), now_unix_s=math.nan), "token.lifetime"),
        (replace(ISSUE, token=replace(TOKEN, id="t2", member="")), "token.incomplete"),
        (replace(ISSUE, token=replace(TOKEN, id="t2", digest="")), "token.incomplete"),
        (replace(ISSUE, token=replace(TOKEN, id="t2", used_by="x")), "token.incomplete"),
    ],
)
def test_what_is_refused(command, expected):
    assert code(after(ISSUE), command) == expected


def test_a_revoked_token_is_unknown():
    assert code(after(ISSUE, RevokeToken("t1")), USE) == "token.unknown"


def test_tokens_are_bounded_and_expired_ones_make_room():
    many = [replace(ISSUE, token=replace(TOKEN, id=f"t{number}")) for number in range(TOKENS_LIMIT)]
    full = after(*many)

    assert code(full, replace(ISSUE, token=replace(TOKEN, id="more"))) == "token.too_many"
    later_s = TOKEN.expires_unix_s
    more = IssueToken(replace(TOKEN, id="more", expires_unix_s=later_s + 60), later_s)
    assert [token.id for token in after(more, before=full).tokens] == ["more"]


def test_a_removed_member_comes_back_with_a_new_token_only():
    joined = after(ISSUE, USE, Announce(member("pg4")))
    removed = after(RemoveMember("pg4"), before=joined)

    assert code(removed, USE) == "token.unknown"
    assert code(removed, Announce(member("pg4"))) == "member.removed"
    back = after(ISSUE, USE, before=removed)
    assert back.removed == frozenset()
    assert code(back, Announce(member("pg4"))) == ""

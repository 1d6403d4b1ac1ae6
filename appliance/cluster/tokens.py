"""Join tokens: who may become a member, told apart by a secret that the state does not know.

The state keeps the SHA-256 of a token's secret. A token serves one member and one key: whoever repeats a request whose
answer was lost comes with the same key. Times are wall clocks of whoever proposes: they end a token, and nothing else.
"""

from dataclasses import replace

from appliance.cluster.commands import IssueToken, RevokeToken, UseToken
from appliance.cluster.state import ClusterState, JoinToken

TOKENS_LIMIT = 16
LONGEST_S = 7 * 86400


def issue(state: ClusterState, command: IssueToken) -> ClusterState | str:
    """Make a token valid; those that have expired go."""
    token, kept = command.token, _alive(state, command.now_unix_s)
    if not (token.id and token.digest and token.member) or token.used_by:
        return "token.incomplete: a token has an id, a digest and a member, and was never used"
    if not 0 < token.expires_unix_s - command.now_unix_s <= LONGEST_S:
        return f"token.lifetime: a token is valid for {LONGEST_S // 86400} days at most"
    if any(other.id == token.id for other in kept):
        return f"token.exists: there is a token {token.id}"
    if len(kept) >= TOKENS_LIMIT:
        return f"token.too_many: {TOKENS_LIMIT} tokens are valid; use them, or wait until they expire"
    return replace(state, tokens=(*kept, token))


def use(state: ClusterState, command: UseToken) -> ClusterState | str:
    """Bind a token to the key that came with it. A member that had been removed may announce itself again."""
    token = next((token for token in state.tokens if token.id == command.id), None)
    if token is None or token.digest != command.digest:
        return f"token.unknown: no token {command.id} with this secret is valid; make a new one with `members add`"
    if not token.expires_unix_s > command.now_unix_s:  # a time that is no number ends it too
        return f"token.expired: token {token.id} for {token.member} has expired; make a new one with `members add`"
    if token.member != command.member:
        return f"token.other_member: token {token.id} is for {token.member}, not for {command.member}"
    if token.used_by not in {"", command.key}:
        return f"token.used: token {token.id} for {token.member} was used before; make a new one with `members add`"
    used = replace(token, used_by=command.key)
    tokens = tuple(used if other.id == token.id else other for other in state.tokens)
    return replace(state, tokens=tokens, removed=state.removed - {token.member})


def revoke(state: ClusterState, command: RevokeToken) -> ClusterState | str:
    kept = tuple(token for token in state.tokens if token.id != command.id)
    if len(kept) == len(state.tokens):
        return f"token.unknown: there is no token {command.id}"
    return replace(state, tokens=kept)


def _alive(state: ClusterState, now_unix_s: float) -> tuple[JoinToken, ...]:
    return tuple(token for token in state.tokens if token.expires_unix_s > now_unix_s)

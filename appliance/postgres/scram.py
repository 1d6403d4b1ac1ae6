"""SCRAM-SHA-256 verifiers (RFC 5803, as PostgreSQL stores them), so that no password is ever part of a statement."""

import hmac
from base64 import b64encode
from hashlib import pbkdf2_hmac, sha256
from secrets import token_bytes

_ITERATIONS = 4096
"""PostgreSQL's own; the passwords are random, so more would only slow down each connection"""


def verifier(password: str, salt: bytes | None = None) -> str:
    """Raises ValueError for characters beyond printable ASCII, which would need SASLprep."""
    if not password or not all(" " <= character <= "~" for character in password):
        raise ValueError("a password here consists of printable ASCII characters, at least one")
    salt = salt or token_bytes(16)
    salted = pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored_key = sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    written = [b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{written[0]}${written[1]}:{written[2]}"

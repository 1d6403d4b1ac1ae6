"""The generated passwords of the appliance's own roles: one file of mode 0600, and a passfile for libpq."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from typing import Self

from appliance.postgres.errors import PostgresError
from appliance.postgres.files import write_atomically, write_if_changed

REPLICATION_ROLE = "appliance_replication"
REWIND_ROLE = "appliance_rewind"
_ENTROPY_BYTES = 24


@dataclass(frozen=True, slots=True)
class Credentials:
    """The same on every member: roles are replicated, so are their passwords."""

    replication: str = field(repr=False)
    rewind: str = field(repr=False)
    application: str | None = field(default=None, repr=False)

    @classmethod
    def generate(cls, *, application: bool = False) -> Self:
        return cls(
            token_urlsafe(_ENTROPY_BYTES),
            token_urlsafe(_ENTROPY_BYTES),
            token_urlsafe(_ENTROPY_BYTES) if application else None,
        )

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """None when there is no file; PostgresError when it cannot be read or understood."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise PostgresError(
                f"{path} cannot be read: {error}; copy that of another member, they are alike"
            ) from error

    def store(self, path: Path) -> None:
        write_atomically(path, json.dumps(self.to_json()) + "\n")

    def to_json(self) -> dict[str, str | None]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: object) -> Self:
        """Raises ValueError: nothing that a peer or a file says is taken for a password unseen."""
        match document:
            case {"replication": str(replication), "rewind": str(rewind), "application": str() | None as application}:
                return cls(replication, rewind, application)
            case _:
                raise ValueError("no credentials: 'replication', 'rewind' and 'application' are expected as text")


def write_passfile(path: Path, credentials: Credentials) -> bool:
    """For `passfile=` in connection strings; whether it changed. libpq ignores it unless its mode is 0600."""
    roles = {REPLICATION_ROLE: credentials.replication, REWIND_ROLE: credentials.rewind}
    return write_if_changed(path, "".join(f"*:*:*:{role}:{_escaped(secret)}\n" for role, secret in roles.items()))


def _escaped(secret: str) -> str:
    return secret.replace("\\", "\\\\").replace(":", "\\:")

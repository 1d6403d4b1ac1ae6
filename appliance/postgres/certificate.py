"""The member's certificate as PostgreSQL's server uses it: files that it reads at a start and at every reload."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_IMODE
from typing import Self

from appliance.postgres.errors import SettingsError

CONTROLLED_WITH_TLS = frozenset({"ssl", "ssl_ca_file", "ssl_cert_file", "ssl_key_file"})
"""What is the appliance's to set when the member has a certificate, and the configuration's when it has none."""
_OTHERS, _OTHERS_OF_ROOT = 0o077, 0o037


@dataclass(frozen=True, slots=True)
class Certificate:
    ca: Path
    """the authorities that a client's certificate may come from; servers of members are verified with it too"""
    cert: Path
    key: Path
    version: str = ""
    """another one after each replacement of a file: then PostgreSQL needs a reload"""

    @classmethod
    def found(cls, ca: Path, cert: Path, key: Path) -> Self:
        """As the files are now."""
        return cls(ca, cert, key, " ".join(_version(path) for path in (ca, cert, key)))

    @classmethod
    def from_json(cls, document: Mapping[str, str]) -> Self:
        return cls(Path(document["ca"]), Path(document["cert"]), Path(document["key"]), document["version"])

    def parameters(self) -> dict[str, str]:
        return {
            "ssl": "on",
            "ssl_ca_file": str(self.ca),
            "ssl_cert_file": str(self.cert),
            "ssl_key_file": str(self.key),
        }

    def check(self, uid: int | None = None) -> None:
        """Raises SettingsError for a key that PostgreSQL would not take when it runs as this user, else the present.

        A start fails with its words; at a reload they are in its log only, and it goes on with the old certificate,
        or with none.
        """
        uid = os.geteuid() if uid is None else uid
        try:
            found = self.key.stat()
        except OSError as error:
            raise SettingsError(f"tls.key: {self.key}: {(error.strerror or str(error)).lower()}") from error
        if found.st_uid not in {0, uid}:
            raise SettingsError(f"tls.key: {self.key} belongs to another user; PostgreSQL wants it to be its own")
        mode = S_IMODE(found.st_mode)
        if mode & (_OTHERS if found.st_uid == uid else _OTHERS_OF_ROOT):
            raise SettingsError(f"tls.key: {self.key} has mode {mode:04o}, which PostgreSQL refuses; make it 0600")


def _version(path: Path) -> str:
    """By the time of change, not of modification: a mended mode counts, and so does a copy that keeps its times."""
    try:
        found = path.stat()
    except OSError:
        return "missing"
    return f"{found.st_ino}.{found.st_size}.{found.st_ctime_ns}"

"""Where PostgreSQL listens on its own host: the name is PostgreSQL's, the limit is the kernel's."""

from pathlib import Path

PATH_LIMIT_BYTES = 107
"""https://man7.org/linux/man-pages/man7/unix.7.html: 108, of which the last is zero"""


def socket_file(directory: Path, port: int) -> Path:
    """https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-UNIX-SOCKET-DIRECTORIES"""
    return directory / f".s.PGSQL.{port}"

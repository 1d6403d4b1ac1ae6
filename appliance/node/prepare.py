"""What a node needs before it runs: its directories, its notes, PostgreSQL's programs, a token.

What is wrong with one of them ends the process with one line: what, which value, what would do.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.cluster.state import NodeRole
from appliance.node.config import NodeConfig
from appliance.node.config_parameters import refused_locally
from appliance.node.local import state_directories
from appliance.node.notes import NotesFile
from appliance.node.witness import NO_PROGRAMS, objection
from appliance.postgres.binaries import Binaries, find
from appliance.postgres.files import write_atomically
from appliance.postgres.incarnation import forget_incarnation, read_incarnation


class StartError(Exception):
    """The node cannot start: says what, which value, and what would do."""


@contextmanager
def starting(config: NodeConfig) -> Iterator[None]:
    """What the file system refuses before the node runs is the reason in one line, not a defect."""
    try:
        yield
    except OSError as error:
        where = error.filename or f"state_dir {config.state_dir}"
        raise StartError(f"cannot start: {where}: {error.strerror or error}") from error


def make_directories(config: NodeConfig) -> None:
    for directory in state_directories(config):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(13, "not writable")
        except (FileExistsError, NotADirectoryError) as error:
            raise StartError(f"{directory}: a file stands there or on the way: move it, or set state_dir") from error
        except OSError as error:
            user = os.geteuid()
            raise StartError(
                f"{directory}: {error.strerror} for uid {user}: create it and give it to that user, or set state_dir"
            ) from error


def open_notes(config: NodeConfig) -> NotesFile:
    """R6, R13: notes that are gone may have held a pledge, so the data directory is no voter's any more.

    A witness pledges nothing, and makes no file that would look like notes that were kept.
    """
    path = config.state_dir / "notes.json"
    if config.role is NodeRole.WITNESS:
        return NotesFile(path)
    if not path.exists():
        forget_incarnation(config.postgresql.data_dir)
    notes = NotesFile(path)
    notes.create(read_incarnation(config.postgresql.data_dir).recovery)
    return notes


def find_programs(config: NodeConfig) -> Binaries:
    """PostgreSQL on this host, which takes the values of the node's file. Raises StartError, PostgresError."""
    if config.role is NodeRole.WITNESS:
        if (reason := objection(config)) is not None:
            raise StartError(reason)
        return NO_PROGRAMS
    binaries = find(config.postgresql.bin_dir)
    refused = refused_locally(binaries, config)
    if refused:
        raise StartError("\n".join(refused))
    return binaries


def api_token(path: Path) -> str:
    """The token that lets one change something over TCP; made at the first start, mode 0600."""
    try:
        if not path.exists():
            write_atomically(path, secrets.token_urlsafe(24) + "\n")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is no text"
        raise StartError(f"http.token_file: {path}: {why}; remove it, a new one is made") from error
    if not token:
        raise StartError(f"http.token_file: {path}: is empty; write a token into it, or remove it: a new one is made")
    return token

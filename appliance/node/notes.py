"""What a node must not forget over a restart, in a file beside its state."""

import json
import secrets
from dataclasses import replace
from pathlib import Path

from appliance.cluster.codec import from_json, to_json
from appliance.ha.seen import Notes
from appliance.postgres.files import write_atomically
from appliance.postgres.incarnation import Incarnation

ASIDE = "{}.before-recovery-{}{}"


class NotesError(Exception):
    """The notes cannot be read. A pledge may be lost with them, so the node does not go on (R6, R13)."""


class NotesFile:
    """One writer, the control loop. `value` is what is on the disk, and the last fence in any case."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.value = self._written = self._read()

    def _read(self) -> Notes:
        try:
            notes: Notes = from_json(Notes, json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            return Notes()
        except (ValueError, OSError) as error:
            raise NotesError(
                f"{self._path}: {error}; its pledges are lost: remove it together with the data directory,"
                " then this node clones the cluster anew"
            ) from error
        return notes

    def create(self, recovery: int = 0) -> None:
        """Make the file at the first start, so that its absence later means that it was lost.

        They begin after the recovery that the data beside them is of (R13a).
        """
        if not self._path.exists():
            self.value = self._written = Notes(recovery=recovery)
            write_atomically(self._path, json.dumps(to_json(self.value), indent=1))

    def begin_anew(self, recovery: int) -> None:
        """R13a: keep what they say beside them, and note nothing of it any more. Repeated when it was not ended."""
        kept = self._path.with_name(ASIDE.format(self._path.stem, recovery, self._path.suffix))
        write_atomically(kept, json.dumps(to_json(self.value), indent=1))
        self.write(Notes(recovery=recovery))

    def write(self, notes: Notes) -> None:
        """On return the notes are on the disk; nothing that depends on them was done before."""
        if notes != self._written:
            write_atomically(self._path, json.dumps(to_json(notes), indent=1))
            self.value = self._written = notes

    def end_epoch(self, epoch: int) -> None:
        """R4: this epoch is over for this node, from now on; on return that is on the disk.

        Where it cannot be written (a full disk) this node process keeps to it all the same: it asks for no renewal any
        more, so that the lease runs out and others are elected. Only the epoch must not be given back before that is
        on the disk: the next process would not know, and could resume it while the release is on its way.
        """
        self.value = replace(self.value, fenced_epoch=max(epoch, self.value.fenced_epoch))
        self.write(self.value)


def new_incarnation(recovery: int) -> Incarnation:
    """Of a data directory that is made in the history that began with this recovery."""
    return Incarnation(secrets.token_hex(8), recovery)

"""The child process of a job: `python -m appliance.postgres.task DIRECTORY`. Imports what its job needs, no more."""

import sys
from pathlib import Path
from typing import assert_never

from appliance.postgres.errors import PostgresError, PostgresUnreachable, RewindError
from appliance.postgres.jobs import SPEC_FILE, TOLD_FILE
from appliance.postgres.progress import Progress
from appliance.postgres.specs import Clone, Discard, Initialise, Rewind, Spec, decode


def main(directory: Path) -> int:
    spec_file = directory / SPEC_FILE
    spec = decode(spec_file.read_text())
    spec_file.unlink()  # it may hold passwords
    progress = Progress(directory / TOLD_FILE)
    try:
        _perform(spec, progress)
    except RewindError as error:
        progress.failed(str(error), needs_clone=error.needs_clone, source_away=not error.needs_clone)
    except PostgresUnreachable as error:
        progress.failed(str(error), source_away=True)
    except (PostgresError, OSError, ValueError) as error:
        progress.failed(str(error))
    else:
        progress.done()
        return 0
    return 1


def _perform(spec: Spec, progress: Progress) -> None:
    match spec:
        case Initialise():
            from appliance.postgres.initialise import initialise

            initialise(spec, progress)
        case Clone():
            from appliance.postgres.clone import clone

            clone(spec, progress)
        case Rewind():
            from appliance.postgres.rewind import rewind

            rewind(spec, progress)
        case Discard():
            from appliance.postgres.copies import discard_replaced

            discard_replaced(spec.data_dir)
        case _:
            assert_never(spec)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

from dataclasses import replace
from pathlib import Path

import pytest

from appliance.postgres.binaries import Binaries
from appliance.postgres.certificate import Certificate
from appliance.postgres.credentials import Credentials
from appliance.postgres.incarnation import Incarnation
from appliance.postgres.progress import Progress, Told, read_told
from appliance.postgres.settings import Settings
from appliance.postgres.specs import Clone, Discard, InitdbOptions, Initialise, Rewind, decode, encode

BINARIES = Binaries(Path("/b"), "15.1", 15)
SETTINGS = Settings("pg1", 5432, Path("/run"), parameters={"work_mem": "1MB"}, hba=("local all all reject",))
SECURED = replace(SETTINGS, certificate=Certificate(Path("/ca"), Path("/cert"), Path("/key"), "1.2.3"))


@pytest.mark.parametrize(
    "spec",
    [
        Initialise(BINARIES, Path("/d"), Credentials("a", "b")),
        Initialise(BINARIES, Path("/d"), Credentials("a", "b", "c"), "app", "db", Path("/w"), InitdbOptions("C")),
        Initialise(BINARIES, Path("/d"), Credentials("a", "b"), settings=SETTINGS, incarnation=Incarnation("inc", 7)),
        Initialise(BINARIES, Path("/d"), Credentials("a", "b"), settings=SECURED),
        Clone(BINARIES, Path("/d"), "host=x", "host=y", incarnation=Incarnation("inc", 7)),
        Clone(BINARIES, Path("/d"), "host=x", "host=y", wal_dir=Path("/w"), slot="pg1"),
        Rewind(BINARIES, Path("/d"), "host=x", 3, Incarnation("inc", 7)),
        Discard(Path("/d")),
    ],
    ids=lambda spec: type(spec).__name__,
)
def test_a_spec_travels_whole(spec):
    assert decode(encode(spec)) == spec


def test_what_was_told_last_is_read(tmp_path):
    path = tmp_path / "told.json"
    assert read_told(path) == Told()
    progress = Progress(path)
    progress.phase("copying", 1, 9)
    progress.bytes(5, 9)  # too soon after the last to be written
    assert read_told(path) == Told("copying", 1, 9)
    progress.failed("no space", needs_clone=True)
    assert read_told(path) == Told("copying", 5, 9, ended=True, error="no space", needs_clone=True)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"later": 1}', '"x"', "null"])
def test_a_file_of_another_version_tells_nothing(tmp_path, text):
    path = tmp_path / "told.json"
    path.write_text(text)
    assert read_told(path) == Told()

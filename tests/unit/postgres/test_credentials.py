import json

import pytest

from appliance.postgres.credentials import Credentials, write_passfile
from appliance.postgres.scram import verifier


def test_they_are_stored_for_the_owner_only_and_read_back(tmp_path):
    path = tmp_path / "credentials.json"
    path.write_text("an older one, readable by all")
    path.chmod(0o644)
    made = Credentials.generate(application=True)
    made.store(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Credentials.load(path) == made
    assert Credentials.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert len({made.replication, made.rewind, made.application}) == 3


def test_no_file_is_no_credentials(tmp_path):
    assert Credentials.load(tmp_path / "credentials.json") is None


@pytest.mark.parametrize(
    "document", [None, [], {}, {"replication": "a"}, {"replication": 1, "rewind": "b", "application": None}]
)
def test_anything_else_is_refused(document):
    with pytest.raises(ValueError, match="no credentials"):
        Credentials.from_json(document)


def test_they_do_not_show_in_a_log():
    made = Credentials("first", "second", "third")
    assert repr(made) == "Credentials()"


def test_the_passfile_names_the_own_roles_and_changes_only_with_them(tmp_path):
    path = tmp_path / "pgpass"
    assert write_passfile(path, Credentials("a:b\\c", "d"))
    assert not write_passfile(path, Credentials("a:b\\c", "d"))
    assert path.read_text() == "*:*:*:appliance_replication:a\\:b\\\\c\n*:*:*:appliance_rewind:d\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_verifier_is_the_one_of_rfc_7677():
    from base64 import b64decode

    assert verifier("pencil", b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


@pytest.mark.parametrize("password", ["", "pässword", "line\nbreak"])
def test_a_password_that_would_need_preparation_is_refused(password):
    with pytest.raises(ValueError, match="printable ASCII"):
        verifier(password)

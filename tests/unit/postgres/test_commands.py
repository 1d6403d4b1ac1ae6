import sys
import time

import pytest

from appliance.postgres.commands import environment, run, stream
from appliance.postgres.errors import PostgresError


def python(code):
    return [sys.executable, "-I", "-c", code]


def test_a_failure_has_the_exit_and_the_last_lines():
    with pytest.raises(PostgresError, match=r"ended with 3: .*line 19") as failed:
        run(python("import sys; [print('line', n) for n in range(20)]; sys.exit(3)"), limit_s=20)
    assert failed.value.exit_code == 3
    assert "line 1;" not in str(failed.value)


def test_no_command_outlasts_its_limit():
    began_s = time.monotonic()
    with pytest.raises(PostgresError, match=r"no end after 0\.2 s"):
        run(["sleep", "60"], limit_s=0.2)
    assert time.monotonic() - began_s < 5


def test_a_program_that_cannot_start_is_told(tmp_path):
    with pytest.raises(PostgresError, match="cannot be started: No such file"):
        run([str(tmp_path / "postgres")], limit_s=1)


def test_every_line_of_a_long_tool_is_handed_on_carriage_returns_and_a_torn_end_included():
    lines = []
    code = "import sys; sys.stderr.write('1/2 kB\\r2/2 kB\\r\\ndone')"
    stream(python(code), lines.append, silence_limit_s=20)
    assert lines == ["1/2 kB", "2/2 kB", "done"]


def test_a_silent_tool_is_given_up():
    with pytest.raises(PostgresError, match=r"silent for 0\.2 s"):
        stream(["sleep", "60"], lambda line: None, silence_limit_s=0.2)


def test_a_tool_that_fails_is_told_with_what_it_said():
    with pytest.raises(PostgresError, match="ended with 1: bad thing"):
        stream(python("import sys; sys.exit('bad thing')"), lambda line: None, silence_limit_s=20)


def test_the_environment_cannot_change_what_a_tool_does(monkeypatch):
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("LC_MESSAGES", "de_DE.UTF-8")
    made = environment({"MARK": "1"})
    assert "PGHOST" not in made
    assert "LC_MESSAGES" not in made
    assert (made["LC_ALL"], made["MARK"]) == ("C", "1")

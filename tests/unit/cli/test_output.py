"""What is said, and on what."""

import io

import pytest

from appliance.cli.output import say


@pytest.mark.parametrize(("terminal", "shown"), [(True, "n3\ufffd[2J\ufffd\ufffd"), (False, "n3\x1b[2J\x9b\u202e")])
def test_what_members_say_steers_no_terminal_and_stays_as_it_is_elsewhere(terminal, shown):
    class Stream(io.StringIO):
        def isatty(self):
            return terminal

    stream = Stream()
    say(stream, "\x1b[32mgood\x1b[0m  a\tb", "n3\x1b[2J\x9b\u202e")
    assert stream.getvalue() == f"\x1b[32mgood\x1b[0m  a\tb\n{shown}\n"

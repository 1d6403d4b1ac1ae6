"""What is an address, and what must not pass for one."""

import pytest

from raft.address import parse
from raft.api import ReplicaError


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.0.0.1:7400", ("10.0.0.1", 7400)),
        ("pg-1_a.example.com:1", ("pg-1_a.example.com", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0.7]:7400", ("fe80::1%eth0.7", 7400)),
        ("[::ffff:10.0.0.1]:7400", ("::ffff:10.0.0.1", 7400)),
        (":7400", ("", 7400)),
        ("*:7400", ("*", 7400)),
    ],
)
def test_host_and_port(text, place):
    assert parse(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n1",
        "n1:",
        "n1:0",
        "n1:65536",
        "n1:007400",
        "n1:+1",
        "n1: 1",
        "n1:1\n",
        "n1:\u0661\u0662",
        "::1:7400",
        "[::1:7400",
        "::1]:7400",
        "[n1]:7400",
        "[::1]7400",
        "[::1%]:7400",
        "[::1%a]b]:7400",
        "a b:7400",
        "a\0b:7400",
        "\x1b[2J:7400",
        "\u202en1:7400",
        "bücher.example:7400",
        f"{'x' * 255}:1",
    ],
)
def test_what_is_none(text):
    with pytest.raises(ReplicaError, match="is no address"):
        parse(text)

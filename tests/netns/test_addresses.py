"""Addresses that only a network of one's own has."""

import subprocess
import sys

SERVES = """
import socket
from raft import address
place = "[fe80::77%lo]:7400"
with address.listener(place) as listener, socket.create_connection(address.parse(place), timeout=5) as caller:
    print(caller.getpeername()[:2], listener.accept()[1][0])
"""


def test_a_link_local_address_is_listened_on_in_its_zone():
    script = f"ip link set lo up; ip -6 addr add fe80::77/64 dev lo nodad; exec {sys.executable} -c '{SERVES}'"
    found = subprocess.run(
        ["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert found.stdout == "('fe80::77', 7400) fe80::77\n", found

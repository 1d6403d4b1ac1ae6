"""systemd's notify protocol: one datagram. Without a NOTIFY_SOCKET nothing happens."""

import os
import socket


def notify(*lines: str) -> None:
    """Tell the service manager, for example READY=1. Never raises: a missing manager is no reason to stop."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(0.2)
            channel.sendto("\n".join(lines).encode(), target)
    except OSError:
        return

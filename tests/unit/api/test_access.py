"""Who may change something: by the peer's uid on the unix socket, or by token."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx2
import pytest

from appliance.api.access import PEER_UID, requester
from appliance.api.server import ApiServer

from .conftest import TOKEN

ASK = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.sendall(b"POST /api/v1/switchovers HTTP/1.0\\r\\nContent-Length: 0\\r\\n\\r\\n")
answer = b""
while part := client.recv(65536):
    answer += part
print(answer.decode().split()[1])
"""


@pytest.fixture
def open_socket(node):
    """A server whose socket anybody may connect to, so that only the uid decides."""
    directory = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="api-test-"))
    directory.chmod(0o755)
    server = ApiServer(node, "127.0.0.1:0", directory / "api.sock", "")
    server.start()
    (directory / "api.sock").chmod(0o666)
    yield directory / "api.sock"
    server.stop(3.0)
    shutil.rmtree(directory)


def ask_as(uid, path):
    # The system's python: a stranger may not be able to enter the test's own environment.
    done = subprocess.run(
        ["/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable, "-c", ASK, str(path)],
        user=uid, cwd="/", capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return int(done.stdout)


def test_the_own_user_needs_no_token(open_socket, node):
    assert ask_as(None, open_socket) == 202
    assert node.requests[0].requester == f"uid {os.geteuid()} on the unix socket"


def test_another_user_is_refused(open_socket, node, monkeypatch):
    stranger = pwd.getpwnam("nobody").pw_uid
    if os.geteuid() == 0:
        assert ask_as(stranger, open_socket) == 401
    else:
        # Without root nobody can become another user: then the node claims to be one.
        monkeypatch.setattr(os, "geteuid", lambda: stranger)
        assert ask_as(None, open_socket) == 401
    assert node.requests == []


def test_the_socket_speaks_the_same_interface(socket_path):
    transport = httpx2.HTTPTransport(uds=str(socket_path))
    with httpx2.Client(transport=transport, base_url="http://node", timeout=10) as client:
        assert client.get("/api/v1/cluster").json()["verdict"] == "healthy"
        assert client.get("/primary").status_code == 200
        assert client.post("/api/v1/switchovers", json={"to": "pg2"}).status_code == 202
    assert socket_path.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Bearer {TOKEN}x", f"Token {TOKEN}", TOKEN, "Basic %%%"]
)
def test_a_wrong_token_is_refused_with_a_hint(http, node, header):
    headers = {} if header is None else {"authorization": header}
    answer = http.post("/api/v1/switchovers", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["code"] == "access.denied"
    assert "Authorization: Bearer" in answer.json()["hint"]
    assert answer.headers["x-applied-index"] == "42"
    assert node.requests == []


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_is_enough(http, scheme):
    assert http.post("/api/v1/switchovers", headers={"authorization": f"{scheme} {TOKEN}"}).status_code == 202


def scope(*, uid=None, header=""):
    state = {} if uid is None else {PEER_UID: uid}
    return {"type": "http", "headers": [(b"authorization", header.encode("latin-1"))], "state": state, "client": None}


def test_the_rule_itself():
    assert requester(scope(), "t") is None
    assert requester(scope(header="Bearer t"), "t") == "token from the unix socket"
    assert requester(scope(uid=0), "") == "uid 0 on the unix socket"
    assert requester(scope(uid=4_000_000_000), "t") is None
    assert requester(scope(uid=4_000_000_000, header="Bearer t"), "t") is not None
    # No token set: nothing is the right one.
    assert requester(scope(header="Bearer "), "") is None
    assert requester(scope(header="Bearer \xe9"), "t") is None

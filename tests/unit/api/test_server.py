"""The server's life: binding, refusing, limits on clients, and going away."""

import contextlib
import socket
import threading
import time

import httpx2
import pytest

from appliance.api import protocol
from appliance.api.server import ApiError, ApiServer


def serve(node, listen="127.0.0.1:0", path=None):
    return ApiServer(node, listen, path, "token")


def test_a_port_that_is_taken_is_an_error_that_says_so(server, node, tmp_path):
    port = server.addresses[0][1]
    other = serve(node, f"127.0.0.1:{port}", tmp_path / "other.sock")
    with pytest.raises(ApiError, match=f"http.listen: 127.0.0.1:{port}: Address already in use; end the process"):
        other.start()
    assert not (tmp_path / "other.sock").exists()
    assert not other.alive
    other.stop(1.0)


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("8008", "is not host:port; write for example"),
        ("127.0.0.1:http", "is not host:port"),
        ("192.0.2.1:0", "name an address of this host"),
        ("no-such-host.invalid:8008", "name an address of this host"),
    ],
)
def test_an_address_that_does_not_do(node, listen, words):
    with pytest.raises(ApiError, match=words):
        serve(node, listen).start()


def test_a_socket_in_use_is_refused_and_a_dead_one_replaced(socket_path, node, tmp_path):
    with pytest.raises(ApiError, match="another node process listens there"):
        serve(node, path=socket_path).start()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "dead.sock"))
    heir = serve(node, path=tmp_path / "dead.sock")
    heir.start()
    transport = httpx2.HTTPTransport(uds=str(tmp_path / "dead.sock"))
    with httpx2.Client(transport=transport, base_url="http://node") as client:
        assert client.get("/primary").status_code == 200
    heir.stop(3.0)
    assert not (tmp_path / "dead.sock").exists()


@pytest.mark.parametrize("name", ["missing/api.sock", "x" * 120])
def test_a_socket_that_cannot_be_made_frees_the_port(node, tmp_path, name):
    server = serve(node, path=tmp_path / name)
    with pytest.raises(ApiError, match=r"http\.socket: .*name a short path in a directory this user may write"):
        server.start()
    assert not server.alive


def test_a_file_that_is_no_socket_is_left_alone(node, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ApiError):
        serve(node, path=tmp_path / "notes.txt").start()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_ipv6(node):
    server = serve(node, "[::1]:0")
    server.start()
    port = server.addresses[0][1]
    assert httpx2.get(f"http://[::1]:{port}/primary").status_code == 200
    server.stop(3.0)


def test_any_address_of_ipv6_takes_ipv4_too(node):
    server = serve(node, "[::]:0")
    server.start()
    assert httpx2.get(f"http://127.0.0.1:{server.addresses[0][1]}/primary").status_code == 200
    server.stop(3.0)


def test_stopping_ends_waiting_requests_and_idle_connections(node):
    server = serve(node)
    server.start()
    idle = socket.create_connection(server.addresses[0])
    answers = []
    url = f"http://127.0.0.1:{server.addresses[0][1]}"
    headers = {"authorization": "Bearer token"}
    waiting = threading.Thread(
        target=lambda: answers.append(httpx2.post(f"{url}/api/v1/switchovers?wait=60s", headers=headers, timeout=30))
    )
    waiting.start()
    while node.value.state.running_operation() is None:
        time.sleep(0.01)
    began_s = time.monotonic()
    server.stop(5.0)
    assert time.monotonic() - began_s < 3
    assert not server.alive
    waiting.join(5)
    assert (answers[0].status_code, answers[0].json()["phase"]) == (202, "requested")
    idle.settimeout(5)
    assert idle.recv(1) == b""
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.addresses[0])
    server.stop(1.0)


def test_a_server_starts_again_on_the_same_port(node):
    first = serve(node)
    first.start()
    port = first.addresses[0][1]
    assert httpx2.get(f"http://127.0.0.1:{port}/primary").status_code == 200
    first.stop(3.0)
    second = serve(node, f"127.0.0.1:{port}")
    second.start()
    assert httpx2.get(f"http://127.0.0.1:{port}/primary").status_code == 200
    second.stop(3.0)


@pytest.mark.parametrize("sent", [b"", b"GET /primary HT", b"GET /primary HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_slow_sender_is_cut_off(server, monkeypatch, sent):
    monkeypatch.setattr(protocol, "HEAD_LIMIT_S", 0.3)
    with socket.create_connection(server.addresses[0]) as client:
        client.settimeout(5)
        began_s = time.monotonic()
        client.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert 0.2 < time.monotonic() - began_s < 3


def test_a_trickle_does_not_buy_time(server, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_LIMIT_S", 0.4)
    with socket.create_connection(server.addresses[0]) as client:
        began_s = time.monotonic()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() - began_s < 5:
                client.sendall(b"X")
                time.sleep(0.05)
        assert time.monotonic() - began_s < 3


def test_connections_are_bounded_and_those_there_still_answered(server, http, monkeypatch):
    assert http.get("/primary").status_code == 200
    monkeypatch.setattr(protocol, "CONNECTIONS_LIMIT", 5)
    crowd = [socket.create_connection(server.addresses[0]) for _ in range(10)]
    time.sleep(0.2)
    assert http.get("/primary").status_code == 200
    for client in crowd:
        client.settimeout(0.2)
    refused = 0
    for client in crowd:
        try:
            refused += client.recv(1) == b""
        except ConnectionResetError:
            refused += 1
        except TimeoutError:
            pass
        client.close()
    assert refused == 6

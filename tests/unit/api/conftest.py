import httpx2
import pytest

from appliance.api.server import ApiServer

from .building import Node

TOKEN = "s3cret-token"


@pytest.fixture
def node():
    return Node()


@pytest.fixture
def server(node, tmp_path):
    api = ApiServer(node, "127.0.0.1:0", tmp_path / "api.sock", TOKEN)
    api.start()
    yield api
    api.stop(3.0)
    assert not api.alive


@pytest.fixture
def url(server):
    host, port = server.addresses[0]
    return f"http://{host}:{port}"


@pytest.fixture
def http(url):
    with httpx2.Client(base_url=url, timeout=15) as client:
        yield client


@pytest.fixture
def trusted(url):
    with httpx2.Client(base_url=url, timeout=30, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield client

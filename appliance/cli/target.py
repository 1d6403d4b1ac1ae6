"""Where a command finds the cluster: a URL, the node on this host, or a demo directory."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.cli.exits import Code, CommandError

SYSTEM_CONFIG = Path("/etc/appliance/node.yml")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One node's API: over TCP, or over a unix socket, which needs no token."""

    url: str
    socket: Path | None = None
    token: str = ""

    @property
    def shown(self) -> str:
        return str(self.socket) if self.socket is not None else self.url


@dataclass(frozen=True, slots=True)
class Target:
    """Endpoints in the order in which they are tried, and the node files that are known here."""

    endpoints: Sequence[Endpoint]
    configs: Sequence[Path] = ()


def find_target() -> Target:
    """`--api`, else `--config`, else this host's node, else the demo of this user.

    The command line puts its options into the environment, where scripts may set them as well.
    """
    api = os.environ.get("APPLIANCE_API", "")
    if api:
        token = os.environ.get("APPLIANCE_TOKEN", "")
        if not (token.isascii() and token.isprintable()):
            raise CommandError(Code.USAGE, "--token: holds a character that no token has; copy it from api.token again")
        return Target([Endpoint(_url(part), token=token) for part in api.split(",")])
    named = os.environ.get("APPLIANCE_CONFIG", "")
    if named:
        return _local(Path(named))
    if os.path.lexists(SYSTEM_CONFIG):
        return _local(SYSTEM_CONFIG)
    from appliance.cli.demo.layout import default_directory, is_demo

    if is_demo(default_directory()):
        return _local(default_directory())
    message = f"no cluster to talk to: no {SYSTEM_CONFIG}, no demo; use --config FILE or --api http://HOST:8008"
    raise CommandError(Code.USAGE, message)


def _url(text: str) -> str:
    from httpx2 import URL, InvalidURL

    url = text.strip().rstrip("/")
    url = url if "://" in url else f"http://{url}"
    wrong = f"--api: {text.strip()!r} is no URL of a node; write for example http://10.0.0.11:8008"
    try:
        parsed = URL(url)
    except InvalidURL:
        raise CommandError(Code.USAGE, wrong) from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or not 0 < (parsed.port or 1) < 65536:
        raise CommandError(Code.USAGE, wrong)
    return url


def _local(path: Path) -> Target:
    if _is_directory(path):
        from appliance.cli.demo.layout import Layout

        configs = [node.config for node in Layout.load(path).nodes]
    else:
        configs = [path]
    return Target([_endpoint(config) for config in configs], configs)


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:
        raise CommandError(Code.NOT_ALLOWED, f"{path}: permission denied; use --api http://HOST:8008") from None


def _endpoint(path: Path) -> Endpoint:
    from appliance.cli.node_file import load

    config = load(path)
    return Endpoint(f"http://{config.http_address}", socket=config.http.socket)

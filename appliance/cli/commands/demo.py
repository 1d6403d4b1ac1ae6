"""`appliance demo`."""

from typing import Annotated

import typer

from appliance.cli.options import Output, Timeout, seconds
from appliance.cli.output import Format

app = typer.Typer(help="A cluster on this machine, to try things.", no_args_is_help=True)

Directory = Annotated[str, typer.Option("--dir", metavar="DIR", help="Where the demo lives.")]


@app.command()
def up(
    directory: Directory = "",
    nodes: Annotated[int, typer.Option(min=1, max=7, help="How many.")] = 3,
    ttl: Annotated[str, typer.Option(help="Lease: how long a lost host holds writes up. Default: 6s.")] = "",
    detach: Annotated[bool, typer.Option("--detach", help="Leave it in the background.")] = False,
    timeout: Timeout = "120s",
) -> int:
    """Start a cluster on loopback and keep it running; Ctrl-C ends it, its data stays."""
    from appliance.cli.demo import up

    asked = up.Asked(nodes, ttl, seconds("--timeout", timeout))
    return up.detached(directory, asked) if detach else up.foreground(directory, asked)


@app.command()
def status(directory: Directory = "", output: Output = Format.TABLE) -> int:
    """Its connection string, members and processes."""
    from appliance.cli.demo import status

    return status.status(directory, output)


@app.command()
def kill_primary(
    directory: Directory = "",
    host: Annotated[bool, typer.Option("--host", help="Everything of that node; it starts again after 5 s.")] = False,
) -> int:
    """kill -9 of the primary's postmaster."""
    from appliance.cli.demo import kill

    return kill.kill_primary(directory, host=host)


@app.command()
def load(
    directory: Directory = "",
    duration: Annotated[str, typer.Option("--seconds", help="How long. Default: until Ctrl-C.")] = "",
    output: Output = Format.TABLE,
) -> int:
    """Write one row a commit; say what the longest gap was, and whether every acknowledged row is there."""
    from appliance.cli.demo import load

    return load.load(directory, seconds("--seconds", duration) if duration else None, output)


@app.command()
def down(
    directory: Directory = "",
    keep: Annotated[bool, typer.Option("--keep", help="End the processes, leave the data.")] = False,
) -> int:
    """End every process of the demo and remove its directory."""
    from appliance.cli.demo import down

    return down.down(directory, keep=keep)

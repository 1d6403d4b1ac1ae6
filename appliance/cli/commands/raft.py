"""`appliance raft`."""

from typing import Annotated

import typer

from appliance.cli.options import DryRun, Output, Yes, named
from appliance.cli.output import Format

app = typer.Typer(help="The consensus below the cluster.", no_args_is_help=True)


@app.command()
def status(output: Output = Format.TABLE) -> int:
    """The replica of a node that runs: who leads, who has how much of the log, what the disk takes."""
    from appliance.cli import raft

    return raft.status(output)


@app.command()
def transfer_leader(
    to: Annotated[
        str | None, typer.Option(metavar="MEMBER", help="Default: the voter that has most of the log.")
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> int:
    """Hand the raft leadership to another voter. The primary stays where it is: for that there is `switchover`.

    By itself the primary's node hands it on to another host, so that losing its own is noticed sooner. One that was
    given to it by hand stays there for 60 s at least.
    """
    from appliance.cli import raft
    from appliance.cli.change import Manner

    return raft.transfer_leader(named("--to", to), Manner(yes, dry_run, wait=True, timeout_s=0.0, output=output))


@app.command()
def show(
    directory: Annotated[
        str, typer.Option("--dir", metavar="DIR", help="A replica's directory. Default: the one of --config.")
    ] = "",
    output: Output = Format.TABLE,
) -> int:
    """What this host's copy of the log holds, while its node does not run."""
    from appliance.cli import recover

    return recover.show(directory, output)


@app.command()
def recover(
    copies: Annotated[
        list[str] | None, typer.Option("--with", metavar="FILE", help="Another host's `raft show -o json`; repeat it.")
    ] = None,
    dead: Annotated[
        list[str] | None, typer.Option("--dead", metavar="MEMBER", help="Gone for good; repeat it.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--keep-data", metavar="MEMBER", help="One of the dead, of whose host the data is left all the same."
        ),
    ] = None,
    allow_data_loss: Annotated[
        bool, typer.Option("--allow-data-loss", help="Also when acknowledged commits may be missing from what is left.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> int:
    """When a majority is gone for good: let the cluster go on from this host alone. Its node must not run."""
    from appliance.cli import recover

    lost = [named("--dead", name) for name in dead or []]
    manner = recover.Manner(yes, dry_run, output, allow_data_loss)
    return recover.recover(copies or [], lost, named("--keep-data", data), manner)

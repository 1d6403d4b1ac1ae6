"""What stands right after `appliance`: the cluster and this node."""

import os
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.exits import Code, CommandError
from appliance.cli.options import DryRun, Interval, Output, Reason, Timeout, Wait, Yes, named, seconds
from appliance.cli.output import Format

app = typer.Typer()


@app.command()
def node(
    check: Annotated[bool, typer.Option("--check", help="Only say whether the file is right.")] = False,
    sample: Annotated[bool, typer.Option("--sample", help="Print a commented file.")] = False,
) -> int:
    """Run the node of --config FILE: what systemd starts."""
    from appliance.cli.node import run

    return run(Path(os.environ.get("APPLIANCE_CONFIG", "")), check=check, sample=sample)


@app.command()
def bootstrap(
    wait: Wait = True,
    timeout: Timeout = "120s",
    output: Output = Format.TABLE,
    dry_run: DryRun = False,
    yes: Yes = False,  # noqa: ARG001  # as everywhere; but nothing can be lost, so nothing is asked
) -> int:
    """Make the cluster's first data directory, once, on any node, after the nodes are up."""
    from appliance.cli.change import bootstrap

    return bootstrap(seconds("--timeout", timeout), wait, output, dry_run)


@app.command()
def join(
    token: Annotated[
        str, typer.Option(help="What `appliance members add` has printed; - reads it from standard input.")
    ],
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Raft address of this node, as the others reach it.")
    ] = "",
    host: Annotated[list[str] | None, typer.Option(help="A further name for the certificate; may be repeated.")] = None,
    timeout: Timeout = "30s",
) -> int:
    """Make this host a member of a running cluster: fetches its certificate, and writes --config unless it is there."""
    from appliance.cli.join import Here, join

    return join(
        token,
        Here(Path(os.environ.get("APPLIANCE_CONFIG", "")), address, tuple(host or ())),
        seconds("--timeout", timeout),
    )


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again.")] = False,
    interval: Interval = "1s",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="10: degraded, 11: critical.")] = False,
    output: Output = Format.TABLE,
) -> int:
    """How the cluster is, and what would make it better. 3: no quorum, this is the last known view."""
    from appliance.cli import status

    interval_s = seconds("--interval", interval, at_least_s=0.1)
    return status.watch(output, interval_s) if watch else status.status(output, exit_code=exit_code)


@app.command()
def switchover(
    to: Annotated[
        str | None, typer.Option(metavar="MEMBER", help="The new primary. Default: the best candidate.")
    ] = None,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    timeout: Timeout = "60s",
    output: Output = Format.TABLE,
) -> int:
    """Move the primary role to another member without losing a commit."""
    from appliance.cli.change import Manner, switchover

    return switchover(named("--to", to), reason, Manner(yes, dry_run, wait, seconds("--timeout", timeout), output))


@app.command()
def failover(
    to: Annotated[str, typer.Option(metavar="MEMBER", help="The new primary.")],
    allow_data_loss: Annotated[
        bool,
        typer.Option("--allow-data-loss", help="Even if commits that it lacks are lost: shows how much, and asks."),
    ] = False,
    cluster: Annotated[
        str, typer.Option(metavar="NAME", help="With --allow-data-loss --yes: the cluster's name, else typed.")
    ] = "",
    stopped: Annotated[
        str,
        typer.Option(
            "--stopped",
            metavar="MEMBER",
            help="With --allow-data-loss --yes, where failsafe_mode lets the last primary go on without the others:"
            " its name, to state that its host is off for good, else typed. False, there are two primaries.",
        ),
    ] = "",
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    timeout: Timeout = "60s",
    output: Output = Format.TABLE,
) -> int:
    """Make a member the primary although the present one is lost.

    Refused if an acknowledged commit could be lost by it, or, in asynchronous mode, more than maximum_lag_on_failover.
    --allow-data-loss lifts that for this member: it shows the last known position of the lost primary, what every
    candidate has and the difference in bytes, and asks for the name of the cluster. No more than was shown is given up,
    and it goes into the history.
    """
    from appliance.cli.change import Manner
    from appliance.cli.failover import Stated, failover, failover_with_loss

    manner = Manner(yes, dry_run, wait, seconds("--timeout", timeout), output)
    if allow_data_loss:
        return failover_with_loss(named("--to", to), reason, Stated(cluster, stopped), manner)
    if cluster or stopped:
        raise CommandError(Code.USAGE, f"{'--cluster' if cluster else '--stopped'} is for --allow-data-loss only")
    return failover(named("--to", to), reason, manner)


@app.command()
def explain(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="Only this one. Default: everybody.")] = "",
    output: Output = Format.TABLE,
) -> int:
    """Why who is primary, who could be and why not, why there was or was no failover. 3: no quorum, the last known."""
    from appliance.cli.explain import explain

    return explain(member, output)


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20, output: Output = Format.TABLE
) -> int:
    """Who was primary when, and why it changed."""
    from appliance.cli import reads

    return reads.history(output, limit)


@app.command()
def dsn(
    role: Annotated[str, typer.Option(help="rw, ro or any.")] = "rw",
    form: Annotated[str, typer.Option("--format", "-f", help="uri, kv or env.")] = "uri",
    ca: Annotated[str, typer.Option(help="Where the client has the cluster's ca.crt, if not at its place here.")] = "",
    output: Output = Format.TABLE,
) -> int:
    """The connection string of the cluster: names every member, finds the primary by itself."""
    from appliance.cli import dsn
    from appliance.cli.options import one_of

    return dsn.dsn(one_of("--role", dsn.Role, role), one_of("--format", dsn.Form, form), output, ca)


@app.command()
def version(output: Output = Format.TABLE) -> int:
    """The version of this command."""
    from appliance.cli import reads

    return reads.version(output)

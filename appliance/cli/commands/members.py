"""`appliance members`."""

from typing import Annotated

import typer

from appliance.cli.options import DryRun, Output, Reason, Timeout, Wait, Yes, named, seconds
from appliance.cli.output import Format

app = typer.Typer(help="The members of the cluster.", no_args_is_help=True)


@app.command("list")
def list_members(output: Output = Format.TABLE) -> int:
    """All members: role, addresses, and whether their replica has a vote."""
    from appliance.cli import members

    return members.members(output)


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new node's, or that of one to be replaced.")],
    role: Annotated[str, typer.Option(help="data, witness or learner.")] = "data",
    valid_for: Annotated[str, typer.Option(metavar="DURATION", help="How long it can be used.")] = "1h",
    output: Output = Format.TABLE,
) -> int:
    """Let one node join: prints the command to run there. It holds a secret, and serves once."""
    from appliance.cli import join

    return join.invite(name, role, valid_for, output)


@app.command()
def remove(
    member: Annotated[str, typer.Argument(metavar="MEMBER")],
    force: Annotated[bool, typer.Option("--force", help="Also one whose PostgreSQL runs.")] = False,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    timeout: Timeout = "60s",
    output: Output = Format.TABLE,
) -> int:
    """Take a member out of the cluster for good."""
    from appliance.cli import members
    from appliance.cli.change import Manner

    manner = Manner(yes, dry_run, wait, seconds("--timeout", timeout), output)
    return members.remove(named("MEMBER", member), force, reason, manner)

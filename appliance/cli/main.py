"""The command `appliance`: what it understands, and how every ending becomes an exit code.

Imports late: `--help` reads nothing but typer and this file.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from appliance.cli.exits import Code, CommandError
from appliance.cli.options import (
    DryRun,
    Interval,
    Output,
    Reason,
    Timeout,
    Wait,
    Yes,
    hoisted,
    named,
    seconds,
)
from appliance.cli.output import Format, OutputError, say

app = typer.Typer(
    name="appliance",
    help="Three PostgreSQL hosts in, one highly available PostgreSQL out.",
    epilog="--config, --api and --token may stand anywhere. Without them: the node on this host, else your demo.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
operations_app = typer.Typer(help="Switchovers and failovers, under way and past.", no_args_is_help=True)
members_app = typer.Typer(help="The members of the cluster.", no_args_is_help=True)
certs_app = typer.Typer(
    help="The cluster's certificate authority and its members' certificates, as files.", no_args_is_help=True
)
rotate_ca_app = typer.Typer(
    help="Another authority, without an outage: both are trusted meanwhile.", no_args_is_help=True
)
demo_app = typer.Typer(help="A cluster on this machine, to try things.", no_args_is_help=True)
app.add_typer(operations_app, name="operations")
app.add_typer(members_app, name="members")
app.add_typer(certs_app, name="certs")
certs_app.add_typer(rotate_ca_app, name="rotate-ca")
raft_app = typer.Typer(help="The consensus below the cluster.", no_args_is_help=True)
app.add_typer(raft_app, name="raft")
app.add_typer(demo_app, name="demo")


@app.callback()
def anywhere(
    config: Annotated[str, typer.Option(metavar="FILE", help="A node's file, or a demo's directory.")] = "",
    api: Annotated[str, typer.Option(metavar="URL", help="A node's API; several with commas between.")] = "",
    token: Annotated[str, typer.Option(help="Bearer token for --api ($APPLIANCE_TOKEN does not show in ps).")] = "",
) -> None:
    given = {"APPLIANCE_CONFIG": config, "APPLIANCE_API": api, "APPLIANCE_TOKEN": token}
    os.environ.update({name: value for name, value in given.items() if value})
    if config and not api:
        # What is typed beats what the environment says.
        os.environ.pop("APPLIANCE_API", None)


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
        bool, typer.Option("--allow-data-loss", help="Even if commits that it lacks are lost.")
    ] = False,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    timeout: Timeout = "60s",
    output: Output = Format.TABLE,
) -> int:
    """Make a member the primary although the present one is lost."""
    from appliance.cli.change import Manner, failover

    return failover(
        named("--to", to), reason, allow_data_loss, Manner(yes, dry_run, wait, seconds("--timeout", timeout), output)
    )


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


@operations_app.command("list")
def operations_list(output: Output = Format.TABLE) -> int:
    """The last 50, newest first."""
    from appliance.cli import reads

    return reads.operations(output)


@operations_app.command("show")
def operations_show(operation: Annotated[str, typer.Argument(metavar="ID")], output: Output = Format.TABLE) -> int:
    """One operation with its phases."""
    from appliance.cli import reads

    return reads.operation(operation, output)


@members_app.command("list")
def members_list(output: Output = Format.TABLE) -> int:
    """All members: role, addresses, and whether their replica has a vote."""
    from appliance.cli import members

    return members.members(output)


@members_app.command("remove")
def members_remove(
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


AuthorityDirectory = Annotated[str, typer.Option("--dir", metavar="DIR", help="Where ca.crt and ca.key lie.")]
ValidFor = Annotated[str, typer.Option("--valid-for", metavar="LIFE", help="Like 90d or 10y.")]


@certs_app.command("init")
def certs_init(
    cluster: Annotated[str, typer.Option(metavar="NAME", help="As in every node's file.")],
    directory: AuthorityDirectory,
    valid_for: ValidFor = "10y",
) -> int:
    """Make the authority of a cluster: ca.crt, which every node trusts, and ca.key, which issues."""
    from appliance.cli import certs

    return certs.init(cluster, directory, valid_for)


@certs_app.command("issue")
def certs_issue(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="The node's name.")],
    directory: AuthorityDirectory,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="A name or address of its PostgreSQL; may be repeated."),
    ] = None,
    valid_for: ValidFor = "365d",
    out: Annotated[str, typer.Option(metavar="DIR", help="Where to write them. Default: --dir.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite MEMBER.crt and MEMBER.key.")] = False,
) -> int:
    """Make a key and a certificate for a member: MEMBER.key and MEMBER.crt."""
    from appliance.cli import certs

    return certs.issue(member, host or [], directory, valid_for, out, replace=replace)


@certs_app.command("show")
def certs_show(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="Default: those of this node.")] = None,
    output: Output = Format.TABLE,
) -> int:
    """Whom each certificate is for, who signed it, from when until when, and when to renew it."""
    from appliance.cli import certs

    return certs.show(files or [], output)


@certs_app.command("renew")
def certs_renew() -> int:
    """Renew this node's certificate now; needs the authority's key here. Nodes that have it do so by themselves."""
    from appliance.cli import certs

    return certs.renew()


@rotate_ca_app.command("begin")
def certs_rotate_ca_begin(directory: AuthorityDirectory, valid_for: ValidFor = "10y") -> int:
    """Make a new authority, which issues from now on; the present one stays trusted."""
    from appliance.cli import certs

    return certs.begin_rotation(directory, valid_for)


@rotate_ca_app.command("finish")
def certs_rotate_ca_finish(directory: AuthorityDirectory) -> int:
    """Trust the new authority alone; after every node shows a certificate of it."""
    from appliance.cli import certs

    return certs.finish_rotation(directory)


@raft_app.command("status")
def raft_status(output: Output = Format.TABLE) -> int:
    """The replica of a node that runs: who leads, who has how much of the log, what the disk takes."""
    from appliance.cli import raft

    return raft.status(output)


@raft_app.command("transfer-leader")
def raft_transfer_leader(
    to: Annotated[
        str | None, typer.Option(metavar="MEMBER", help="Default: the voter that has most of the log.")
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> int:
    """Hand the raft leadership to another voter. The primary stays where it is: for that there is `switchover`."""
    from appliance.cli import raft
    from appliance.cli.change import Manner

    return raft.transfer_leader(named("--to", to), Manner(yes, dry_run, wait=True, timeout_s=0.0, output=output))


@raft_app.command("show")
def raft_show(
    directory: Annotated[
        str, typer.Option("--dir", metavar="DIR", help="A replica's directory. Default: the one of --config.")
    ] = "",
    output: Output = Format.TABLE,
) -> int:
    """What this host's copy of the log holds, while its node does not run."""
    from appliance.cli import recover

    return recover.show(directory, output)


@raft_app.command("recover")
def raft_recover(
    copies: Annotated[
        list[str] | None, typer.Option("--with", metavar="FILE", help="Another host's `raft show -o json`; repeat it.")
    ] = None,
    dead: Annotated[
        list[str] | None, typer.Option("--dead", metavar="MEMBER", help="Gone for good; repeat it.")
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> int:
    """When a majority is gone for good: let the cluster go on from this host alone. Its node must not run."""
    from appliance.cli import recover

    lost = [named("--dead", name) for name in dead or []]
    return recover.recover(copies or [], lost, recover.Manner(yes, dry_run, output))


Directory = Annotated[str, typer.Option("--dir", metavar="DIR", help="Where the demo lives.")]


@demo_app.command("up")
def demo_up(
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


@members_app.command("add")
def members_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new node's, or that of one to be replaced.")],
    role: Annotated[str, typer.Option(help="data, witness or learner.")] = "data",
    valid_for: Annotated[str, typer.Option(metavar="DURATION", help="How long it can be used.")] = "1h",
    output: Output = Format.TABLE,
) -> int:
    """Let one node join: prints the command to run there. It holds a secret, and serves once."""
    from appliance.cli import join

    return join.invite(name, role, valid_for, output)


@app.command()
def join(
    token: Annotated[str, typer.Option(help="What `appliance members add` has printed.")],
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


@demo_app.command("status")
def demo_status(directory: Directory = "", output: Output = Format.TABLE) -> int:
    """Its connection string, members and processes."""
    from appliance.cli.demo import status

    return status.status(directory, output)


@demo_app.command("kill-primary")
def demo_kill_primary(
    directory: Directory = "",
    host: Annotated[bool, typer.Option("--host", help="Everything of that node; it starts again after 5 s.")] = False,
) -> int:
    """kill -9 of the primary's postmaster."""
    from appliance.cli.demo import kill

    return kill.kill_primary(directory, host=host)


@demo_app.command("load")
def demo_load(
    directory: Directory = "",
    duration: Annotated[str, typer.Option("--seconds", help="How long. Default: until Ctrl-C.")] = "",
    output: Output = Format.TABLE,
) -> int:
    """Write one row a commit; say what the longest gap was, and whether every acknowledged row is there."""
    from appliance.cli.demo import load

    return load.load(directory, seconds("--seconds", duration) if duration else None, output)


@demo_app.command("down")
def demo_down(
    directory: Directory = "",
    keep: Annotated[bool, typer.Option("--keep", help="End the processes, leave the data.")] = False,
) -> int:
    """End every process of the demo and remove its directory."""
    from appliance.cli.demo import down

    return down.down(directory, keep=keep)


def main() -> None:
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # Closed by who started us; what is opened next must not take its place.
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115  # open as long as the process
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """One command line; every ending is a code and, if bad, one line on stderr that says what and what would do."""
    try:
        return int(app(hoisted(arguments), prog_name="appliance", standalone_mode=False) or 0)
    except CommandError as error:
        say(sys.stderr, f"appliance: {error}", *error.lines)
        return error.code
    except TyperException as error:
        return _usage(error)
    except (typer.Abort, KeyboardInterrupt):
        return Code.INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return Code.FAILED
    except OutputError as error:
        _drop_output()
        with suppress(OutputError):
            say(sys.stderr, f"appliance: {error}")
        return Code.FAILED
    except OSError as error:
        # Files that one may not read, a full disk: no defect of ours, so no traceback.
        if error.strerror is None:
            raise
        said = error.strerror.lower()
        say(sys.stderr, f"appliance: {error.filename}: {said}" if error.filename else f"appliance: {said}")
        return Code.NOT_ALLOWED if isinstance(error, PermissionError) else Code.FAILED


def _drop_output() -> None:
    """The reader went away, or its disk is full: nothing more to say, and nothing to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: TyperException) -> int:
    message = error.format_message().replace("Value error, ", "")
    if message.lower().startswith("usage:"):
        # A group without a command: its help.
        say(sys.stderr, message)
    else:
        first = message[:1].lower() + message[1:].rstrip(".")
        say(sys.stderr, f"appliance: {first}; see `appliance --help`")
    return Code.USAGE


if __name__ == "__main__":
    main()

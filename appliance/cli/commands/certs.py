"""`appliance certs`."""

from typing import Annotated

import typer

from appliance.cli.options import Output
from appliance.cli.output import Format

app = typer.Typer(
    help="The cluster's certificate authority and its members' certificates, as files.", no_args_is_help=True
)
rotate_ca_app = typer.Typer(
    help="Another authority, without an outage: both are trusted meanwhile.", no_args_is_help=True
)
app.add_typer(rotate_ca_app, name="rotate-ca")

AuthorityDirectory = Annotated[str, typer.Option("--dir", metavar="DIR", help="Where ca.crt and ca.key lie.")]
ValidFor = Annotated[str, typer.Option("--valid-for", metavar="LIFE", help="Like 12h, 90d or 10y.")]


@app.command()
def init(
    cluster: Annotated[str, typer.Option(metavar="NAME", help="As in every node's file.")],
    directory: AuthorityDirectory,
    valid_for: ValidFor = "10y",
) -> int:
    """Make the authority of a cluster: ca.crt, which every node trusts, and ca.key, which issues."""
    from appliance.cli import certs

    return certs.init(cluster, directory, valid_for)


@app.command()
def issue(
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


@app.command()
def show(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="Default: those of this node.")] = None,
    output: Output = Format.TABLE,
) -> int:
    """Whom each certificate is for, who signed it, from when until when, and when to renew it."""
    from appliance.cli import certs

    return certs.show(files or [], output)


@app.command()
def renew() -> int:
    """Renew this node's certificate now; needs the authority's key here. Nodes that have it do so by themselves."""
    from appliance.cli import certs

    return certs.renew()


@rotate_ca_app.command()
def begin(directory: AuthorityDirectory, valid_for: ValidFor = "10y") -> int:
    """Make a new authority, which issues from now on; the present one stays trusted."""
    from appliance.cli import certs

    return certs.begin_rotation(directory, valid_for)


@rotate_ca_app.command()
def finish(
    directory: AuthorityDirectory,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(metavar="MEMBER", help="It is shut out if it needs the old authority; may be repeated."),
    ] = None,
    unasked: Annotated[bool, typer.Option("--unasked", help="Go by the directory alone: ask no node.")] = False,
) -> int:
    """Trust the new authority alone; refused while a member of the cluster still needs the old one."""
    from appliance.cli import certs

    return certs.finish_rotation(directory, leave_out or [], unasked=unasked)

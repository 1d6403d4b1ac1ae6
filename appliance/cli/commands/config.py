"""`appliance config`."""

from typing import Annotated

import typer

from appliance.cli.options import DryRun, Output, Yes
from appliance.cli.output import Format

app = typer.Typer(help="The configuration document, which all nodes share.", no_args_is_help=True)


@app.command()
def show(output: Output = Format.TABLE) -> int:
    """What it says; what it does not say has its default."""
    from appliance.cli import config

    return config.show(output)


@app.command("set")
def change(
    settings: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="KEY=null: back to its default.")],
    yes: Yes = False,
    dry_run: DryRun = False,
    output: Output = Format.TABLE,
) -> int:
    """Change settings, like synchronous_mode=on synchronous_node_count=2, all of them or none. Not postgresql.*."""
    from appliance.cli import config
    from appliance.cli.change import Manner

    return config.change(settings, Manner(yes, dry_run, True, 0.0, output))

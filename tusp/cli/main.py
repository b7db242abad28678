"""The command line: one small module per verb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tusp import __version__
from tusp.cli import context, datasets, db
from tusp.cli.cancel import cancel
from tusp.cli.doctor import doctor
from tusp.cli.logs import logs
from tusp.cli.mlflow import mlflow
from tusp.cli.output import errors
from tusp.cli.report import report
from tusp.cli.score import score
from tusp.cli.status import status
from tusp.cli.submit import submit
from tusp.cli.validate import validate
from tusp.platform.errors import CellError, TuspError
from tusp.platform.leaving import leave

app = typer.Typer(
    name="tusp",
    help="From night recordings to a leaderboard one can defend.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich costs more time than the rest of `tusp --help`
    pretty_exceptions_enable=False,
)

app.add_typer(datasets.app, name="datasets")
app.add_typer(db.app, name="db")
app.command("cancel")(cancel)
app.command("doctor")(doctor)
app.command("logs")(logs)
app.command("mlflow")(mlflow)
app.command("report")(report)
app.command("score")(score)
app.command("submit")(submit)
app.command("status")(status)
app.command("validate")(validate)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tusp {__version__}")
        raise typer.Exit


@app.callback()
def flags(
    home: Annotated[Path | None, typer.Option(help="Folder for everything tusp writes (TUSP_HOME).")] = None,
    db: Annotated[str | None, typer.Option(help="URL of the SQL store (TUSP_DB).")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From night recordings to a leaderboard one can defend."""
    context.set_flags(home=home, db=db)


def run() -> None:
    """Run the command line; an error meant for a person becomes one line and exit status 2 (a failed cell: 1)."""
    try:
        app()
    except TuspError as error:
        errors.print(f"tusp: {error}", markup=False, soft_wrap=True)
        leave(1 if isinstance(error, CellError) else 2)
    except SystemExit as end:  # how a command ends, also a good one
        if isinstance(end.code, int):
            leave(end.code)
        raise

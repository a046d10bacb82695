"""The CLI application, and options shared by several commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from hydralora.cli.output import Output, answering

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Workspace = Annotated[
    Path | None,
    typer.Option("--workspace", help="Folder of the runs. Default: HYDRALORA_HOME, else the user's data folder."),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder.")]


def command(function: Callable[..., Output]) -> None:
    """Register a function as a command of the same name."""
    app.command(name=function.__name__.rstrip("_"))(answering(function))

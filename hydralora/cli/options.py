"""What all commands share: the application, and the options that several of them take."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from hydralora.cli.output import Output, answering

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Workspace = Annotated[
    Path | None,
    typer.Option("--workspace", help="Where runs are kept. Default: HYDRALORA_HOME, else your data folder."),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder.")]


def command(function: Callable[..., Output]) -> None:
    """Make a function a command of its name."""
    app.command(name=function.__name__.rstrip("_"))(answering(function))

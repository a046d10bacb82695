"""The command that makes the run which ships with the program."""

from pathlib import Path
from typing import Annotated

import typer

from hydralora.cli.options import Json, Workspace, app
from hydralora.cli.output import Output, answering, print_event

gallery_app = typer.Typer(no_args_is_help=True, help="The run that ships with the program.")
app.add_typer(gallery_app, name="gallery")


@gallery_app.command("build")
@answering
def build(
    out: Annotated[Path, typer.Option(help="Folder for the shipped run's files.")] = Path("gallery"),
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe (YAML) of the demo dataset. Default: the shipped run's.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Train the shipped run again, and write its files with their hashes. Minutes on a CPU."""
    from hydralora.experiments.gallery import build_gallery, gallery_text
    from hydralora.runs.store import RunStore

    report = build_gallery(RunStore(workspace), out.resolve(), print_event, recipe)
    return Output(report.model_dump(mode="json"), gallery_text(report))

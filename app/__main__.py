"""`hydralora-app`: the app on http://127.0.0.1:7860."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hydralora.errors import HydraError

SECURITY = {
    # The page may load from, and talk to, this server alone.
    "Content-Security-Policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.")] = 7860,
    workspace: Annotated[
        Path | None,
        typer.Option(help="Where runs and datasets are kept. Default: HYDRALORA_HOME, else your data folder."),
    ] = None,
    max_upload: Annotated[str, typer.Option(help="Largest upload, such as 200mb or 2gb.")] = "200mb",
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the app."""
    import gradio as gr
    from starlette.middleware import Middleware

    from app.components.plot import PLOTLY_JS
    from app.headers import Headers
    from app.services import Services
    from app.ui import STYLE, build, theme
    from hydralora.models import DEFAULT_MODEL, find_model

    try:
        typer.echo("Looking for the default base model; the first time it is fetched, which takes about a minute.")
        find_model(DEFAULT_MODEL)
        services = Services(workspace)
    except HydraError as error:
        typer.echo(f"{error.kind} error: {error}", err=True)
        sys.exit(1)
    gr.set_static_paths([PLOTLY_JS])
    build(services).queue().launch(
        server_name=host,
        server_port=port,
        max_file_size=max_upload,
        inbrowser=open_browser,
        share=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        theme=theme(),
        css_paths=STYLE,
        app_kwargs={"middleware": [Middleware(Headers, headers=SECURITY)]},
    )


def main() -> None:
    """Entry point of `hydralora-app`."""
    import os

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    typer.run(serve)


if __name__ == "__main__":
    main()

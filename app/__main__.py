"""`hydralora-app`: the app on http://127.0.0.1:7860."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hydralora.errors import HydraError
from hydralora.runs.store import RunStore

SESSIONS = 8  # that one handler serves at a time: Gradio's default of 1 would make a class wait for an upload
LOOPBACK = ("127.0.0.1", "localhost")
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
    slots: Annotated[int, typer.Option(min=1, help="Runs at work at once; others wait in the queue.")] = 1,
    max_upload: Annotated[str, typer.Option(help="Largest upload, such as 200mb or 2gb.")] = "200mb",
    open_browser: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the page in a browser. Default: where there is a screen."),
    ] = None,
) -> None:
    """Serve the app."""
    store = RunStore(workspace)
    os.environ["GRADIO_TEMP_DIR"] = str(store.workspace / "uploads")  # else copies stay in the system's folder
    # After every event Gradio makes a table of the last 10,000 for a dashboard that is switched off below.
    os.environ |= {"GRADIO_ANALYTICS_CACHE_FREQUENCY": str(sys.maxsize), "GRADIO_ANALYTICS_MAX_EVENTS": "1000"}
    import gradio as gr

    from hydralora.models.catalogue import DEFAULT_MODEL, find_model

    from .page.browser_state import SCRIPT
    from .services import Services
    from .services.processes import warm_up
    from .ui import STYLE, build, theme
    from .widgets.plot import PLOTLY_JS

    try:
        typer.echo("Looking for the default base model; the first time it is fetched, which takes about a minute.")
        find_model(DEFAULT_MODEL)
    except HydraError as error:  # a model of the workspace's may do
        typer.echo(f"{error.kind} error: {error} The app starts without it.", err=True)
    warm_up()
    services = Services(store.workspace)
    services.store.empty_bin()
    services.jobs.set_slots(slots)
    services.keep_queue()
    gr.set_static_paths([PLOTLY_JS])
    build(services).queue(default_concurrency_limit=SESSIONS).launch(
        server_name=host,
        server_port=port,
        max_file_size=max_upload,
        inbrowser=_has_screen() if open_browser is None else open_browser,
        share=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        theme=theme(),
        css_paths=STYLE,
        head=f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
        app_kwargs={"middleware": _guards(host)},
    )


def _has_screen() -> bool:
    """Whether a person is at this machine's screen, rather than a service or a remote terminal."""
    if not sys.stdout.isatty():
        return False
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _guards(host: str) -> list[Any]:
    """Middleware: fixed headers; on this machine's own address, no other host name (against DNS rebinding)."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from .headers import Headers

    guards = [Middleware(Headers, headers=SECURITY)]
    if host in LOOPBACK:
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)))
    return guards


def main() -> None:
    """Entry point of `hydralora-app`."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    typer.run(serve)


if __name__ == "__main__":
    main()

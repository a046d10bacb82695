"""`hydralora-app`: the app on http://127.0.0.1:7860."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hydralora.errors import HydraError, system_message
from hydralora.files import building_folder, remove_leftovers
from hydralora.runs.shipped import restore_shipped_run
from hydralora.runs.store import RunStore

SESSIONS = 8  # served by one handler at once; with Gradio's default of 1, an upload would block a whole class
PRIVATE = 0o077  # of the umask: what the app and its runs write, other users of this machine can't read
LOOPBACK = ("127.0.0.1", "localhost")
SECURITY = {
    # The page may only load from and connect to this server.
    "Content-Security-Policy": "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 127.0.0.1 is this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.")] = 7860,
    workspace: Annotated[
        Path | None,
        typer.Option(help="Folder of runs and datasets. Default: HYDRALORA_HOME, else your data folder."),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="Runs trained at once; others wait in the queue.")] = 1,
    max_upload: Annotated[str, typer.Option(help="Largest upload, such as 200mb or 2gb.")] = "200mb",
    upload_quota: Annotated[
        float, typer.Option(min=0, help="Gigabytes that all uploads and datasets may take together.")
    ] = 10.0,
    open_browser: Annotated[
        bool | None,
        typer.Option("--open/--no-open", help="Open the page in a browser. Default: if there is a screen."),
    ] = None,
) -> None:
    """Serve the app."""
    os.umask(os.umask(0) | PRIVATE)
    store = RunStore(workspace)
    uploads = store.workspace / "uploads"
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # otherwise copies stay in the system's folder
    # After every event Gradio builds a table of the last 10,000 for a dashboard, which is disabled below.
    os.environ |= {"GRADIO_ANALYTICS_CACHE_FREQUENCY": str(sys.maxsize), "GRADIO_ANALYTICS_MAX_EVENTS": "1000"}
    from .page.head import PAGES_STYLE, head
    from .services import Services
    from .services.processes import warm_up
    from .streams import routes
    from .teaching import routes as teaching_routes
    from .ui import build, theme

    _fetch_default_model()
    warm_up()
    services = Services(store.workspace)
    _tidy(services.store, services.datasets.folder)
    services.jobs.set_slots(slots)
    services.keep_queue()
    guards = _guards(host, [uploads, services.datasets.folder], int(upload_quota * 1e9))
    page = build(services).queue(default_concurrency_limit=SESSIONS)
    page.launch(
        server_name=host,
        server_port=port,
        max_file_size=max_upload,
        inbrowser=_has_screen() if open_browser is None else open_browser,
        share=False,
        run_history=False,
        enable_monitoring=False,
        footer_links=[],
        theme=theme(),
        css_paths=PAGES_STYLE,
        head=head(),
        app_kwargs={"middleware": guards, "routes": [*routes(services), *teaching_routes(services, host)]},
        quiet=True,  # Gradio's hints are for its own users
        prevent_thread_lock=True,
        _frontend=False,  # else Gradio asks this server for the page, and ends it if that takes three seconds
    )
    typer.echo(f"HydraLoRA studio is at {page.local_url} . Ctrl+C ends it; runs go on.")
    page.block_thread()


def _fetch_default_model() -> None:
    from hydralora.models.catalogue import DEFAULT_MODEL, find_model

    try:
        typer.echo("Checking the default base model. The first download takes about a minute.")
        find_model(DEFAULT_MODEL)
    except HydraError as error:  # a model in the workspace may do
        typer.echo(f"{error.kind} error: {error} The app starts without it.", err=True)


def _tidy(store: RunStore, datasets: Path) -> None:
    """Empty the bin, remove leftovers, restore the shipped run; the program ends where nothing can be written."""
    try:
        with building_folder(store.folder):
            pass
    except OSError as error:
        typer.echo(f"system error: {system_message(error)} Or choose another folder with --workspace.", err=True)
        raise typer.Exit(1) from None
    store.empty_bin()
    for folder in (store.folder, datasets):
        remove_leftovers(folder)
    restore_if_possible(store)


def restore_if_possible(store: RunStore) -> None:
    """Restore the run that ships with the app; where that fails, the app starts without it."""
    try:
        restore_shipped_run(store)
    except HydraError as error:
        typer.echo(f"{error.kind} error: {error} The app starts without the run that ships with it.", err=True)


def _has_screen() -> bool:
    """Whether a person sits at this machine, not a service or a remote terminal."""
    if not sys.stdout.isatty():
        return False
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _guards(host: str, counted: list[Path], quota: int) -> list[Any]:
    """Middleware: fixed headers, and what `headers.py` does besides.

    A loopback address takes only loopback host names, against DNS rebinding.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from .guards import Events, SameOrigin, UploadQuota
    from .headers import Compressed, Headers, OwnPages, Stamped, Streams

    guards = [
        Middleware(Headers, headers=SECURITY),
        Middleware(SameOrigin),
        Middleware(Compressed),
        Middleware(OwnPages),
    ]
    guards += [Middleware(Stamped), Middleware(Events), Middleware(Streams)]
    if host in LOOPBACK:
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)))
    guards.append(Middleware(UploadQuota, folders=counted, quota=quota))
    return guards


def main() -> None:
    """Entry point of `hydralora-app`."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    typer.run(serve)


if __name__ == "__main__":
    main()

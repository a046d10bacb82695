"""The scripts and styles of teaching, each as one file."""

import gzip
from collections.abc import Callable
from functools import cache
from pathlib import Path

from plotly.offline import get_plotlyjs
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hydralora.figures import lecture_script, lecture_style
from hydralora.runs.run import SHIPPED_ID

HERE = Path(__file__).parent
DRIVER = HERE.parent / "vendor" / "driver"
SCRIPTS = ("tour", "present", "classroom")
SOON, LATER = 300, 24 * 3600  # seconds for which a browser keeps a file
PACKED = 20_000  # bytes from which on a file is compressed


def routes() -> list[Route]:
    """One route, which serves the files of `CONTENTS` alone."""

    def send(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in CONTENTS:
            return PlainTextResponse("There is no such file.", status_code=404)
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        kept = LATER if name == "plotly.js" else SOON
        headers = {"Cache-Control": f"max-age={kept}", "Vary": "Accept-Encoding"}
        content, packed = _content(name)
        if packed and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(packed, media_type=kind, headers=headers | {"Content-Encoding": "gzip"})
        return Response(content, media_type=kind, headers=headers)

    return [Route("/studio/files/{name}", send)]


@cache
def _content(name: str) -> tuple[bytes, bytes | None]:
    """A file, and compressed if it is large."""
    content = CONTENTS[name]().encode()
    return content, gzip.compress(content) if len(content) >= PACKED else None


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _teaching_script() -> str:
    own = "\n".join(f"{{\n{_read(HERE / f'{name}.js')}}}" for name in SCRIPTS)
    return "\n".join([_read(DRIVER / "driver.js"), lecture_script(), own]).replace("SHIPPED_ID", SHIPPED_ID)


def _teaching_style() -> str:
    return "\n".join([_read(DRIVER / "driver.css"), lecture_style(), _read(HERE / "teaching.css")])


CONTENTS: dict[str, Callable[[], str]] = {
    "teaching.js": _teaching_script,
    "teaching.css": _teaching_style,
    "class.js": lambda: lecture_script() + _read(HERE / "class.js"),
    "class.css": lambda: lecture_style() + _read(HERE / "class.css"),
    "plotly.js": get_plotlyjs,
}

"""A study's report as files to save: what a lecture shows on a screen, in full."""

from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from ..actions.lab import study
from ..services import Services
from .answering import answered

UNCACHED = {"Cache-Control": "no-store"}  # a report grows


def routes(services: Services) -> list[Route]:
    """The routes of reports. They show any study of the workspace, as all of the app does."""

    def file(write: Callable[[Services, str], Path], kind: str) -> Route:
        async def send(request: Request) -> Response:
            def answer() -> Response:
                path = write(services, request.path_params["study"])
                return FileResponse(path, media_type=f"text/{kind}", filename=path.name, headers=UNCACHED)

            return await answered(answer)

        return Route(f"/studio/studies/{{study}}/report.{kind}", send)

    return [file(study.page_file, "html"), file(study.table_file, "csv")]

"""Tour, Present and Class: their scripts, the pictures of a lecture, what an audience reads, and reports of studies."""

from starlette.routing import Route

from ..services import Services
from . import classroom, files, lecture, reports


def routes(services: Services, host: str) -> list[Route]:
    """The routes of teaching, to be served beside Gradio's.

    Args:
        host: the address that the app listens on.
    """
    return [
        *files.routes(),
        *lecture.routes(services),
        *reports.routes(services),
        *classroom.routes(services, host),
    ]

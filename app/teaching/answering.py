"""How the routes of teaching answer: work in a thread, errors as a status and one sentence."""

from collections.abc import Callable

from anyio import to_thread
from starlette.responses import JSONResponse, Response

from hydralora.errors import HydraError


async def answered(work: Callable[[], Response]) -> Response:
    """What `work` answers, from a thread of its own; a HydraError becomes 404 with its sentence."""
    try:
        return await to_thread.run_sync(work)
    except HydraError as error:
        return refused(str(error), 404)


def json_text(text: str) -> Response:
    """JSON that is text already."""
    return Response(text, media_type="application/json", headers={"Cache-Control": "no-store"})


def refused(sentence: str, status: int) -> Response:
    """An error that the page shows as it is, as text."""
    return JSONResponse({"error": sentence}, status_code=status, headers={"Cache-Control": "no-store"})

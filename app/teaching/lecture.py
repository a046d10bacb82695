"""The pictures of a lecture, for Present, and the lecture as one page."""

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ..actions import lecture
from ..actions.chat.answers import COLUMNS
from ..services import Services
from .answering import answered, json_text

LONGEST_ID = 64  # characters


def routes(services: Services) -> list[Route]:
    """The routes of lectures. They show any run, as all of the app does. Ids of answers can't be guessed."""

    async def outline(request: Request) -> Response:
        return await answered(lambda: JSONResponse(lecture.outline(services, request.path_params["run"])))

    async def screen(request: Request) -> Response:
        run, name = request.path_params["run"], request.path_params["name"]
        return await answered(lambda: json_text(lecture.screen(services, run, name).to_json()))

    async def turn(request: Request) -> Response:
        ids = answer_ids(dict(request.query_params))
        return await answered(lambda: json_text(lecture.turn_screen(services, ids).to_json()))

    async def page(request: Request) -> Response:
        run = request.path_params["run"]
        turns = [_turn(text) for text in request.query_params.getlist("turn")[: lecture.MOST_TURNS]]

        def write() -> Response:
            path = lecture.save(services, run, turns)
            return FileResponse(path, media_type="text/html", filename=path.name, headers={"Cache-Control": "no-store"})

        return await answered(write)

    return [
        Route("/studio/turn", turn),
        Route("/studio/lecture/{run}", outline),
        Route("/studio/lecture/{run}/page", page),
        Route("/studio/lecture/{run}/screens/{name}", screen),
    ]


def answer_ids(given: dict[str, str]) -> dict[str, str]:
    """Ids of answers by column; anything else is left out."""
    return {key: value for key, value in given.items() if key in COLUMNS and 0 < len(value) <= LONGEST_ID}


def _turn(text: str) -> dict[str, str]:
    """A turn from an address: "run:ID,base:ID"."""
    pairs = [part.partition(":") for part in text.split(",")[: len(COLUMNS)]]
    return answer_ids({key: value for key, _, value in pairs})

"""Class: what a presenter shows, for an audience that only looks.

A class has a code, which is in the audience's address, and a key, which only its presenter's page knows. Every route
with the code alone reads. What changes something asks for the key, and takes JSON only, which no other site can send.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import segno
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hydralora.errors import HydraError
from hydralora.runs.run import SHIPPED_ID

from ..actions import lecture
from ..services import Services
from ..services.classes import MOST_VIEWERS, Class, Shown
from ..services.components import digest
from .address import class_address
from .answering import answered, json_text, refused
from .lecture import answer_ids

PAGE = Path(__file__).with_name("class.html").read_text(encoding="utf-8")
GONE = Path(__file__).with_name("class_gone.html").read_text(encoding="utf-8")
LOOK_SECONDS = 0.4  # between two looks at what the presenter shows
ALIVE_SECONDS = 15.0  # between signs of life, so that a lost viewer is noticed
MOST_BYTES = 4096  # of what a presenter sends
MOST_TOKENS = 100_000


class Sent(BaseModel):
    """What a presenter's page sends; `code` and `key` are "" until it has a class."""

    model_config = ConfigDict(extra="forbid")
    code: str = Field("", max_length=64)
    key: str = Field("", max_length=64)
    run: str = Field("", max_length=64)
    page: str = Field("", max_length=32)
    screen: str = Field("", max_length=32)
    turn: dict[str, str] = Field(default_factory=dict, max_length=8)
    token: int = Field(0, ge=0, le=MOST_TOKENS)


def routes(services: Services, host: str) -> list[Route]:
    """The routes of presenters and audiences."""
    return [*_presenter_routes(services, host), *_Audience(services).routes]


def _presenter_routes(services: Services, host: str) -> list[Route]:
    classes = services.classes

    async def start(request: Request) -> Response:
        sent = await _sent(request)
        if sent is None:
            return refused("This is no request of a presenter's page.", 400)
        try:  # a page that was reloaded goes on with its class
            found = classes.get(sent.code)
            classes.show(found.code, sent.key, found.shown)
        except HydraError:
            found = classes.start()
        place = class_address(host, request.url.scheme, request.headers.get("host", ""), found.code)
        picture = segno.make(place.url, error="m").svg_data_uri(scale=8, border=3, light="#fff")
        return JSONResponse(
            {"code": found.code, "key": found.key, "address": place.url, "reach": place.reach, "picture": picture}
        )

    async def show(request: Request) -> Response:
        sent = await _sent(request)
        if sent is None:
            return refused("This is no request of a presenter's page.", 400)

        def change() -> Response:
            shown = Shown(0, sent.run, _screen(services, sent), answer_ids(sent.turn), sent.token)
            kept = classes.show(sent.code, sent.key, shown)
            return JSONResponse({"version": kept.version, "viewers": classes.get(sent.code).viewers})

        return await answered(change)

    async def end(request: Request) -> Response:
        sent = await _sent(request)
        if sent is None:
            return refused("This is no request of a presenter's page.", 400)

        def finish() -> Response:
            classes.end(sent.code, sent.key)
            return JSONResponse({})

        return await answered(finish)

    return [
        Route("/studio/classes/start", start, methods=["POST"]),
        Route("/studio/classes/show", show, methods=["POST"]),
        Route("/studio/classes/end", end, methods=["POST"]),
    ]


class _Audience:
    """What the audience reads. Nothing here changes anything."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def routes(self) -> list[Route]:
        """All of them read, by GET alone."""
        return [
            Route("/class/{code}", self.page),
            Route("/class/{code}/events", self.events),
            Route("/class/{code}/now", self.now),
            Route("/class/{code}/screens", self.outline),
            Route("/class/{code}/screens/{name}", self.screen),
        ]

    async def page(self, request: Request) -> Response:
        try:
            self._found(request)
        except HydraError:
            return HTMLResponse(GONE, status_code=404)
        return HTMLResponse(PAGE, headers={"Cache-Control": "no-store"})

    async def events(self, request: Request) -> Response:
        try:
            of = self._found(request)
        except HydraError as error:
            return refused(str(error), 404)
        if of.viewers >= MOST_VIEWERS:
            return refused("This class is full.", 503)
        return StreamingResponse(_events(of), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def now(self, request: Request) -> Response:
        def read() -> Response:
            shown = self._found(request).shown
            if shown.turn:
                return json_text(lecture.turn_screen(self._services, shown.turn).to_json())
            if not shown.screen:
                raise HydraError("The presenter shows nothing that can be seen here. The next picture comes by itself.")
            return json_text(lecture.screen(self._services, shown.run, shown.screen).to_json())

        return await answered(read)

    async def outline(self, request: Request) -> Response:
        def read() -> Response:
            self._found(request)
            return JSONResponse(lecture.outline(self._services, SHIPPED_ID))

        return await answered(read)

    async def screen(self, request: Request) -> Response:
        def read() -> Response:
            self._found(request)
            return json_text(lecture.screen(self._services, SHIPPED_ID, request.path_params["name"]).to_json())

        return await answered(read)

    def _found(self, request: Request) -> Class:
        return self._services.classes.get(request.path_params["code"])


def _screen(services: Services, sent: Sent) -> str:
    """The screen that a presenter shows: the one that Present shows, else the one of the open page; "" for none."""
    if not sent.run:
        return ""
    names = {entry["name"] for entry in lecture.outline(services, sent.run)}
    return sent.screen if sent.screen in names else lecture.page_screen(services, sent.run, sent.page)


async def _sent(request: Request) -> Sent | None:
    """What a presenter's page has sent; None if it is anything else."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return None
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            return None
    try:
        return Sent.model_validate_json(body)
    except ValidationError:
        return None


async def _events(of: Class) -> AsyncIterator[str]:
    """What the presenter shows, whenever it changes; a viewer then reads it by the route `now`."""
    of.viewers += 1
    try:
        version, quiet = -1, 0.0
        while True:
            shown = of.shown
            if shown.version != version:
                version, quiet = shown.version, 0.0
                picture = digest(shown.run, shown.screen, *sorted(shown.turn.items()))
                told = {"version": version, "picture": picture, "token": shown.token, "ended": shown.ended}
                yield f"id: {version}\ndata: {json.dumps(told)}\n\n"
            elif quiet >= ALIVE_SECONDS:
                quiet = 0.0
                yield ": still there\n\n"
            if shown.ended:
                return
            await anyio.sleep(LOOK_SECONDS)
            quiet += LOOK_SECONDS
    finally:
        of.viewers -= 1

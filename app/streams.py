"""Answers as server-sent events: each token once, however long the answer grows.

Gradio's own streaming sends an output anew with every update, and the page applies the differences to what it has not
shown yet. An answer's id can't be guessed, and only the session that asked is told it: it authorises the reader.
"""

import json
from collections.abc import AsyncIterator

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hydralora.errors import HydraError

from .actions.chat.streamed import AnswerUpdate, prompt_tokens, updates
from .services import Services
from .services.answers import Answer

UPDATE_SECONDS = 0.09  # between updates: about 10 a second
ADDRESS = "/studio/answers/{answer_id}"


def routes(services: Services) -> list[Route]:
    """The routes of answers, to be served beside Gradio's."""

    async def tokens(request: Request) -> Response:
        answer = _found(services, request)
        if answer is None:
            return _gone()
        seen = request.headers.get("last-event-id") or request.query_params.get("first") or "0"
        stream = _events(answer, int(seen) if seen.isdecimal() and len(seen) < 10 else 0)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def prompt(request: Request) -> Response:
        answer = _found(services, request)
        return _gone() if answer is None else JSONResponse(prompt_tokens(answer))

    async def stop(request: Request) -> Response:
        answer = _found(services, request)
        if answer is None:
            return _gone()
        answer.stop_requested = True
        return JSONResponse({})

    return [
        Route(ADDRESS, tokens),
        Route(f"{ADDRESS}/prompt", prompt),
        Route(f"{ADDRESS}/stop", stop, methods=["POST"]),
    ]


def _found(services: Services, request: Request) -> Answer | None:
    try:
        return services.answers.get(request.path_params["answer_id"])
    except HydraError:
        return None


def _gone() -> Response:
    return JSONResponse({"error": "This answer is no longer kept."}, status_code=404)


async def _events(answer: Answer, first: int) -> AsyncIterator[str]:
    """Its updates, until it has ended; an event's id is the number of tokens sent so far."""
    noted: tuple[str, int] | None = None
    while True:
        for update in updates(answer, first):
            known = update["note"], update["prompt"]
            if update["tokens"] or update["ended"] or known != noted:
                first, noted = first + len(update["tokens"]), known
                yield _event(update, first)
            if update["ended"]:
                return
        await anyio.sleep(UPDATE_SECONDS)


def _event(update: AnswerUpdate, sent: int) -> str:
    return f"id: {sent}\ndata: {json.dumps(update, separators=(',', ':'))}\n\n"

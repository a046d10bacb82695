"""What the server does with every request and response, beside Gradio."""

import time
from urllib.parse import parse_qsl, urlencode

import anyio
from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ARRIVED = "hydralora.arrived"  # of a request's scope


class Headers:
    """ASGI middleware that adds fixed headers; streams pass unchanged."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]) -> None:
        self.app = app
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        await self.app(scope, receive, add if scope["type"] == "http" else send)


class OwnPages:
    """ASGI middleware that keeps `?page=` from Gradio, which would look for a page of its own and fail.

    The browser reads it (page/navigation.js).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and b"page=" in scope["query_string"]:
            pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
            kept = urlencode([(name, value) for name, value in pairs if name != "page"])
            scope = {**scope, "query_string": kept.encode("latin-1")}
        await self.app(scope, receive, send)


class Stamped:
    """ASGI middleware that stamps each request with the time of its arrival, `time.monotonic_ns()`.

    Two requests of a page may be answered by threads that begin in another order (services/sessions.py).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, ARRIVED: time.monotonic_ns()}, receive, send)


class Lingering:
    """ASGI middleware that ends a session's stream of updates a moment after its last event, not at once.

    Gradio ends the stream when no event of the session is left. If the page sends another one just then, it may learn
    that the event is accepted before it reads that the stream has ended, and so opens no new one: nothing more reaches
    the page until a later event opens one. Pages send events in bursts, so such a moment is long enough.
    """

    SECONDS = 0.3
    LOOK = 0.02  # seconds between looks for another event
    END = b'"msg":"close_stream"'

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/queue/data"):
            await self.app(scope, receive, send)
            return
        begun = False
        ended: Message | None = None  # the message that Gradio ends its stream with

        async def hold(message: Message) -> None:
            nonlocal begun, ended
            if message["type"] == "http.response.start":
                if begun:
                    return
                begun = True
            elif self.END in message.get("body", b""):
                ended = message
            if ended is None:
                await send(message)

        while True:
            await self.app(scope, receive, hold)
            if ended is None:
                return
            if not await self._another_event(scope):
                break
            ended = None  # Gradio's stream begins again, and is the same one for the page
        await send(ended)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _another_event(self, scope: Scope) -> bool:
        session = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("session_hash", "")
        pending = scope["app"].get_blocks()._queue.pending_event_ids_session
        for _ in range(round(self.SECONDS / self.LOOK)):
            if pending.get(session):
                return True
            await anyio.sleep(self.LOOK)
        return False


class Compressed:
    """ASGI middleware that compresses the page and its scripts and styles: a third of the weight or less.

    Files that people load down are not compressed: most are already, and their size must be known for the browser to
    show how far it is.
    """

    SMALLEST = 1024  # bytes

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._compressing = GZipMiddleware(app, minimum_size=self.SMALLEST, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and _is_page(scope["path"])
        await (self._compressing if is_page else self.app)(scope, receive, send)


def _is_page(path: str) -> bool:
    return path in ("/", "/config", "/theme.css") or path.endswith((".js", ".css"))

"""What the server does with every request and response, beside Gradio."""

import re
import time
from collections import Counter
from http import HTTPStatus
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


class Streams:
    """ASGI middleware that ends a session's stream of updates only when its page can miss nothing by it.

    Gradio ends the stream when no event of the session is left. An event that the page sends just then is accepted, but
    the page, which has not read the end yet, takes the stream for open and opens none: nothing reaches it any more. So
    events that are being accepted are waited for, and once the end is sent, further ones wait until the page has read
    it: it hangs up then. A stream that breaks ends in the same way, else the page would take it for open for ever.
    Browsers must not cache a stream: the next one has the same address, and Chromium lets it wait up to 20 s for the
    cache's entry of the one before, or asks for it twice.
    """

    END = b"close_stream"
    LONGEST = 5.0  # seconds that a page may take to read the end; some never hang up
    LINGER = 0.3  # seconds after the last event within which another one goes on with the stream: they come in bursts
    LOOK = 0.01  # seconds between looks for another event

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._accepting: Counter[str] = Counter()  # events by session
        self._read: dict[str, anyio.Event] = {}  # set when the session's page has read the end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        if path.endswith("/queue/join"):
            await self._accept(scope, receive, send)
        elif path.endswith("/queue/data") and scope["method"] == "GET":
            await self._stream(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _accept(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        session = _session_of(b"".join(message.get("body", b"") for message in messages))
        with anyio.move_on_after(self.LONGEST):
            while session in self._read:  # the next stream may end before this event has its turn
                await self._read[session].wait()

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        self._accepting[session] += 1
        try:
            await self.app(scope, again, send)
        finally:
            self._accepting[session] -= 1
            if not self._accepting[session]:
                del self._accepting[session]

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("session_hash", "")
        status = 0
        ended = False  # by Gradio, as no event is left

        async def pass_on(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                begun, status = status, message["status"]
                MutableHeaders(scope=message)["cache-control"] = "no-store"
                if not begun:
                    await send(message)
            elif self.END in message.get("body", b""):
                ended = True
            elif message.get("more_body") or status != HTTPStatus.OK:
                await send(message)

        try:
            while True:
                ended = False
                await self.app(scope, receive, pass_on)
                if not ended or not await self._another_event(scope, session):
                    break  # else Gradio's stream begins again, and is the same one for the page
        finally:
            if status == HTTPStatus.OK:
                await self._end(session, receive, send)

    async def _another_event(self, scope: Scope, session: str) -> bool:
        """Whether one is accepted within a moment; those that are being accepted are waited for."""
        pending = scope["app"].get_blocks()._queue.pending_event_ids_session
        until = anyio.current_time() + self.LINGER
        while self._accepting[session] or anyio.current_time() < until:
            if pending.get(session):
                return True
            await anyio.sleep(self.LOOK)
        return bool(pending.get(session))

    async def _end(self, session: str, receive: Receive, send: Send) -> None:
        """Say that the stream has ended, and wait until the page hangs up."""
        read = self._read[session] = anyio.Event()
        await send({"type": "http.response.body", "body": b'data: {"msg":"%s"}\n\n' % self.END, "more_body": True})
        with anyio.move_on_after(self.LONGEST):
            while (await receive())["type"] != "http.disconnect":
                pass
        read.set()
        if self._read.get(session) is read:
            del self._read[session]
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _session_of(asked: bytes) -> str:
    """The session of an event, as Gradio's page writes it: last, and no text can hold its unescaped quotes."""
    found = re.findall(rb'"session_hash"\s*:\s*"([^"\\]*)"', asked)
    return found[-1].decode("latin-1") if found else ""


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

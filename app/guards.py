"""What the server refuses before Gradio sees it: what another site sends, what is too large, and what no page sends."""

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers as RequestHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    import gradio as gr


class SameOrigin:
    """ASGI middleware that refuses what another site's page sends: its reader didn't mean it.

    A browser names the origin of what it sends, and whether that is this server (`Sec-Fetch-Site`); programs name none.
    """

    SAFE = ("GET", "HEAD", "OPTIONS")
    OWN = ("same-origin", "none")

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in self.SAFE):
            headers = RequestHeaders(scope=scope)
            origin = headers.get("origin")
            foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
            if foreign or headers.get("sec-fetch-site", "none") not in self.OWN:
                reason = "Another site's page sent this, so it is refused. Open the studio itself."
                await PlainTextResponse(reason, HTTPStatus.FORBIDDEN)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class UploadQuota:
    """ASGI middleware that refuses uploads beyond a quota of all files in some folders, or on a full disk."""

    FREE = 2**30  # bytes of the disk that uploads leave free

    def __init__(self, app: ASGIApp, folders: Sequence[Path], quota: int) -> None:
        self.app, self._folders, self._quota = app, folders, quota

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith("/upload"):
            await self.app(scope, receive, send)
            return
        left = await anyio.to_thread.run_sync(self._left)
        length = RequestHeaders(scope=scope).get("content-length", "")
        if not length.isdecimal() or int(length) > left:  # a browser names the length; without one it has no bound
            reason = (
                f"There is no room for this upload: {max(0, left) / 1e6:.0f} MB are left for uploads. Remove datasets "
                "that nobody needs. Uploads that became no dataset are removed within two hours."
            )
            while length and (await receive()).get("more_body"):
                pass  # a browser shows the answer only once it has sent everything
            await PlainTextResponse(reason, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _left(self) -> int:
        """Bytes that may still be uploaded."""
        taken, free = 0, self._quota
        for folder in self._folders:
            with suppress(OSError):
                free = min(free, shutil.disk_usage(folder if folder.exists() else folder.parent).free - self.FREE)
            taken += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return min(self._quota - taken, free)


class Events:
    """ASGI middleware that refuses an event which none of the page's listeners takes.

    Gradio would answer it with a traceback in the terminal; a body without an end would fill the memory.
    """

    LARGEST = 32 * 2**20  # bytes of an event
    LONGEST = 2048  # bytes of a path

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and len(scope.get("raw_path", b"")) > self.LONGEST:
            await PlainTextResponse("The address is too long.", HTTPStatus.REQUEST_URI_TOO_LONG)(scope, receive, send)
            return
        if scope["type"] != "http" or not scope["path"].endswith("/queue/join"):
            await self.app(scope, receive, send)
            return
        parts = bytearray()
        message: Message = {"more_body": True}
        while message.get("more_body") and len(parts) <= self.LARGEST:
            message = await receive()
            parts += message.get("body", b"")
        body = bytes(parts)
        blocks: gr.Blocks = scope["app"].get_blocks()
        event = _parsed(body) if len(body) <= self.LARGEST else None
        reason = "is too large" if len(body) > self.LARGEST else _why_no_event(event, blocks)
        if reason:
            await PlainTextResponse(f"The event {reason}.", HTTPStatus.BAD_REQUEST)(scope, receive, send)
            return
        body, read = _as_the_page_sends(cast(_Event, event), body, blocks), False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


class _Event(TypedDict):
    """What of an event Gradio looks at."""

    data: list[object]
    fn_index: int
    session_hash: str


def _parsed(body: bytes) -> object:
    """A body as plain values; None if it is no JSON."""
    try:
        return json.loads(body, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None


def _as_the_page_sends(event: _Event, body: bytes, blocks: "gr.Blocks") -> bytes:
    """The body, with values of the types that listeners rely on.

    An empty text or list where a text field or a choice of several has none, as the page sends it; the first value of a
    browser's state where that holds another type.
    """
    import gradio as gr

    changed = False
    for i, field in enumerate(blocks.fns[event["fn_index"]].inputs):
        value = event["data"][i]
        if isinstance(field, gr.BrowserState) and not isinstance(value, type(field.default_value)):
            value = field.default_value
        elif value is None and isinstance(field, gr.Textbox):
            value = ""
        elif value is None and (
            isinstance(field, gr.CheckboxGroup) or (isinstance(field, gr.Dropdown) and field.multiselect)
        ):
            value = []
        changed = changed or value is not event["data"][i]
        event["data"][i] = value
    return json.dumps(event).encode() if changed else body


def _why_no_event(event: object, blocks: "gr.Blocks") -> str:
    """Why something is no event of the page; "" if it is one."""
    if not isinstance(event, dict) or not isinstance(event.get("data"), list):
        return "is not JSON, or has no list of data"
    session = event.get("session_hash")
    if not isinstance(session, str) or len(session) > 100:
        return "has no session"
    number = event.get("fn_index")
    listener = blocks.fns.get(number) if isinstance(number, int) else None
    if listener is None or listener.fn is None:
        return "is for no listener of this page"
    if len(event["data"]) != len(listener.inputs):
        return f"holds {len(event['data'])} values where its listener takes {len(listener.inputs)}"
    pairs = zip(listener.inputs, event["data"], strict=True)
    wrong = next((block for block, value in pairs if not _fits(block, value)), None)
    return f"holds no value of a {type(wrong).__name__} where its listener takes one" if wrong else ""


def _fits(block: object, value: object) -> bool:
    """Whether a value can be one of a component; only of those that Gradio doesn't check itself."""
    import gradio as gr

    if isinstance(block, gr.Number | gr.Slider):
        return value is None or (isinstance(value, int | float) and math.isfinite(value))
    return True


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")

"""The page as a whole: it builds, and nothing of it is a public endpoint."""

import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from threading import Thread
from types import SimpleNamespace
from typing import Any

import gradio as gr
import httpx
import pytest
from starlette.middleware import Middleware

from app.headers import Stamped, Streams
from app.page.forms import values
from app.page.handlers import Updates, arrival, latest
from app.services import Services
from app.ui import build
from hydralora.figures.palette import A_COLOUR, HEAD_COLOURS, HEAD_MARKS
from tests.conftest import FinishedRun


def test_the_page_builds_without_public_endpoints(services: Services) -> None:
    page = build(services)
    assert not page.analytics_enabled
    named = [fn.api_name for fn in page.fns.values() if fn.api_visibility == "public" and fn.fn is not None]
    assert named == []


def test_zero_in_an_optional_number_is_none() -> None:
    assert values(["tuner.num_heads", "training.seed"], [0, 0]) == {"tuner.num_heads": None, "training.seed": 0}


def test_heads_differ_by_colour_and_by_mark() -> None:
    assert len(set(HEAD_COLOURS)) == len(set(HEAD_MARKS)) == 8


@pytest.mark.parametrize("ground", ["#ffffff", "#111827"])
def test_a_heads_colour_is_seen_on_both_grounds(ground: str) -> None:
    assert min(_contrast(colour, ground) for colour in (*HEAD_COLOURS, A_COLOUR)) >= 3  # WCAG 1.4.11


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("said", [[], ["one", "two"]])
def test_a_stream_that_says_nothing_or_is_superseded_fills_nothing_at_its_end(
    services: Services, said: list[str], count: int
) -> None:
    session = uuid.uuid4().hex

    @latest(services, "words")
    def stream() -> Iterator[Updates]:
        for word in said:
            yield dict.fromkeys(filled, word)
        if said:
            services.sessions.newest(session, "words")
            yield dict.fromkeys(filled, "late")

    with gr.Blocks(analytics_enabled=False) as page:
        filled = [gr.Textbox("there") for _ in range(count)]
        page.load(stream, None, filled)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    try:
        asked = {"data": [], "fn_index": 0, "session_hash": session}
        httpx.post(f"{url}gradio_api/queue/join", json=asked).raise_for_status()
        with httpx.stream("GET", f"{url}gradio_api/queue/data", params={"session_hash": session}) as answer:
            told = [json.loads(line.removeprefix("data:")) for line in answer.iter_lines() if line]
    finally:
        page.close()
    values = [message["output"]["data"] for message in told if message["msg"] == "process_generating"]
    nothing = [{"__type__": "update"}] * count
    assert values[0] == ([said[0]] * count if said else nothing)
    (done,) = [message["output"]["data"] for message in told if message["msg"] == "process_completed"]
    assert done == nothing


def test_requests_bring_the_order_of_their_arrival() -> None:
    arrived: list[int | None] = []

    def note(request: gr.Request) -> None:
        arrived.append(arrival(request))

    with gr.Blocks(analytics_enabled=False) as page:
        page.load(note, None, None)
    guards = {"middleware": [Middleware(Stamped)]}
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, app_kwargs=guards)
    try:
        for session in ("first", "second"):
            asked = {"data": [], "fn_index": 0, "session_hash": session}
            httpx.post(f"{url}gradio_api/queue/join", json=asked).raise_for_status()
            with httpx.stream("GET", f"{url}gradio_api/queue/data", params={"session_hash": session}) as answer:
                answer.read()
    finally:
        page.close()
    first, second = arrived
    assert first
    assert second
    assert first < second


def test_an_event_that_comes_before_the_stream_s_end_is_read_waits_for_it() -> None:
    """The page takes the stream for open until it has read its end, so it would wait for the answer for ever."""
    with gr.Blocks(analytics_enabled=False) as page:
        page.load(lambda: None, None, None)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, app_kwargs={"middleware": [Middleware(Streams)]})
    asked = {"data": [], "fn_index": 0, "session_hash": "mine"}
    joined: list[tuple[str, float]] = []

    def join() -> str:
        event = str(httpx.post(f"{url}gradio_api/queue/join", json=asked).raise_for_status().json()["event_id"])
        joined.append((event, time.monotonic()))
        return event

    def answered(stop: Callable[[], None] = lambda: None) -> Iterator[str]:
        with httpx.stream("GET", f"{url}gradio_api/queue/data", params={"session_hash": "mine"}) as stream:
            for line in filter(None, stream.iter_lines()):
                told = json.loads(line.removeprefix("data:"))
                if told["msg"] == "process_completed":
                    yield told["event_id"]
                if told["msg"] == "close_stream":
                    stop()
                    return

    late: list[Thread] = []

    def read_late() -> None:
        late.append(Thread(target=join))
        late[0].start()
        time.sleep(0.5)  # a page that is busy: the server has sent the end, and it has not been read
        assert len(joined) == 1

    try:
        first = join()
        assert list(answered(read_late)) == [first]
        late[0].join(10)
        assert list(answered()) == [joined[1][0]]
    finally:
        page.close()


@pytest.fixture
def ask(services: Services, finished: FinishedRun) -> Callable[[str, str], Iterator[Updates]]:
    """What the page answers to a session's question, by the chat's own listener."""
    asking = [fn for fn in build(services).fns.values() if getattr(fn.fn, "__name__", "") == "answer"]
    answer: Any = max(asking, key=lambda fn: len(fn.inputs)).fn  # the chat's: Runs answers a file's rows

    def ask(session: str, question: str) -> Iterator[Updates]:
        asked: list[Any] = [question, "", finished.run.id, "", [], None, [], None, ""]
        sampling: list[Any] = [6, 0.0, 1.0, 0]
        return answer(SimpleNamespace(session_hash=session), *asked, *sampling)

    return ask


def shown(updates: Iterable[Updates]) -> list[Updates]:
    """Those that change something: a slow answer ends with others."""
    return [update for update in updates if update != gr.skip()]


def test_a_second_question_takes_the_place_of_the_first(ask: Callable[[str, str], Iterator[Updates]]) -> None:
    first, elsewhere = ask("mine", "which tool fixes aa engine"), ask("another", "which tool fixes bb engine")
    next(first)
    next(elsewhere)
    second = list(ask("mine", "which tool fixes cc engine"))
    assert list(first) == [gr.skip()]
    assert "bb engine" in repr(shown(elsewhere)[-1])
    assert "cc engine" in repr(shown(second)[-1])


def test_an_empty_question_leaves_the_answer_that_is_given(ask: Callable[[str, str], Iterator[Updates]]) -> None:
    first = ask("mine", "which tool fixes aa engine")
    next(first)
    with pytest.raises(gr.Error, match="empty"):
        list(ask("mine", " "))
    assert "aa engine" in repr(shown(first)[-1])


def test_figures_are_saved_with_captions_that_are_on_the_page(services: Services) -> None:
    blocks = [block for block in build(services).blocks.values() if isinstance(block, gr.HTML)]
    named = {found for block in blocks for found in re.findall(r'data-caption="([^"]+)"', block.html_template)}
    assert {"ab-help", "breakdown-caption", "trajectory-help", "map-help", "use-sentence"} <= named
    assert named <= {block.elem_id for block in blocks}


def test_a_picture_is_drawn_by_one_listener(services: Services) -> None:
    """With two of the same, the one that a person caused last is not always called last."""
    newest_only = [fn.fn for fn in build(services).fns.values() if fn.fn and "latest." in fn.fn.__qualname__]
    assert len(newest_only) > 5
    assert [function.__name__ for function, count in Counter(newest_only).items() if count > 1] == []


def test_no_two_listeners_of_an_event_wait_for_its_last_change(services: Services) -> None:
    """Two of them call each other for ever: Gradio's page repeats the whole event of a listener that waited."""
    waiting = Counter(
        target
        for fn in build(services).fns.values()
        if fn.fn and fn.trigger_mode == "always_last"
        for target in fn.targets
    )
    assert waiting
    assert [target for target, count in waiting.items() if count > 1] == []

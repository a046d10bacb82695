"""Mutated requests to a running app: it answers, and its log has no traceback.

HYDRALORA_FUZZ_SECONDS and HYDRALORA_SEED set how long, and which (`make test-faults`).
"""

import json
import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest

from tests.fuzz.mutations import HOSTILE, other_bytes
from tests.serving import App, running_app

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("HYDRALORA_FUZZ_SECONDS", "40")) / 2
SEED = int(os.environ.get("HYDRALORA_SEED", "0"))
MEMORY = 2 * 2**30  # bytes besides those that the app begins with
ANSWERS = 10.0  # seconds in which the page is served, on an idle machine
OURS = re.compile(r'File "[^"]*/app/(actions|tabs|services|widgets|teaching|streams)|/hydralora/')  # not only Gradio's
PATHS = (
    "/",
    "/config",
    "/theme.css",
    "/gradio_api/info",
    "/gradio_api/file={}",
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/queue/data?session_hash={}",
    "/gradio_api/stream/{}/0/playlist.m3u8",
    "/studio/answers/{}",
    "/studio/answers/{}/prompt",
    "/?page={}",
    "/class/{}",
    "/static/{}",
    "/assets/{}",
)
TEXTS = (
    "../../../etc/passwd",
    "%00",
    "a" * 5000,
    "‮",
    "<script>",
    "'\"",
    "null",
    "-1",
    "C:\\Windows",
    "\x1b[2J",
    "~root",
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, user_environment: dict[str, str]) -> Iterator[App]:
    workspace = tmp_path_factory.mktemp("requests") / "workspace"
    with running_app(workspace, user_environment | {"OMP_NUM_THREADS": "1"}) as app:
        yield app


def event(client: httpx.Client, page: dict[str, Any], draw: random.Random) -> None:
    """Something that a page could send to one of its listeners, with other values."""
    call = draw.choice(page["dependencies"])
    in_browser = {one["id"]: one for one in page["components"] if one["type"] == "browserstate"}
    values = [draw.choice((*HOSTILE[:3], *HOSTILE)) for _ in call["inputs"]]
    for i, field in enumerate(call["inputs"]):
        if field in in_browser and draw.random() < 0.7:
            values[i] = kept(in_browser[field]["props"]["default_value"], draw)
    change = draw.random()
    values = values[:-1] if change < 0.15 else [*values, None] if change > 0.85 else values
    asked: dict[str, Any] = {"data": values, "fn_index": call["id"], "session_hash": f"s{draw.randrange(5)}"}
    if draw.random() < 0.1:
        asked[draw.choice(list(asked))] = draw.choice(HOSTILE)
    if draw.random() < 0.3:
        asked["event_data"] = draw.choice(HOSTILE)
    body = json.dumps(asked).encode("utf-8", "surrogatepass")
    if draw.random() < 0.1:
        body = other_bytes(body, draw)
    client.post("/gradio_api/queue/join", content=body, headers={"Content-Type": "application/json"})


def kept(empty: Any, draw: random.Random) -> Any:
    """What a browser could keep, with other values in it."""
    if isinstance(empty, list):
        turn = {name: draw.choice(HOSTILE) for name in ("question", "expected", "answers")}
        return [turn | {"question": "", "expected": ""}, draw.choice(HOSTILE), turn][: draw.randint(1, 3)]
    names = ("run", "dataset", "turns", "runs", "guesses", "adapter", "sandbox", "k", "tuner.r", "training.max_steps")
    return {name: draw.choice((*HOSTILE, [draw.choice(HOSTILE)])) for name in names if draw.random() < 0.7}


def upload(client: httpx.Client, draw: random.Random) -> None:
    name = draw.choice((*TEXTS, "a.jsonl", "a.csv.gz", "a.parquet", "a.zip"))
    content = other_bytes(b'{"instruction": "a", "output": "b"}\n' * 20, draw)
    client.post("/gradio_api/upload", files={draw.choice(("files", "file", "x")): (name.replace("\x1b", ""), content)})


def page(client: httpx.Client, draw: random.Random) -> None:
    path = draw.choice(PATHS).format(quote(draw.choice(TEXTS)))
    method = draw.choice(("GET", "GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"))
    with client.stream(method, path) as answer:  # some streams go on for ever
        assert answer.status_code != 500, (method, path)


def test_no_request_ends_it(app: App) -> None:
    draw, until, sent = random.Random(f"requests {SEED}"), time.monotonic() + SECONDS, 0
    process = psutil.Process(app.process.pid)
    least = process.memory_info().rss
    with httpx.Client(base_url=app.url, timeout=60) as client:
        config = client.get("/config").json()
        while time.monotonic() < until or sent < 100:
            kind = draw.choice(("event", "event", "event", "upload", "page"))
            with suppress(httpx.ReadError, httpx.RemoteProtocolError):  # it may hang up on what isn't HTTP
                if kind == "event":
                    event(client, config, draw)
                else:
                    (upload if kind == "upload" else page)(client, draw)
            sent += 1
            assert process.memory_info().rss - least < MEMORY
        begun = _processor_seconds(process)
        assert client.get("/").status_code == 200
        assert _processor_seconds(process) - begun < ANSWERS
    log = app.log.read_text(encoding="utf-8", errors="replace")
    ours = [part for part in log.split("Traceback (most recent call last):") if OURS.search(part)]
    assert not ours, ours[0][:6000]
    print(f"requests: {sent}")


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system

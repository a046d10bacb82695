"""The app as a real process, and a real browser on it."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from hydralora.data.demo import demo_file
from hydralora.recipe.reading import parse_recipe
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.store import RunStore
from tests.browser.steps import SIZE
from tests.serving import App, running_app
from tests.tiny_model import write_tiny_model

ARGUMENTS = (
    "--no-sandbox --disable-background-networking --disable-component-update --disable-sync --no-first-run "
    "--use-gl=swiftshader --enable-webgl --ignore-gpu-blocklist"
).split()
PATIENCE = 120_000  # milliseconds: on a slow machine a worker alone takes half a minute to begin
expect.set_options(timeout=PATIENCE)
SCRIPT = "<img src=x onerror='window.hacked = 1'>"
STEPS = 60  # of a finished run
SNAPSHOTS = 6  # of its matrices, beside the one at its start


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, user_environment: dict[str, str]) -> Iterator[App]:
    """With a tiny base model called "tiny" in its workspace: one thread computes it fastest, and its answers may be so
    long that there is time to stop them."""
    workspace = tmp_path_factory.mktemp("app") / "workspace"
    write_tiny_model(workspace / "models" / "tiny", sharpness=20, max_position_embeddings=4096)
    with running_app(workspace, user_environment | {"OMP_NUM_THREADS": "1"}) as app:
        yield app


@pytest.fixture(scope="session")
def shipped_app(tmp_path_factory: pytest.TempPathFactory, user_environment: dict[str, str]) -> Iterator[App]:
    """On a fresh workspace, with the run that ships and the real default model."""
    with running_app(tmp_path_factory.mktemp("shipped") / "workspace", user_environment) as app:
        yield app


@pytest.fixture(scope="session")
def routed(app: App) -> Run:
    """A HydraLoRA of the tiny model on the demo, finished; all tests share it."""
    return _train(app, "hydralora", 4)


@pytest.fixture(scope="session")
def plain(app: App) -> Run:
    """A LoRA on the same."""
    return _train(app, "lora", 16)


def _train(app: App, method: str, r: int) -> Run:
    jobs = JobManager(RunStore(app.workspace))
    training = {"max_steps": STEPS, "learning_rate": 0.01, "log_every": 1, "eval_every": 0, "snapshots": SNAPSHOTS}
    recipe = {
        "model": str(app.workspace / "models" / "tiny"),
        "method": method,
        "data": {"train": [str(demo_file("train"))], "eval": str(demo_file("heldout"))},
        "tuner": {"r": r},
        "training": training | {"threads": 1},
    }
    run = jobs.start(parse_recipe(recipe))
    assert jobs.follow(run).state == "finished"
    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = os.environ.get("HYDRALORA_BROWSER") or "/usr/bin/chromium"
    assert Path(path).exists(), f"there is no browser at {path}: `make test` installs one, or set HYDRALORA_BROWSER"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@dataclass
class Seen:
    """What a page did that it should not: requests to other machines, and errors."""

    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def new_page(browser: Browser, **context: Any) -> Page:
    width, height = SIZE
    page = browser.new_context(viewport={"width": width, "height": height}, **context).new_page()
    page.set_default_timeout(PATIENCE)
    return page


@pytest.fixture
def address(app: App) -> str:
    """What `page` opens."""
    return f"{app.url}/?page=data"


@pytest.fixture
def page(app: App, address: str, browser: Browser, seen: Seen) -> Iterator[Page]:
    page = new_page(browser, color_scheme="light")
    own = re.compile(rf"^({re.escape(app.url)}|data:|blob:)")
    page.on("request", lambda request: None if own.match(request.url) else seen.foreign.append(request.url))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(address)
    yield page
    page.context.close()


@pytest.fixture(scope="session")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three skills, 40 rows of each; one row tries to be HTML."""
    rows = []
    for i in range(40):
        a, b = chr(ord("a") + i % 26), chr(ord("a") + i // 2)
        rows.append({"instruction": f"name a fruit, ripe fruit {a}{b}", "output": "plum", "task": "fruit"})
        rows.append({"instruction": f"which tool repairs engine {a}{b}", "output": "saw", "task": "tool"})
        rows.append({"instruction": f"city far north, winter city {a}{b}", "output": "oslo", "task": "city"})
    rows[0]["instruction"] += f" {SCRIPT}"
    path = tmp_path_factory.mktemp("upload") / "three skills.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path

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

from tests.serving import App, running_app
from tests.tiny_model import write_tiny_model

SCREENSHOTS = Path(__file__).parent.parent / "screenshots"
ARGUMENTS = (
    "--no-sandbox --disable-background-networking --disable-component-update --disable-sync --no-first-run "
    "--use-gl=swiftshader --enable-webgl --ignore-gpu-blocklist"
).split()
PATIENCE = 120_000  # milliseconds: on a slow machine a worker alone takes half a minute to begin
expect.set_options(timeout=PATIENCE)
SCRIPT = "<img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, user_environment: dict[str, str]) -> Iterator[App]:
    """With a tiny base model called "tiny" in its workspace."""
    workspace = tmp_path_factory.mktemp("app") / "workspace"
    write_tiny_model(workspace / "models" / "tiny", sharpness=20)
    with running_app(workspace, user_environment) as app:
        yield app


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
    page = browser.new_context(viewport={"width": 1280, "height": 900}, **context).new_page()
    page.set_default_timeout(PATIENCE)
    return page


@pytest.fixture
def page(app: App, browser: Browser, seen: Seen) -> Iterator[Page]:
    page = new_page(browser, color_scheme="light")
    own = re.compile(rf"^({re.escape(app.url)}|data:|blob:)")
    page.on("request", lambda request: None if own.match(request.url) else seen.foreign.append(request.url))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(app.url)
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

"""Every page: its main picture and the control that changes it are on one screen, and anyone can use it."""

from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from hydralora.runs.run import Run
from tests.browser.conftest import Seen, new_page
from tests.browser.steps import audited, open_page, settle
from tests.serving import App

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SCREEN = 1280, 720
Theme = Literal["light", "dark"]
# What is filled once a page is ready, and what must be on the screen then.
PAGES = {
    "data": ("#batch .special", ["#data-summary", "#upload", "#use-demo", "#data-table", "#as-seen", "#to-clusters"]),
    "components": (
        "#elbow .main-svg",
        ["#clusters-sentence", "#map", "#map-method", "#map-colour", "#component-list", "#elbow", "#use-heads"],
    ),
    "train": ("#use .main-svg", ["#status", "#results", "#use"]),  # of a run that has ended
    "explore": ("#ab-0 .main-svg", ["#points", "#ab-what", "#ab-method", "#ab-colour"]),
    "chat": ("#chips button", ["#prompt", "#send", "#chips", "#mixer", "#chat-columns"]),
    "runs": ("#runs-table tbody tr", ["#runs-table"]),
    "lab": ("#lab-cards .study-card", ["#lab-cards", "#lab-seeds", "#lab-steps", "#lab-start", "#lab-price"]),
    "learn": ("#formula .strip .token", ["#learn-prompt", "#learn-layer", "#formula .strip", "#formula .picture"]),
}


@pytest.fixture(params=["light", "dark"])
def theme(request: pytest.FixtureRequest) -> Theme:
    return request.param


@pytest.fixture
def studio(app: App, routed: Run, browser: Browser, theme: Theme, seen: Seen) -> Iterator[Page]:
    page = new_page(browser, color_scheme=theme, reduced_motion="reduce")
    page.set_viewport_size({"width": SCREEN[0], "height": SCREEN[1]})
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(f"{app.url}/?page=data&run={routed.id}")
    yield page
    page.context.close()


def test_each_page_fits_one_screen_and_passes_the_audit(studio: Page, seen: Seen) -> None:
    for name, (ready, together) in PAGES.items():
        open_page(studio, name)
        studio.locator(ready).first.wait_for()
        settle(studio)
        _on_screen(studio, together, name)
        audited(studio, name)
    assert seen.errors == []


def test_an_answer_and_its_gates_are_on_one_screen(studio: Page, seen: Seen) -> None:
    page = studio
    open_page(page, "chat")
    page.locator("#prompt textarea").fill("which tool repairs engine zz")
    page.locator("#send").click()
    page.locator("#answer-run .tokens .token").first.wait_for()
    parts = ["#answer-run .tokens", "#prompt", "#send", "#mixer", "#heatmap"]
    _on_screen(page, parts, "an answer that streams")
    audited(page, "chat, while it answers")
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()
    _on_screen(page, parts, "an answer")
    audited(page, "chat, with an answer")
    assert seen.errors == []


def _on_screen(page: Page, selectors: list[str], where: str) -> None:
    """All of them are whole on the screen as it opens, without scrolling."""
    assert page.evaluate("window.scrollY") == 0
    for selector in selectors:
        box = page.locator(selector).first.bounding_box()
        assert box, f"{where}: {selector} is not shown"
        width, height = SCREEN
        assert 0 <= box["x"] <= width - box["width"], f"{where}: {selector} at {box}"
        assert 0 <= box["y"] <= height - box["height"], f"{where}: {selector} at {box}"

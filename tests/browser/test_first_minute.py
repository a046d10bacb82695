"""The first minute: a fresh workspace opens on a run that ships; a click asks, gates light up, another head fails."""

import shutil
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from hydralora.runs.run import SHIPPED_ID
from hydralora.runs.store import RunStore
from tests.browser.conftest import Seen, new_page
from tests.browser.steps import audited_in_both_themes, open_page
from tests.serving import App, running_app

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = ["data", "train", "runs", "lab", "explore", "learn", "chat", "components"]
SECONDS = 60  # on a busy machine; without other work it takes a fifth of that


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, user_environment: dict[str, str]) -> Iterator[App]:
    """The app on a workspace that does not exist yet, with the real default model."""
    with running_app(tmp_path_factory.mktemp("fresh") / "workspace", user_environment) as app:
        yield app


@pytest.fixture
def first(fresh: App, browser: Browser, seen: Seen) -> Iterator[Page]:
    page = new_page(browser, color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 720})
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(fresh.url)
    yield page
    page.context.close()


def test_two_clicks_show_a_head_at_work_and_another_one_fail(first: Page, seen: Seen) -> None:
    page, began = first, time.monotonic()
    page.locator("#chips button").filter(has_text="everse").first.click()
    page.locator("#answer-run .tokens .token[data-head]").first.wait_for()
    print(f"gates after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < SECONDS
    assert SHIPPED_ID in page.url
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()
    expected = page.locator("#conversation .expected").inner_text().removeprefix("expected: ")
    answer = page.locator("#answer-run .tokens").inner_text()
    assert answer == expected
    leading = page.locator("#answer-run .tokens .token").first.get_attribute("data-head")
    other = page.locator(f"#mixer .channel:not([data-head='{leading}']) .solo").last
    other.click()
    expect(page.locator("#answer-steered[data-ended]")).to_be_visible()
    expect(page.locator("#answer-steered .verdict")).to_have_text("Wavy underline: differs")
    assert page.locator("#answer-steered .tokens").inner_text() != answer
    _all_in_view(
        page, "#prompt", "#answer-run", "#answer-steered", "#mixer", "#heatmap", "#chips", "#stepper", "#run-name"
    )
    assert seen.errors == []


def test_the_first_minute_by_keyboard_alone(first: Page, seen: Seen) -> None:
    page = first
    page.locator("#chips button").first.wait_for()
    _tab_to(page, "#chips button")
    page.keyboard.press("Enter")
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()
    _tab_to(page, "#answer-run .tokens")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#mixer .caption")).to_contain_text("token 1 of")
    _tab_to(page, "#mixer .channel .solo")
    page.keyboard.press("Space")
    expect(page.locator("#answer-steered[data-ended]")).to_be_visible()
    assert seen.errors == []


def test_pages_without_a_run_pass_the_audit(fresh: App, browser: Browser, seen: Seen) -> None:
    for run in RunStore(fresh.workspace).all():
        shutil.rmtree(run.folder)  # the run that ships can't be deleted otherwise
    page = new_page(browser, color_scheme="light", reduced_motion="reduce")
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(fresh.url)
    expect(page.locator("#run-name select")).to_contain_text("No run yet")
    for name in PAGES:
        open_page(page, name)
        audited_in_both_themes(page, f"{name} without a run")
    page.context.close()
    assert seen.errors == []


def _tab_to(page: Page, selector: str) -> None:
    """Press Tab until this is focused."""
    for _ in range(80):
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not reach {selector}")


def _all_in_view(page: Page, *selectors: str) -> None:
    """One viewport: all of them are inside of it, without scrolling."""
    size = page.viewport_size
    assert size
    for selector in selectors:
        box = page.locator(selector).first.bounding_box()
        assert box, selector
        assert box["y"] >= 0, selector
        assert box["y"] + box["height"] <= size["height"] + 1, (selector, box)
        assert box["x"] + box["width"] <= size["width"] + 1, (selector, box)

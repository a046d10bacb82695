"""The tour by keyboard, its steps as links, left and resumed; links to tokens."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from hydralora.runs.run import SHIPPED_ID
from tests.browser.conftest import Seen, new_page
from tests.browser.steps import audited_in_both_themes, expect_page, open_page
from tests.serving import App

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = ["data", "components", "components", "explore", "chat", "chat", "chat", "chat"]
SPOTS = ["data-table", None, None, None, "mixer", "heatmap", "conversation", "answer-base"]  # None: may be named anew
WIDE, NARROW = (1280, 720), (390, 844)


@pytest.fixture(params=[WIDE], ids=["wide"])
def tour(request: pytest.FixtureRequest, shipped_app: App, browser: Browser, seen: Seen) -> Iterator[Page]:
    page = new_page(browser, color_scheme="light", reduced_motion="reduce")
    page.set_viewport_size({"width": request.param[0], "height": request.param[1]})
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(shipped_app.url)
    page.locator("#chips button").first.wait_for()
    yield page
    page.context.close()


def step(page: Page, number: int) -> None:
    """A step is shown, with the focus on its key."""
    expect(page.locator(f".driver-popover[data-step='{number}']")).to_be_visible()
    expect(page.locator(".driver-popover [class*=btn]:focus")).to_have_count(1)


def query(page: Page, name: str) -> str | None:
    return page.evaluate("name => new URLSearchParams(location.search).get(name)", name)


@pytest.mark.parametrize("tour", [WIDE, NARROW], indirect=True, ids=["wide", "narrow"])
def test_the_whole_tour_by_keyboard(tour: Page, seen: Seen) -> None:
    page, narrow = tour, tour.viewport_size == {"width": NARROW[0], "height": NARROW[1]}
    if narrow:
        page.get_by_role("button", name="Steps").press("Enter")
    page.locator("#stepper [data-opens=tour]" if narrow else "#bar [data-opens=tour]").press("Enter")
    for number, (name, spot) in enumerate(zip(PAGES, SPOTS, strict=True), 1):
        step(page, number)
        expect(page.locator("body")).to_have_attribute("data-page", name)
        assert query(page, "step") == str(number)
        page.wait_for_function("id => new URLSearchParams(location.search).get('run') === id", arg=SHIPPED_ID)
        if number == 6:
            expect(page.locator("#answer-run .tokens")).to_have_text("lamp, cloud, boat, apple")
            expect(page.locator("#answer-run .token[aria-selected=true]")).to_have_attribute("data-place", "3")
            assert query(page, "token") == "3"
        if number == 7:
            expect(page.locator("#mixer .channel[data-head='3'] .solo")).to_have_attribute("aria-pressed", "true")
            expect(page.locator("#answer-steered[data-ended] .verdict")).to_have_text("Wavy underline: differs")
            assert page.locator("#answer-steered .tokens").inner_text().startswith("{")
        if spot:
            expect(page.locator(f"#{spot}.driver-active-element")).to_be_visible()
        else:
            expect(page.locator(".driver-active-element:not(#driver-dummy-element)")).to_be_visible()
        if number == 8:
            expect(page.locator("#answer-steered")).to_have_count(0)
        _dialog_in_view(page)
        if number in (2, 7) and not narrow:
            audited_in_both_themes(page, f"step {number} of the tour")
        page.keyboard.press("Enter" if number % 2 else "ArrowRight")
    expect(page.locator(".driver-popover")).to_have_count(0)
    assert query(page, "step") is None
    focused = "#bar .menu" if narrow else "#bar [data-opens=tour]"
    assert page.evaluate("selector => document.activeElement.matches(selector)", focused)
    expect(page.locator("#conversation .turn")).to_have_count(0)  # what was there before is there again
    assert seen.errors == []


def test_left_and_resumed_where_it_was(tour: Page, seen: Seen) -> None:
    page = tour
    page.locator("#bar [data-opens=tour]").click()
    for number in (1, 2, 3):
        step(page, number)
        page.keyboard.press("ArrowRight")
    step(page, 4)
    page.keyboard.press("ArrowLeft")
    step(page, 3)
    page.keyboard.press("Escape")
    expect(page.locator(".driver-popover")).to_have_count(0)
    assert query(page, "step") is None
    page.reload()
    expect(page.locator("#run-name select")).to_have_value(SHIPPED_ID)
    page.locator("#bar [data-opens=tour]").click()
    step(page, 3)
    assert seen.errors == []


def test_the_focus_stays_with_the_step(tour: Page) -> None:
    page = tour
    page.locator("#bar [data-opens=tour]").click()
    step(page, 1)
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("Boolean(document.activeElement.closest('.driver-popover, .driver-active-element'))")


@pytest.mark.parametrize("token", [None, 1])
def test_a_step_is_a_link(tour: Page, shipped_app: App, seen: Seen, token: int | None) -> None:
    page = tour
    more = "" if token is None else f"&token={token}"
    page.goto(f"{shipped_app.url}/?page=chat&run={SHIPPED_ID}&step=6{more}")
    step(page, 6)
    place = str(3 if token is None else token)
    expect(page.locator("#answer-run .token[aria-selected=true]")).to_have_attribute("data-place", place)
    expect(page.locator("#heatmap.driver-active-element")).to_be_visible()
    page.reload()
    step(page, 6)
    assert seen.errors == []


@pytest.mark.parametrize("bad", ["abc", "0", "9", "99", "-1", "1.5", "%3Cimg%3E"])
def test_a_step_that_there_is_not_is_a_message(tour: Page, shipped_app: App, seen: Seen, bad: str) -> None:
    page = tour
    page.goto(f"{shipped_app.url}/?page=chat&step={bad}")
    expect(page.locator("#notice")).to_contain_text("The tour has the steps 1 to 8")
    expect(page.locator(".driver-popover")).to_have_count(0)
    expect_page(page, "chat")
    assert query(page, "step") is None
    assert seen.errors == []


def test_a_run_that_there_is_not_is_a_message(tour: Page, shipped_app: App, seen: Seen) -> None:
    page = tour
    page.goto(f"{shipped_app.url}/?page=chat&run=20990101-000000-0000")
    expect(page.locator(".toast-body")).to_contain_text("There is no run 20990101-000000-0000")
    expect_page(page, "chat")
    assert seen.errors == []


def test_a_token_is_a_link(tour: Page, seen: Seen) -> None:
    page = tour
    page.locator("#chips button").filter(has_text="everse").first.click()
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()
    page.locator("#answer-run .token").nth(2).click()
    assert query(page, "token") == "2"
    page.reload()
    expect(page.locator("#answer-run .token[aria-selected=true]")).to_have_attribute("data-place", "2")
    open_page(page, "data")
    open_page(page, "chat")
    count = page.locator("#answer-run .token").count()
    for bad in (str(count), "99", "abc", "-1"):
        page.goto(page.url.partition("?")[0] + f"?page=chat&token={bad}")
        expect(page.locator("#notice")).to_contain_text(f"the newest answer has the tokens 0 to {count - 1}")
        expect(page.locator("#answer-run .token[aria-selected=true]")).to_have_count(0)
        assert query(page, "token") is None
    assert seen.errors == []


def _dialog_in_view(page: Page) -> None:
    page.wait_for_function("""() => {
      const box = document.querySelector('.driver-popover')?.getBoundingClientRect();
      const {left, top, right, bottom, width = 0} = box ?? {};
      return width > 0 && left >= 0 && top >= 0 && right <= innerWidth + 1 && bottom <= innerHeight + 1;
    }""")

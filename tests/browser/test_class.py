"""Present: a picture a screen, by arrow keys, and saved as a page. Class: a second browser follows."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from hydralora.runs.run import SHIPPED_ID
from tests.browser.conftest import Seen, new_page
from tests.browser.steps import SCREENSHOTS, audited, audited_in_both_themes, open_page
from tests.serving import App

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NAMES = ["data", "number", "components", "loss", "training", "heads", "use"]
NAMES += ["answer-1", "alone-1", "answer-2", "answer-3", "answer-4"]
LARGE = 20  # pixels: the least size of a presented text, but for what stands beside a picture
FOLLOWS = 2.0  # seconds


@pytest.fixture
def presenter(shipped_app: App, browser: Browser, seen: Seen) -> Iterator[Page]:
    page = new_page(browser, color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 720})
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(shipped_app.url)
    page.locator("#chips button").first.wait_for()
    yield page
    page.context.close()


def screen(page: Page, name: str, root: str = "#present .screen") -> None:
    expect(page.locator(root)).to_have_attribute("data-screen", name)


def present(page: Page) -> None:
    page.locator("#bar [data-opens=present]").click()
    screen(page, "data")


def test_arrow_keys_go_through_the_screens(presenter: Page, seen: Seen) -> None:
    page = presenter
    present(page)
    for name in NAMES:
        screen(page, name)
        assert page.evaluate("new URLSearchParams(location.search).get('present')") == name
        assert (
            page.locator(
                "#present .screen input:not(.place), #present .screen select, #present .screen textarea"
            ).count()
            == 0
        )
        caption = page.locator("#present .caption")
        assert float(caption.evaluate("node => parseFloat(getComputedStyle(node).fontSize)")) >= LARGE
        _fits(page, "#present .picture")
        if name in ("use", "answer-1"):
            audited_in_both_themes(page, f"the screen {name}")
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    screen(page, NAMES[-2])
    page.keyboard.press("Escape")
    expect(page.locator("#present")).to_be_hidden()
    assert page.evaluate("document.activeElement.dataset.opens") == "present"
    assert page.evaluate("new URLSearchParams(location.search).get('present')") is None
    assert seen.errors == []


@pytest.mark.parametrize("name", ["training", "nothing"])
def test_a_screen_is_a_link(presenter: Page, shipped_app: App, seen: Seen, name: str) -> None:
    page = presenter
    page.goto(f"{shipped_app.url}/?page=chat&run={SHIPPED_ID}&present={name}")
    screen(page, name if name in NAMES else "data")
    assert seen.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_a_projector_shows_it(presenter: Page, scheme: str, size: tuple[int, int]) -> None:
    page = presenter
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.evaluate("dark => studio.theme(dark)", scheme == "dark")
    present(page)
    for name in ("training", "answer-1"):
        page.evaluate("name => studio.present.open(name)", name)
        screen(page, name)
        page.wait_for_timeout(500)
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"present-{name}-{size[0]}-{scheme}.png")
        _fits(page, "#present .picture")


def test_a_lecture_is_one_file_that_shows_the_same_offline(
    presenter: Page, browser: Browser, seen: Seen, tmp_path: Path
) -> None:
    page = presenter
    page.locator("#chips button").filter(has_text="everse").first.click()
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()
    expect(page.locator("#answer-base[data-ended]")).to_be_visible()
    present(page)
    page.locator("#present summary").click()
    with page.expect_download() as download:
        page.locator("#present .save").click()
    download.value.save_as(tmp_path / "lecture.html")
    shown = {}
    for name in [*NAMES, "turn"]:
        screen(page, name)
        if page.locator("#present .picture.figure").count():
            page.wait_for_function("document.querySelector('#present .js-plotly-plot')?.data?.length > 0")
        shown[name] = page.evaluate(CONTENT, "#present .screen")
        page.keyboard.press("PageDown")
    alone = new_page(browser, offline=True)
    alone.on("pageerror", lambda error: seen.errors.append(str(error)))
    alone.on(
        "request", lambda request: seen.foreign.append(request.url) if not request.url.startswith("file:") else None
    )
    alone.set_viewport_size({"width": 1280, "height": 720})
    alone.goto((tmp_path / "lecture.html").as_uri())
    for name in [*NAMES, "turn"]:
        screen(alone, name, "#screen")
        if shown[name]["traces"]:
            alone.wait_for_function("document.querySelector('#screen .js-plotly-plot')?.data?.length > 0")
        assert alone.evaluate(CONTENT, "#screen") == shown[name], name
        alone.keyboard.press("ArrowRight")
    assert [answer["name"] for answer in _answers(alone)] == ["Tuned", "Base model"]
    alone.locator(".play").click()
    alone.wait_for_function("document.querySelectorAll('.token.later').length > 0")
    assert seen.errors == seen.foreign == []
    alone.context.close()


def test_a_second_browser_follows_the_presenter(presenter: Page, browser: Browser, seen: Seen) -> None:
    page = presenter
    page.locator("#bar [data-opens=class]").click()
    expect(page.locator("#class-dialog img")).to_be_hidden()
    page.locator("#class-dialog .start").click()
    expect(page.locator("#class-dialog img")).to_be_visible()
    audited_in_both_themes(page, "the class's dialog")
    expect(page.locator("#class-dialog .reach")).to_contain_text("Only this machine can open this address")
    address = page.locator("#class-dialog a").get_attribute("href") or ""
    page.locator("#class-dialog .close").click()
    viewer = new_page(browser, color_scheme="dark")
    viewer.on("pageerror", lambda error: seen.errors.append(str(error)))
    viewer.set_viewport_size({"width": 390, "height": 844})
    viewer.goto(address)
    screen(viewer, "answer-1", "#screen")  # the presenter is in Chat and has asked nothing
    open_page(page, "explore")
    screen(viewer, "heads", "#screen")
    viewer.wait_for_function("document.querySelector('#screen .js-plotly-plot')?.data?.length > 0")
    present(page)
    for name in NAMES[1:4]:
        page.keyboard.press("ArrowRight")
        screen(page, name)
        began = time.monotonic()
        screen(viewer, name, "#screen")
        assert time.monotonic() - began < FOLLOWS, name
    viewer.locator("#look").click()
    viewer.locator("#list button", has_text=re.compile("each head alone")).click()
    screen(viewer, "alone-1", "#screen")
    page.keyboard.press("ArrowRight")
    viewer.wait_for_timeout(1000)
    screen(viewer, "alone-1", "#screen")
    viewer.locator("#follow").click()
    screen(viewer, NAMES[4], "#screen")
    assert viewer.evaluate("document.documentElement.scrollWidth") <= 390
    for name in NAMES[5:8]:
        page.keyboard.press("ArrowRight")
        screen(page, name)
    screen(viewer, "answer-1", "#screen")
    page.locator("#present input.place").fill("3")
    expect(viewer.locator("#screen .count")).to_contain_text("4 of")
    audited(viewer, "an audience's page")
    page.reload()
    expect(page.locator("#bar [data-opens=class]")).to_have_attribute("aria-pressed", "true")
    page.locator("#present [data-opens=class]").click()
    page.locator("#class-dialog .end").click()
    expect(page.locator("#class-dialog img")).to_be_hidden()
    expect(viewer.locator("#state")).to_have_text("The class has ended.")
    viewer.goto(address)
    expect(viewer.locator("body")).to_contain_text("This class has ended")
    assert seen.errors == []
    viewer.context.close()


def test_the_audience_sees_the_answer_and_the_token_that_the_presenter_picks(presenter: Page, browser: Browser) -> None:
    page = presenter
    page.locator("#bar [data-opens=class]").click()
    page.locator("#class-dialog .start").click()
    address = page.locator("#class-dialog a")
    expect(address).to_have_attribute("href", re.compile("/class/"))
    viewer = new_page(browser)
    viewer.goto(address.get_attribute("href") or "")
    page.locator("#class-dialog .close").click()
    page.locator("#chips button").filter(has_text="everse").first.click()
    screen(viewer, "turn", "#screen")
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()
    page.locator("#answer-run .token").nth(2).click()
    own = viewer.locator("#screen .answer").first.locator(".token:not(.read)")
    expect(own.nth(2)).to_have_attribute("aria-selected", "true")
    texts = [node.strip() for node in page.locator("#answer-run .token").all_text_contents()]
    assert [re.sub(r"\d$", "", text).strip() for text in own.all_text_contents()] == texts
    viewer.context.close()


CONTENT = """root => {
  const node = document.querySelector(root);
  const plot = node.querySelector('.js-plotly-plot');
  return {
    title: node.querySelector('h2').textContent, caption: node.querySelector('.caption').textContent,
    table: [...node.querySelectorAll('.rows td, .rows th')].map((cell) => cell.textContent),
    answers: [...node.querySelectorAll('.replay .answer')].map((answer) => answer.textContent),
    bars: [...node.querySelectorAll('.replay .bar')].map((bar) => bar.textContent),
    traces: plot ? plot.data.length : 0,
  };
}"""


def _answers(page: Page) -> list[dict[str, str]]:
    return json.loads(page.locator("#screens").text_content() or "")[-1]["answers"]


def _fits(page: Page, selector: str) -> None:
    """It is inside of the window, and not cut off where it is a figure."""
    size, box = page.viewport_size, page.locator(selector).bounding_box()
    assert size
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size["width"]
    assert box["y"] + box["height"] <= size["height"]
    assert box["height"] > size["height"] / 2

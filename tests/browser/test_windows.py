"""What a person has in a window stays there: other windows, reloads and later questions don't change it."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from hydralora.runs.run import Run
from tests.browser.conftest import Seen, new_page
from tests.browser.steps import UPLOAD, open_page, settle, unfold, unfold_form
from tests.serving import App

pytestmark = [pytest.mark.browser, pytest.mark.slow]


# A busy page reads what the server sends it later than it is sent: here each part of a stream, by so many milliseconds.
LATE = """
(lag => {
    const fetched = window.fetch;
    window.fetch = async (request, options) => {
        const response = await fetched(request, options);
        if (!String(request.url || request).includes("/queue/data")) return response;
        const reader = response.body.getReader();
        const late = act => setTimeout(() => { try { act(); } catch { /* the page has hung up */ } }, lag);
        const body = new ReadableStream({
            start: async to => {
                try {
                    for (;;) {
                        const { value, done } = await reader.read();
                        if (done) return late(() => to.close());
                        late(() => to.enqueue(value));
                    }
                } catch (error) { late(() => to.error(error)); }
            },
        });
        return new Response(body, { status: response.status, headers: response.headers });
    };
})(400);
"""

# A busy page learns late that the server has accepted its event: by then several updates have come.
ACCEPTED_LATE = """
const fetched = window.fetch;
window.fetch = async (request, options) => {
    const response = await fetched(request, options);
    const isJoin = String(request.url || request).includes("/queue/join");
    if (window.isBusy && isJoin) await new Promise(done => setTimeout(done, 2000));
    return response;
};
"""


@pytest.fixture
def address(app: App, routed: Run) -> str:
    return f"{app.url}/?page=chat&run={routed.id}"


def ask(page: Page, question: str) -> None:
    page.locator("#prompt textarea").fill(question)
    page.locator("#send").click()
    expect(page.locator(".turn:last-child .question")).to_have_text(question)
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()


def test_each_window_keeps_its_conversation(page: Page, address: str, seen: Seen) -> None:
    expect(page.locator("#chips button").first).to_be_visible()
    in_browser = "localStorage.getItem('hydralora-chat')"
    before = page.evaluate(in_browser)
    ask(page, "which tool repairs engine aa")
    page.wait_for_function(f"before => {in_browser} !== before", arg=before)  # a busy server keeps it a moment later
    other = page.context.new_page()
    other.goto(address)
    expect(other.locator(".turn")).to_have_count(1)  # a new window begins with what there is
    ask(other, "name a fruit, ripe fruit bb")
    page.reload()
    expect(page.locator(".turn .question")).to_have_text(["which tool repairs engine aa"])
    other.reload()
    expect(other.locator(".turn .question")).to_have_count(2)
    expect(page.locator("#mixer .channel .gate").first).not_to_be_empty()
    assert seen.errors == []


def test_a_new_question_drops_the_token_of_the_one_before(page: Page, seen: Seen) -> None:
    ask(page, "which tool repairs engine cc")
    page.locator("#answer-run .tokens .token").first.click()
    expect(page.locator("#mixer .caption")).to_contain_text("token 1 of")
    ask(page, "which tool repairs engine dd")
    expect(page.locator("#mixer .caption")).to_contain_text("newest token")
    assert "token=" not in page.evaluate("location.href")
    assert seen.errors == []


def test_a_tap_beside_the_steps_closes_them_and_does_nothing_else(app: App, browser: Browser, address: str) -> None:
    page = new_page(browser)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    expect(page.locator("#chips button").first).to_be_visible()
    page.get_by_role("button", name="Steps").click()
    expect(page.locator("#stepper a[data-page=learn]")).to_be_visible()
    page.locator("#chips button").first.click(position={"x": 300, "y": 5}, force=True)
    expect(page.locator("#stepper a[data-page=learn]")).to_be_hidden()
    expect(page.locator(".turn")).to_have_count(0)
    page.get_by_role("button", name="Steps").click()
    page.keyboard.press("Escape")
    expect(page.locator("#stepper a[data-page=learn]")).to_be_hidden()
    page.context.close()


def test_what_is_done_before_the_server_has_answered_counts(
    browser: Browser, app: App, routed: Run, upload: Path, seen: Seen
) -> None:
    """A page asks at its opening what to show; on a busy machine the answer takes seconds, and a person is faster."""
    page = new_page(browser)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    held = _hold_what_opens_the_page(page)
    page.goto(f"{app.url}/?page=data&run={routed.id}")
    page.locator(UPLOAD).set_input_files(upload)
    expect(page.locator("#data-summary")).to_contain_text("three skills.jsonl")
    open_page(page, "train")
    unfold_form(page)
    page.locator("#training-max_steps input").fill("77")
    assert held
    for route in held:
        route.continue_()
    expect(page.locator("#bar .dataset option:checked")).to_contain_text("three skills.jsonl")
    settle(page)
    page.reload()
    expect(page.locator("#bar .dataset option:checked")).to_contain_text("three skills.jsonl")
    unfold_form(page)
    expect(page.locator("#training-max_steps input")).to_have_value("77")
    assert seen.errors == []
    page.context.close()


@pytest.mark.parametrize("way", ["Send", "Enter", "example"])
def test_a_question_waits_until_the_page_knows_its_run(way: str, browser: Browser, address: str, seen: Seen) -> None:
    page = new_page(browser)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    held = _hold_what_opens_the_page(page)
    page.goto(address)
    question = "which tool repairs engine ee"
    if way == "example":
        chip = page.locator("#chips button").nth(2)
        question = (chip.get_attribute("title") or "").partition("\nexpected")[0]
        chip.click()
    else:
        page.locator("#prompt textarea").fill(question)
        if way == "Send":
            page.locator("#send").click()
        else:
            page.locator("#prompt textarea").press("Enter")
    page.wait_for_timeout(500)
    assert held
    assert page.locator(".turn").count() == 0
    for route in held:
        route.continue_()
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()
    expect(page.locator(".turn .question")).to_have_text(question)
    assert seen.errors == []
    page.context.close()


def _hold_what_opens_the_page(page: Page) -> list[Route]:
    """Hold the requests whose only input is what the browser has kept, which is nothing yet; those held."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if '"data":[{}]' in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/queue/join*", hold)
    return held


def test_a_page_that_reads_late_misses_nothing(browser: Browser, app: App, routed: Run, seen: Seen) -> None:
    """Of a burst of events some are sent between the stream's end and the moment that the page reads it."""
    page = new_page(browser)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.add_init_script(LATE)
    for at, shown in (("data", "#batch .special"), ("components", "#map .plot"), ("chat", "#chips button")):
        page.goto(f"{app.url}/?page={at}&run={routed.id}")
        expect(page.locator(shown).first).to_be_visible()
        expect(page.locator("#run-name select")).to_have_value(routed.id)
    assert seen.errors == []
    page.context.close()


def test_a_page_that_gets_several_updates_at_once_shows_them_all(
    browser: Browser, app: App, address: str, seen: Seen
) -> None:
    """The question and its answers come first, and updates that change nothing follow at once."""
    page = new_page(browser)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.add_init_script(ACCEPTED_LATE)
    page.goto(address)
    expect(page.locator("#chips button").first).to_be_visible()
    unfold(page, "Sampling, system prompt")
    page.locator("#length input[type=number]").fill("600")
    for question, is_busy in (("Tell me a long story", False), ("Tell me another long story", True)):
        page.evaluate("isBusy => { window.isBusy = isBusy; }", is_busy)
        page.locator("#prompt textarea").fill(question)
        page.locator("#send").click()
        expect(page.locator(".turn .question").last).to_have_text(question, timeout=20_000)
        expect(page.locator(".turn:last-child #answer-base .token").first).to_be_visible(timeout=20_000)
    assert seen.errors == []
    page.context.close()

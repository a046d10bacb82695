"""The Learn page in a real browser: a token's numbers, sizes that are recounted, predictions, and heads that part."""

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, Request, ViewportSize, expect

from hydralora.experiments.sandbox import SKILLS, STEPS
from hydralora.runs.run import Run
from tests.browser.conftest import SCRIPT, Seen
from tests.browser.steps import choose, expect_page, open_page, photograph, settle, traces, unfold_form
from tests.serving import App

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SMALL: ViewportSize = {"width": 1280, "height": 720}


@pytest.fixture
def address(app: App, routed: Run) -> str:
    return f"{app.url}/?page=learn&run={routed.id}"


@pytest.fixture
def learn(page: Page, seen: Seen) -> Iterator[Page]:
    page.set_viewport_size(SMALL)
    yield page
    assert seen.errors == []
    assert seen.foreign == []


def view(page: Page, name: str) -> None:
    page.locator("#learn-views").get_by_role("tab", name=name).click()


def all_in_view(page: Page, *selectors: str) -> None:
    """One viewport: all of them are inside of it, without scrolling."""
    for selector in selectors:
        box = page.locator(selector).first.bounding_box()
        assert box, selector
        assert box["y"] >= 0, (selector, box)
        assert box["y"] + box["height"] <= SMALL["height"] + 1, (selector, box)
        assert box["x"] + box["width"] <= SMALL["width"] + 1, (selector, box)


def norms(page: Page) -> list[str]:
    return page.locator("#formula .picture .norm, #formula .picture tbody td").all_inner_texts()


def test_a_click_on_a_token_shows_its_numbers(learn: Page) -> None:
    page = learn
    expect(page.locator("#formula .which")).to_contain_text("of the expected answer")
    all_in_view(page, "#learn-prompt", "#learn-layer", "#formula .strip", "#formula .picture")
    first = norms(page)
    assert len(first) >= 5 + 4 * SKILLS
    page.locator("#formula .strip .token").nth(2).click()
    expect(page.locator("#formula .which")).to_contain_text("Token 3 of")
    assert norms(page) != first
    assert "token=2" in page.url
    gates = [float(text) for text in page.locator("#formula tbody td:nth-child(2)").all_inner_texts()]
    assert sum(gates) == pytest.approx(1, abs=0.03)
    before = norms(page)
    choose(page, "learn-layer", "up_proj, layer 0")
    expect(page.locator("#formula .which")).to_contain_text("up_proj, layer 0")
    expect(page.locator("#formula .which")).to_contain_text("Token 3 of")
    assert norms(page) != before
    photograph(page, "learn-formula")


def test_nothing_is_asked_for_a_page_that_is_not_open(learn: Page, app: App, routed: Run) -> None:
    page, asked = learn, set[int]()

    def note(sent: Request) -> None:
        if "/queue/join" in sent.url:
            asked.add(json.loads(sent.post_data or "{}")["fn_index"])

    page.on("request", note)
    page.goto(f"{app.url}/?page=chat&run={routed.id}")
    expect(page.locator("#chips button").first).to_be_visible()
    settle(page)
    filling = page.evaluate(
        """() => {
          const ids = gradio_config.components.filter(({props}) => props.elem_id === 'formula').map(({id}) => id);
          const fills = ({outputs}) => outputs.some((output) => ids.includes(output));
          return gradio_config.dependencies.filter(fills).map(({id}) => id);
        }"""
    )
    assert asked
    assert filling
    assert asked.isdisjoint(filling)
    open_page(page, "learn")
    expect(page.locator("#formula .which")).to_contain_text("Token")
    assert not asked.isdisjoint(filling)


def test_a_typed_prompt_is_read_by_keyboard_and_comes_back(learn: Page) -> None:
    page = learn
    expect(page.locator("#formula .which")).to_contain_text("Token")
    page.locator("#learn-prompt textarea").fill(f"hello {SCRIPT}")
    page.keyboard.press("Enter")
    expect(page.locator("#formula .which")).to_contain_text("of the prompt")
    assert SCRIPT in page.locator("#formula .strip").inner_text()
    page.locator("#formula .strip").focus()
    page.keyboard.press("Home")
    expect(page.locator("#formula .which")).to_contain_text("Token 1 of")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#formula .which")).to_contain_text("Token 2 of")
    page.reload()
    expect(page.locator("#formula .which")).to_contain_text("Token 2 of")
    expect(page.locator("#learn-prompt textarea")).to_have_value(f"hello {SCRIPT}")
    assert page.evaluate("window.hacked") is None


def test_the_sizes_follow_the_sliders(learn: Page) -> None:
    page = learn
    view(page, "Size")
    expect(page.locator("#sizes .adapter h3").first).to_contain_text("rank 4, 4 heads")
    all_in_view(page, "#learn-r", "#learn-n", "#sizes .adapter >> nth=0", "#sizes .adapter >> nth=1")
    before = page.locator("#sizes .adapter .total td").first.inner_text()
    page.locator("#learn-n input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#sizes .adapter h3").first).to_contain_text("rank 4, 5 heads")
    after = page.locator("#sizes .adapter .total td").first.inner_text()
    assert int(after.replace(",", "")) > int(before.replace(",", ""))
    photograph(page, "learn-size")


def test_a_prediction_is_scored_and_survives_a_reload(learn: Page) -> None:
    page = learn
    view(page, "Predict")
    expect(page.locator("#quiz .count")).to_contain_text("Prompt 1 of 10")
    asked = page.locator("#quiz .asked").inner_text()
    page.locator("#quiz .choice").first.click()
    expect(page.locator("#quiz .result")).to_contain_text(re.compile(r"(Right|You said head 1)\..*(leads)"))
    expect(page.locator("#quiz .score")).to_contain_text(re.compile(r"[01] of 1 right"))
    assert page.locator("#quiz .asked").inner_text() == asked
    gates = page.locator("#quiz .choice .gate").all_inner_texts()
    assert sum(float(gate) for gate in gates if gate) == pytest.approx(1, abs=0.03)
    all_in_view(page, "#quiz .asked", "#quiz .guesses", "#quiz .result", "#quiz .onward", "#quiz .score")
    photograph(page, "learn-predict")
    page.set_viewport_size(SMALL)
    page.reload()
    view(page, "Predict")
    expect(page.locator("#quiz .count")).to_contain_text("Prompt 2 of 10")
    expect(page.locator("#quiz .score")).to_contain_text("of 1 right")
    for place in range(2, 11):
        expect(page.locator("#quiz .count")).to_contain_text(f"Prompt {place} of 10")
        page.locator("#quiz .choice").last.click()
        expect(page.locator("#quiz .score")).to_contain_text(f"of {place} right")
        if place < 10:
            page.locator("#quiz .onward").click()
    expect(page.locator("#quiz .onward")).to_have_text("Again, with other prompts")
    page.locator("#quiz .onward").click()
    expect(page.locator("#quiz .count")).to_contain_text("Prompt 1 of 10")
    expect(page.locator("#quiz .score")).to_be_hidden()


def test_the_heads_of_a_sandbox_run_part_while_one_watches(learn: Page, app: App) -> None:
    page = learn
    open_page(page, "train")
    unfold_form(page)
    choose(page, "model", "tiny (workspace)")
    open_page(page, "learn")
    view(page, "Sandbox")
    page.locator("#sandbox-start").click()
    page.locator("#sandbox-stop").click()
    expect(page.locator("#sandbox-sentence")).to_contain_text("Stopped")
    expect(page.locator("#sandbox-stop")).to_be_hidden()
    page.get_by_role("button", name="Train it again").click()
    expect(page.locator("#sandbox-stop")).to_be_visible()
    expect(page.locator("#sandbox-bar .run-progress")).to_be_visible()
    expect(page.locator("#sandbox-sentence")).to_contain_text(f"Finished after {STEPS} steps")
    expect(page.locator("#sandbox-sentence")).to_contain_text("The heads began as one point")
    expect(page.locator("#sandbox-stop")).to_be_hidden()
    drawn = traces(page, "sandbox-distances")
    assert [trace["name"] for trace in drawn] == [f"head {head + 1}" for head in range(SKILLS)]
    assert all(trace["x"][-1] == STEPS and trace["y"][0] == 0 < trace["y"][-1] for trace in drawn)
    assert len(traces(page, "sandbox-paths")) == SKILLS
    all_in_view(page, "#sandbox-start", "#sandbox-sentence", "#sandbox-distances .plot", "#sandbox-paths .plot")
    photograph(page, "learn-sandbox")
    page.set_viewport_size(SMALL)
    page.reload()
    view(page, "Sandbox")
    expect(page.locator("#sandbox-sentence")).to_contain_text("The heads began as one point")
    page.locator("#sandbox-explore").click()
    expect_page(page, "explore")
    expect(page.locator("#bar select").first).to_contain_text("Demo slice, 4 heads, run")


def test_a_run_without_heads_says_so(learn: Page, app: App, plain: Run) -> None:
    page = learn
    page.goto(f"{app.url}/?page=learn&run={plain.id}")
    expect(page.locator("#learn-status")).to_contain_text("This run has no heads and no router")
    expect(page.locator("#formula .picture")).to_be_hidden()
    view(page, "Predict")
    expect(page.locator("#quiz .note")).to_contain_text("This run has no heads and no router")
    expect(page.locator("#quiz .card")).to_be_hidden()

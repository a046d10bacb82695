"""Looking inside in a real browser: matrices, how they moved, the breakdown, answers steered and saved."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from hydralora.runs.run import Run
from tests.browser.conftest import SCRIPT, SNAPSHOTS, Seen, new_page
from tests.browser.steps import SCREENSHOTS, click_point, download_until, open_page, photograph, traces, unfold
from tests.serving import App

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def address(app: App, routed: Run) -> str:
    return f"{app.url}/?run={routed.id}"


@pytest.fixture
def inside(routed: Run, page: Page) -> Page:
    expect(page.locator("#run textarea, #run input")).to_have_value(re.compile(routed.id))
    return page


def ask(page: Page, question: str) -> None:
    """Ask, and wait until the tuned model's answer has ended."""
    page.locator("#prompt textarea").fill(question)
    page.locator("#send").click()
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()


def view(page: Page, name: str) -> None:
    open_page(page, "explore")
    page.locator("#ab-views").get_by_role("tab", name=name).click()


def test_a_click_leads_from_a_point_to_its_matrix_its_tokens_and_rows(inside: Page, seen: Seen) -> None:
    page = inside
    view(page, "Components and heads")
    page.locator("#use-start").click()
    expect(page.locator("#use-sentence")).to_contain_text("Mutual information")
    gates = traces(page, "use-figure")[0]["z"]
    assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in gates)
    page.locator("#use-figure .exports > summary").click()
    page.locator("#use-figure .as-table summary").click()
    expect(page.locator("#use-figure .as-table table")).to_contain_text("list, reverse, words")
    page.locator("#use-figure .exports > summary").click()
    page.locator("#use-head").get_by_text("head 2").click()
    expect(page.locator("#use-tokens")).to_be_visible()
    photograph(page, "components-and-heads")
    view(page, "Points")
    page.wait_for_function("document.querySelector('#ab-0 .plot')?.data?.length > 0")
    page.locator("#ab-0 .exports > summary").click()
    with page.expect_download() as saved:
        page.locator("#ab-0 [data-as=html]").click()
    assert (page.locator("#ab-help p").text_content() or "?") in Path(saved.value.path()).read_text(encoding="utf-8")
    page.locator("#ab-0 .exports > summary").click()
    names = [trace["name"] for trace in traces(page, "ab-0")]
    click_point(page, "ab-0", names.index("head 2"))
    expect(page.locator("#ab-about")).to_contain_text(re.compile(r"B of head 2: 4 x \d+, Frobenius norm"))
    assert len(traces(page, "ab-spectrum")[0]["y"]) == 4
    cosines = traces(page, "ab-siblings")[0]["z"]
    assert [row[i] for i, row in enumerate(cosines)] == pytest.approx([1] * len(cosines))
    expect(page.locator("#ab-tokens")).to_be_visible()
    expect(page.locator("#ab-rows")).to_contain_text("mean gate")
    photograph(page, "click-to-matrix")
    assert seen.errors == []


def test_a_trajectory_plays(inside: Page, seen: Seen) -> None:
    page = inside
    view(page, "Over training")
    graph = "document.querySelector('#trajectory-0 .plot')"
    page.wait_for_function(f"{graph}?._transitionData?._frames?.length === {SNAPSHOTS + 1}")
    active = f"{graph}.layout.sliders[0].active"
    assert page.evaluate(active) == SNAPSHOTS
    page.locator("#trajectory-0 .updatemenu-button", has_text="Play").click()
    page.wait_for_function(f"0 <= {active} && {active} < {SNAPSHOTS}")
    page.wait_for_function(f"{active} === {SNAPSHOTS}")
    photograph(page, "trajectory")
    assert seen.errors == []


def test_the_breakdown_is_trained_and_measured(inside: Page, seen: Seen) -> None:
    page = inside
    view(page, "Breakdown")
    expect(page.locator("#breakdown-sentence")).to_contain_text("It takes 4 LoRAs")
    page.locator("#breakdown-steps input").fill("5")
    page.locator("#breakdown-steps input").press("Tab")
    page.locator("#breakdown-start").click()
    expect(page.locator("#breakdown-sentence")).to_contain_text("of 4 LoRAs are trained")
    page.reload()
    view(page, "Breakdown")
    expect(page.locator("#breakdown-sentence")).to_contain_text("After 5 steps of each. The claim", timeout=180_000)
    expect(page.locator("#breakdown-table")).to_contain_text("change of A")
    drawn = [trace for i in range(2) for trace in traces(page, f"breakdown-{i}")]
    assert sum(len(trace["x"]) for trace in drawn) == 4 * 6 * 2
    photograph(page, "breakdown")
    assert seen.errors == []


def test_steered_answers_stand_beside_the_routers(inside: Page, browser: Browser, seen: Seen, tmp_path: Path) -> None:
    page = inside
    open_page(page, "chat")
    unfold(page, "Sampling, system prompt")
    page.locator("#length input[type=number]").fill("24")
    ask(page, "Reverse this list: a b c")
    expect(page.locator("#answer-base[data-ended]")).to_be_visible()
    solo = page.locator("#mixer .channel[data-head='1'] .solo")
    solo.click()  # asks again beside the answer
    expect(page.locator("#answer-steered[data-ended]")).to_be_visible()
    heads = page.locator("#answer-steered .tokens .token").evaluate_all("nodes => nodes.map(node => node.dataset.head)")
    assert set(heads) == {"1"}
    expect(page.locator("#answer-steered .verdict")).to_have_text(re.compile("Wavy underline: differs|The same answer"))
    open_page(page, "explore")
    open_page(page, "chat")  # what was set, and who answered how, stays
    expect(solo).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Which head does this?").click()
    page.locator("#alone-questions textarea").fill("Reverse this list: a b c")
    page.locator("#alone-start").click()
    expect(page.locator("#alone-sentence")).to_contain_text("Nearest to the routed model")
    expect(page.locator("#alone-answers")).to_contain_text("head 4 alone")
    photograph(page, "chat-steered")
    page.reload()
    expect(page.locator("#answer-steered .tokens .token")).to_have_count(len(heads))
    expect(page.locator("#conversation")).to_contain_text("Reverse this list: a b c")
    file = tmp_path / "answer.html"
    file.write_text(download_until(page, "save-page", lambda text: "pinned to head 2" in text), encoding="utf-8")
    page.locator("#mixer .reset").click()  # as trained: nothing is steered
    assert seen.errors == []
    _replay_from_disk(browser, file)


def test_a_mixers_change_keeps_the_original_and_as_trained_takes_the_other_away(inside: Page, seen: Seen) -> None:
    page = inside
    open_page(page, "chat")
    ask(page, "Reverse this list: a b c")
    original = page.locator("#answer-run").get_attribute("data-answer")
    page.locator("#mixer .channel[data-head='0'] .mute").click()
    expect(page.locator("#answer-steered[data-ended]")).to_be_visible()
    gates = page.locator("#mixer .channel .gate")
    page.locator("#answer-steered .tokens .token").first.click()
    expect(gates.first).to_have_text("0.00")
    expect(page).to_have_url(re.compile("token=0"))
    level = page.locator("#mixer .channel[data-head='1'] .level")
    level.focus()
    before = page.locator("#answer-steered").get_attribute("data-answer")
    for _ in range(5):
        level.press("ArrowRight")  # by keyboard
    expect(level).to_have_value("1.5")
    expect(page.locator(f"#answer-steered:not([data-answer='{before}'])[data-ended]")).to_be_visible()
    assert page.locator("#answer-run").get_attribute("data-answer") == original
    page.locator("#mixer .reset").click()
    expect(page.locator("#answer-steered")).to_have_count(0)
    assert page.locator("#answer-run").get_attribute("data-answer") == original
    assert seen.errors == []


def test_a_question_is_stopped_changed_and_asked_again(inside: Page, seen: Seen, tmp_path: Path) -> None:
    page = inside
    open_page(page, "chat")
    unfold(page, "Sampling, system prompt")
    page.locator("#length input[type=number]").fill("4000")
    question = f"Tell me a long story {SCRIPT}"  # the base model's likeliest answer to it has no end
    page.locator("#prompt textarea").fill(question)
    page.evaluate(  # in the page itself: a tiny model may be done before Playwright has clicked Stop
        """() => new Promise((done) => {
          const observer = new MutationObserver(() => {
            if (!document.querySelector('#answer-base .tokens .token')) return;
            observer.disconnect();
            document.querySelector('#chat-stop').click();
            done();
          });
          observer.observe(document.querySelector('#conversation'), {subtree: true, childList: true});
          document.querySelector('#send').click();
        })"""
    )
    expect(page.locator("#prompt textarea")).to_have_value("")
    base = page.locator("#answer-base[data-ended]")
    expect(base.locator(".state")).to_contain_text("Stopped")
    assert page.locator("#answer-base .tokens .token").count() < 2000  # it was stopped, not at its end
    expect(page.locator("#save-trace")).to_be_enabled()  # what there is can be saved
    expect(page.locator("#conversation .question")).to_contain_text(SCRIPT)  # as text
    assert page.evaluate("window.hacked") is None
    page.locator("#chat-edit").click()
    expect(page.locator("#prompt textarea")).to_have_value(question)
    expect(page.locator("#conversation .turn")).to_have_count(0)
    expect(page.locator("#save-trace")).to_be_disabled()
    page.locator("#length input[type=number]").fill("12")
    page.get_by_label("number input for Temperature (0: always the likeliest token)").fill("2")
    page.locator("#prompt textarea").fill("Reverse this list: x y z")
    page.locator("#prompt textarea").press("Enter")
    expect(page.locator("#answer-run[data-ended]")).to_be_visible()
    tokens = page.locator("#answer-run .tokens .token")
    answer = tokens.all_inner_texts()
    expect(page.locator("#save-trace")).to_be_enabled()
    with page.expect_download() as download:
        page.locator("#save-trace").click()
    download.value.save_as(tmp_path / "answer.json")
    before = page.locator("#answer-run").get_attribute("data-answer")
    page.locator("#chat-again").click()  # the same seed, the same answer
    expect(page.locator(f"#answer-run:not([data-answer='{before}'])[data-ended]")).to_be_visible()
    assert tokens.all_inner_texts() == answer
    page.locator("#clear").click()
    expect(tokens).to_have_count(0)
    page.locator("input[data-testid='Open a saved answer-upload-button']").set_input_files(tmp_path / "answer.json")
    expect(page.locator("#answer-run .state")).to_contain_text("Replayed from a file")
    assert tokens.all_inner_texts() == answer
    assert seen.errors == []


def test_a_figure_is_saved_as_picture_page_and_table(
    inside: Page, browser: Browser, seen: Seen, tmp_path: Path
) -> None:
    page = inside
    view(page, "Points")
    points = sum(len(trace["x"]) for trace in traces(page, "ab-0"))
    page.locator("#ab-0 .exports summary").first.click()
    begins = {"png": b"\x89PNG", "svg": b"<svg", "html": b"<!doctype html>", "csv": b"series,x,y"}
    for suffix, first in begins.items():
        with page.expect_download() as download:
            page.locator(f"#ab-0 [data-as={suffix}]").click()
        file = tmp_path / f"figure.{suffix}"
        download.value.save_as(file)
        assert file.read_bytes()[: len(first)].lower() == first.lower(), suffix
    assert len((tmp_path / "figure.csv").read_text(encoding="utf-8").splitlines()) == 1 + points
    alone = new_page(browser, offline=True)
    alone.goto((tmp_path / "figure.html").as_uri())
    alone.wait_for_function("document.querySelector('.js-plotly-plot')?.data?.length > 0")
    alone.context.close()
    assert seen.errors == []


def _replay_from_disk(browser: Browser, file: Path) -> None:
    """Without a network, and without the app."""
    page = new_page(browser, offline=True)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: errors.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(file.as_uri())
    answers = json.loads(page.locator("#answers").text_content() or "")
    assert [answer["name"] for answer in answers] == ["Tuned", "Steered", "Base model"]
    counts = [len(answer["trace"]["prompt"]) + len(answer["trace"]["tokens"]) for answer in answers]
    expect(page.locator(".token")).to_have_count(sum(counts))
    page.locator(".play").click()
    page.wait_for_function("() => document.querySelectorAll('.token.later').length > 0")
    page.wait_for_function("() => document.querySelectorAll('.token.later').length === 0")
    page.screenshot(path=SCREENSHOTS / "replay.png", full_page=True)
    assert errors == []
    page.context.close()

"""Looking inside in a real browser: matrices, how they moved, the breakdown, answers steered and saved."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from hydralora.runs.run import Run
from tests.browser.conftest import SCRIPT, SNAPSHOTS, Seen, new_page
from tests.browser.steps import SCREENSHOTS, click_point, download_until, open_tab, photograph, traces
from tests.serving import App

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def address(app: App, routed: Run) -> str:
    return f"{app.url}/?run={routed.id}"


@pytest.fixture
def inside(routed: Run, page: Page) -> Page:
    expect(page.locator("#run input")).to_have_value(re.compile(routed.id))
    return page


def view(page: Page, name: str) -> None:
    open_tab(page, "5 Parameters")
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
    assert page.locator("#ab-caption p").inner_text() in Path(saved.value.path()).read_text(encoding="utf-8")
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
    open_tab(page, "6 Chat")
    page.get_by_text("Sampling, system prompt").click()
    page.locator("#length input[type=number]").fill("24")
    page.locator("#chat-columns").get_by_text("This run, steered").click()
    page.locator("#steer-pin input").click()
    page.get_by_role("option", name="head 2").click()
    page.locator("#prompt textarea").fill("Reverse this list: a b c")
    page.locator("#send").click()
    expect(page.locator("#chat-status")).to_contain_text("Done")
    expect(page.locator("#title-steered")).to_contain_text("pinned to head 2")
    open_tab(page, "5 Parameters")
    open_tab(page, "6 Chat")  # what was set, and who answered how, stays
    expect(page.locator("#steer-pin input")).to_have_value("head 2")
    expect(page.locator("#title-steered")).to_contain_text("pinned to head 2")
    heads = page.locator("#strip-steered .token").evaluate_all("nodes => nodes.map(node => node.dataset.head)")
    assert set(heads) == {"1"}
    expect(page.locator("#load-so-far .plot")).to_be_visible()
    page.get_by_role("button", name="Which head does this?").click()
    page.locator("#alone-questions textarea").fill("Reverse this list: a b c")
    page.locator("#alone-start").click()
    expect(page.locator("#alone-sentence")).to_contain_text("Nearest to the routed model")
    expect(page.locator("#alone-answers")).to_contain_text("head 4 alone")
    photograph(page, "chat-steered")
    page.reload()
    open_tab(page, "6 Chat")
    expect(page.locator("#title-steered")).to_contain_text("pinned to head 2")
    expect(page.locator("#chat-steered")).to_contain_text("Reverse this list: a b c")
    assert page.locator("#strip-steered .token").count() == len(heads)
    page.locator("#strip-steered .token").last.click()  # what is looked at is what is saved
    expect(page.locator("#gate-reading")).to_contain_text("This run, steered, token")
    file = tmp_path / "answer.html"
    file.write_text(download_until(page, "save-page", lambda text: "pinned to head 2" in text), encoding="utf-8")
    assert seen.errors == []
    _replay_from_disk(browser, file)


def test_a_question_is_stopped_changed_and_asked_again(inside: Page, seen: Seen, tmp_path: Path) -> None:
    page = inside
    open_tab(page, "6 Chat")
    page.get_by_text("Sampling, system prompt").click()
    page.locator("#length input[type=number]").fill("2000")
    question = f"Tell me a long story {SCRIPT}"  # the base model's likeliest answer to it has no end
    page.locator("#prompt textarea").fill(question)
    meanwhile = page.evaluate(  # in the page itself: a tiny model may be done before Playwright has clicked Stop
        """() => new Promise((done) => {
          const find = (id) => document.querySelector(id);
          const observer = new MutationObserver(() => {
            if (!find('#chat-status').textContent.includes('Answering')) return;
            observer.disconnect();
            done([find('#prompt textarea').value, find('#save-trace').disabled]);
            find('#chat-stop').click();
          });
          observer.observe(find('#chat-status'), {subtree: true, childList: true, characterData: true});
          find('#send').click();
        })"""
    )
    assert meanwhile == ["", True]
    expect(page.locator("#save-trace")).to_be_enabled()
    tokens = page.locator("#strip-run .token, #strip-base .token")
    expect(page.locator("#chat-status")).to_contain_text("Stopped")
    assert tokens.count() < 2000  # it was stopped, not at its end
    expect(page.locator("#chat-run")).to_contain_text(SCRIPT)  # as text
    assert page.evaluate("window.hacked") is None
    page.locator("#chat-edit").click()
    expect(page.locator("#prompt textarea")).to_have_value(question)
    expect(page.locator("#chat-run")).not_to_contain_text(SCRIPT)
    page.locator("#length input[type=number]").fill("12")
    page.get_by_label("number input for Temperature (0: always the likeliest token)").fill("2")
    page.locator("#prompt textarea").fill("Reverse this list: x y z")
    page.locator("#prompt textarea").press("Enter")
    expect(page.locator("#chat-run")).to_contain_text("x y z")
    expect(page.locator("#chat-status")).to_contain_text("Done")
    answer = page.locator("#strip-run .token:not(.read)").all_inner_texts()
    expect(page.locator("#save-trace")).to_be_enabled()
    with page.expect_download() as download:
        page.locator("#save-trace").click()
    download.value.save_as(tmp_path / "answer.json")
    page.locator("#strip-run .token").first.evaluate("token => token.classList.add('former')")
    page.locator("#chat-again").click()  # the same seed, the same answer
    expect(page.locator("#strip-run .former")).to_have_count(0)
    expect(page.locator("#chat-status")).to_contain_text("Done")
    assert page.locator("#strip-run .token:not(.read)").all_inner_texts() == answer
    page.locator("#clear").click()
    expect(page.locator("#strip-run .token")).to_have_count(0)
    page.locator("input[data-testid='Open a saved answer-upload-button']").set_input_files(tmp_path / "answer.json")
    expect(page.locator("#title-run")).to_contain_text("Replayed from a file")
    assert page.locator("#strip-run .token:not(.read)").all_inner_texts() == answer
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
    trace = json.loads(page.locator("#trace").text_content() or "")
    count = len(trace["prompt"]) + len(trace["tokens"])
    expect(page.locator(".token")).to_have_count(count)
    assert len(trace["tokens"]) > 2, trace["tokens"]
    page.locator("#play").click()
    page.wait_for_function("() => document.querySelectorAll('.token.later').length > 0")
    page.wait_for_function("() => document.querySelectorAll('.token.later').length === 0")
    page.screenshot(path=SCREENSHOTS / "replay.png", full_page=True)
    assert errors == []
    page.context.close()

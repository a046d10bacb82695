"""Lab: a question of one's own from its file to its verdict, through a reload, a stop and its continuation."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from hydralora.experiments.studies import study_of
from hydralora.experiments.studies.study import declared_studies
from hydralora.runs.run import Run
from hydralora.runs.store import RunStore
from tests.browser.conftest import Seen, new_page
from tests.browser.steps import audited_in_both_themes, choose, expect_page, open_page, photograph, settle, unfold_form
from tests.serving import App
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TITLE = "Mine <img src=x onerror='window.hacked = 1'>"
FAST = {"training.threads": 1, "training.batch_size": 2, "training.max_length": 256}
OWN: dict[str, Any] = {
    "title": TITLE,
    "question": "Is two better than one?",
    "reference": "one",
    "recipe": FAST,
    "arms": {"one": {"settings": {"method": "lora", "tuner.r": 2}}, "two": {"settings": {"tuner.num_heads": 2}}},
    "paper": {"source": "A paper", "measure": "MMLU (%)", "differs": "It is larger.", "values": {"one": 40, "two": 42}},
}


@pytest.fixture
def lab(page: Page, app: App) -> Iterator[Page]:
    """The Lab page, with the tiny base model chosen in Train."""
    open_page(page, "train")
    unfold_form(page)
    choose(page, "model", "tiny (workspace)")
    open_page(page, "lab")
    yield page
    store = RunStore(app.workspace)
    for run in _runs(store):
        store.delete(run)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(OWN, sort_keys=False), encoding="utf-8")
    return path


def test_a_question_is_answered(lab: Page, app: App, own: Path, browser: Browser, seen: Seen) -> None:
    page = lab
    expect(page.locator("#lab-start")).to_be_disabled()  # nothing is started before its price was read
    expect(page.locator("#lab-cards .study-card[data-study]")).to_have_count(len(declared_studies()))
    page.locator("#lab-cards .study-card").filter(has_text="Breakdown of A and B").click()  # made on a page of its own
    expect_page(page, "explore")
    page.go_back()
    expect_page(page, "lab")
    page.locator("input[data-testid='Upload a study (YAML)-upload-button']").set_input_files(own)
    card = page.locator("#lab-cards [data-study=mine]")
    expect(card).to_have_attribute("aria-pressed", "true")
    expect(card).to_contain_text(f"{TITLE} (yours)")
    page.locator("#lab-quick").click()
    expect(page.locator("#lab-price")).to_contain_text("One seed is for a look")
    page.locator("#lab-steps input").fill("200")
    page.locator("#lab-steps input").press("Tab")
    expect(page.locator("#lab-start")).to_have_text(re.compile(r"Start 2 runs, about \d+ s"))
    expect(page.locator("#lab-price")).to_contain_text("2 runs, 2 still to be done")
    photograph(page, "lab-plan")
    page.set_viewport_size({"width": 1280, "height": 720})
    audited_in_both_themes(page, "lab, a plan")
    page.locator("#lab-start").press("Enter")
    expect(page.locator("#lab-title")).to_contain_text("Is two better than one?")
    expect(page.locator("#lab-table .cell.running")).to_have_count(1)
    page.reload()
    expect_page(page, "lab")
    expect(page.locator("#lab-progress .run-progress")).to_be_visible()
    page.locator("#lab-stop").click()
    page.locator("#lab-stop-yes").click()
    expect(page.locator("#lab-status")).to_contain_text("Stopped: 0 of 2 runs done")
    page.locator("#lab-go-on").click()
    expect(page.locator("#lab-status")).to_contain_text("Finished: 2 runs.")
    expect(page.locator("#lab-stop")).to_be_hidden()
    expect(page.locator("#lab-verdict")).to_contain_text(re.compile(r"two is the furthest ahead .* 95 % interval"))
    expect(page.locator("#lab-table .cell.finished")).to_have_count(2)
    expect(page.locator("#lab-differs")).to_contain_text("The paper's measure is MMLU (%), not ours. It is larger.")
    for part in ("#lab-figure .main-svg", "#lab-paper .main-svg"):
        page.locator(part).first.wait_for()
    settle(page)
    for part in ("#lab-title", "#lab-verdict", "#lab-figure", "#lab-paper", "#lab-table"):
        box = page.locator(part).bounding_box()
        assert box, part
        assert box["y"] + box["height"] <= 720, f"{part}: {box}"
    audited_in_both_themes(page, "lab, a study")
    _check_files(page)
    photograph(page, "lab-study")
    other = new_page(browser)  # somebody else, by the link
    other.goto(page.url)
    expect(other.locator("#lab-verdict")).to_contain_text("the furthest ahead")
    other.context.close()
    _leads_on(page, app)
    assert page.evaluate("window.hacked") is None
    assert seen.errors == []


def _check_files(page: Page) -> None:
    """The report as a page, and as a table."""
    with page.expect_download() as html:
        page.get_by_role("link", name="Report (HTML)").click()
    text = html.value.path().read_text(encoding="utf-8")
    assert "Mine &lt;img" in text
    assert "<img" not in text.partition('<script id="figures"')[0]
    assert json.loads(text.partition('id="figures" type="application/json">')[2].partition("</script>")[0])
    with page.expect_download() as table:
        page.get_by_role("link", name="Table (CSV)").click()
    rows = list(csv.DictReader(table.value.path().read_text(encoding="utf-8").splitlines()))
    assert [row["kind"] for row in rows][:5] == ["run", "run", *["summary"] * 3]
    assert {row["kind"] for row in rows[5:]} <= {"task", "component"}


def _leads_on(page: Page, app: App) -> None:
    """A dot leads to its run; the study is found again among those that were begun."""
    run = page.locator("#lab-table a.cell").first
    run_id = run.get_attribute("data-run")
    run.press("Enter")
    expect_page(page, "runs")
    expect(page.locator("#run-sentence")).to_contain_text("one, seed 0 is finished")
    assert study_of(RunStore(app.workspace).get(str(run_id)).label())
    open_page(page, "lab")
    page.locator("#lab-back").click()
    begun = page.locator("#lab-begun .study-begun")
    expect(begun.first).to_contain_text("2 of 2 runs finished")
    assert "study=" not in page.url
    begun.first.click()
    expect(page.locator("#lab-verdict")).to_contain_text("the furthest ahead")
    assert "study=mine-" in page.url
    page.locator("#lab-back").click()
    expect(page.locator("#lab-start")).to_have_text("Show what was found")


def test_a_wrong_file_and_a_wrong_number_are_told_in_words(lab: Page, tmp_path: Path, seen: Seen) -> None:
    page = lab
    upload = page.locator("input[data-testid='Upload a study (YAML)-upload-button']")
    for name, changes, told in (
        ("wrong", {"reference": "three"}, "reference names 'three', which is not an arm"),
        ("foreign", {"recipe": {"data.train": "/etc/passwd"}}, "it sets 'data.train'"),
    ):
        wrong = tmp_path / f"{name}.yaml"
        wrong.write_text(yaml.safe_dump(OWN | changes, sort_keys=False), encoding="utf-8")
        upload.set_input_files(wrong)
        expect(page.locator("#lab-told")).to_contain_text(told)
    page.locator("[data-study=ablations]").click()
    expect(page.locator("#lab-start")).to_be_enabled()
    page.locator("#lab-rows input").fill("1")
    page.locator("#lab-rows input").press("Tab")
    expect(page.locator("#lab-price")).to_contain_text("Rows")
    expect(page.locator("#lab-start")).to_be_disabled()
    page.goto(f"{page.url}&study=absent-0a1b")
    expect(page.locator("#lab-status")).to_contain_text("There is no such study in this workspace")
    page.locator("#lab-back").click()
    expect(page.locator("#lab-cards")).to_be_visible()
    assert seen.errors == []


def _runs(store: RunStore) -> list[Run]:
    runs = [run for run in store.all() if study_of(run.label())]
    wait_until(lambda: not any(run.state().is_active for run in runs))
    return runs

"""The Runs tab in a real browser: words, settings, deletion, files that go and come, runs side by side."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from hydralora.data.demo import demo_file
from hydralora.experiments.studies import study_label
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.store import RunStore
from tests.browser.conftest import STEPS, Seen, new_page
from tests.browser.steps import LISTED, catch, choose, expect_page, open_page, traces, unfold_form
from tests.serving import App
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def two_runs(routed: Run, plain: Run) -> list[Run]:
    """A HydraLoRA and a LoRA, both finished."""
    return [routed, plain]


def line(page: Page, run: Run) -> Locator:
    """A run in the list; a click chooses it."""
    return page.locator(f"#runs-table [data-run='{run.id}']")


@pytest.fixture
def runs_page(two_runs: list[Run], page: Page) -> Page:
    open_page(page, "runs")
    line(page, two_runs[0]).wait_for()
    return page


def test_a_run_is_named_found_again_and_its_settings_used(runs_page: Page, two_runs: list[Run], seen: Seen) -> None:
    page = runs_page
    line(page, two_runs[0]).click()
    expect(page.locator("#run-sentence")).to_contain_text(f"{two_runs[0].name} is finished")
    page.locator("#label-name textarea, #label-name input").fill("the <b>routed</b> one")
    page.locator("#run-tags textarea, #run-tags input").fill("first, small")
    page.locator("#keep-label").click()
    expect(page.locator("#runs-table")).to_contain_text("the <b>routed</b> one")
    page.reload()
    expect_page(page, "runs")
    expect(page.locator("#runs-table")).to_contain_text("the <b>routed</b> one")
    expect(page.locator("#run-tags textarea, #run-tags input")).to_have_value("first, small")
    page.locator("#use-recipe").click()
    expect_page(page, "train")
    expect(page.locator("#model input")).to_have_value("tiny (workspace)")
    expect(page.locator("#training-max_steps input")).to_have_value(str(STEPS))
    expect(page.locator("#plan")).to_contain_text("a head of rank 4 for each component")
    assert seen.errors == []


def test_the_runs_of_a_study_are_one_line_that_unfolds(
    runs_page: Page, two_runs: list[Run], app: App, seen: Seen
) -> None:
    page, store = runs_page, RunStore(app.workspace)
    recipe = two_runs[0].recipe()
    runs = [store.create(recipe, study_label("mine-0a1b", f"mine: arm {i}", "Mine")) for i in range(3)]
    for run, state in zip(runs, ("finished", "failed", "stopped"), strict=True):
        run.update(state=state)
    page.goto(f"{app.url}/?page=runs")  # a new page opens on a run that somebody asked for
    study = page.get_by_role("button", name="Study mine-0a1b")
    expect(study).to_contain_text("1 of 3 runs finished, 1 failed")
    expect(study).to_have_attribute("aria-expanded", "false")
    expect(line(page, two_runs[0])).to_be_visible()
    expect(line(page, runs[0])).to_have_count(0)
    study.press("Enter")
    expect(study).to_have_attribute("aria-expanded", "true")
    expect(study).to_be_focused()
    page.reload()
    for run in runs:
        expect(line(page, run)).to_be_visible()
    line(page, runs[1]).click()
    expect(page.locator("#run-sentence")).to_contain_text("mine: arm 1 is failed")
    study.click()
    expect(line(page, runs[0])).to_have_count(0)
    expect(line(page, runs[1])).to_be_visible()  # it is the chosen one
    page.get_by_role("searchbox").fill("arm 2")
    expect(line(page, runs[2])).to_be_visible()
    for run in runs:
        store.delete(run)
    assert seen.errors == []


def test_two_runs_are_compared(runs_page: Page, two_runs: list[Run], seen: Seen) -> None:
    page = runs_page
    page.locator("#compared input").click()
    for run in two_runs:
        page.locator(LISTED, has_text=re.compile(rf"{re.escape(run.name)}|routed")).first.click()
    page.keyboard.press("Escape")
    expect(page.locator("#compare-settings")).to_contain_text("tuner.r")
    expect(page.locator("#compare-settings")).not_to_contain_text("learning_rate")
    expect(page.locator("#compare-results")).to_contain_text("arithmetic")
    drawn = [trace for trace in traces(page, "compare-loss") if len(trace["x"]) == STEPS]
    assert len(drawn) == 2
    assert seen.errors == []


def test_a_run_is_exported_deleted_brought_back_and_imported(
    runs_page: Page, two_runs: list[Run], app: App, tmp_path: Path, seen: Seen
) -> None:
    page, run = runs_page, two_runs[1]
    line(page, run).click()
    expect(page.locator("#run-sentence")).to_contain_text(f"{run.name} is finished")
    page.locator("#export").click()
    expect(page.locator("#export-told")).to_contain_text("is ready")
    with page.expect_download() as download:
        page.locator("#export-file").click()
    file = tmp_path / "run.zip"
    download.value.save_as(file)
    page.locator("#delete-run").click()
    expect(page.locator("#runs-told")).to_contain_text("is deleted")
    expect(line(page, run)).to_have_count(0)
    page.locator("#undo-delete").click()
    expect(page.locator("#runs-told")).to_contain_text("restored")
    expect(line(page, run)).to_have_count(1)
    before = {one.id for one in RunStore(app.workspace).all()}
    open_page(page, "train")
    unfold_form(page)
    choose(page, "model", "tiny (workspace)")
    open_page(page, "runs")
    page.locator("input[data-testid='Import a run-upload-button']").set_input_files(file)
    expect(page.locator("#runs-told")).to_contain_text("was imported")
    expect(page.locator("#run-sentence")).to_contain_text(f"imported, after {STEPS} steps elsewhere")
    (new,) = {one.id for one in RunStore(app.workspace).all()} - before
    assert RunStore(app.workspace).get(new).state().adapter_hash == run.state().adapter_hash
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no zip at all")
    page.locator("input[data-testid='Import a run-upload-button']").set_input_files(bad)
    expect(page.get_by_test_id("toast-body").filter(has_text="no whole zip file").first).to_be_visible()
    RunStore(app.workspace).delete(RunStore(app.workspace).get(new))
    assert seen.errors == []


def test_a_run_is_measured_on_a_file(runs_page: Page, two_runs: list[Run], tmp_path: Path, seen: Seen) -> None:
    page = runs_page
    line(page, two_runs[0]).click()
    expect(page.locator("#run-sentence")).to_contain_text(f"{two_runs[0].name} is finished")
    file = tmp_path / "new rows.jsonl"
    file.write_text('{"instruction": "Add 1 and 2.", "output": "3", "task": "<i>sum</i>"}\n', encoding="utf-8")
    page.locator("input[data-testid='Evaluate on a file-upload-button']").set_input_files(file)
    expect(page.locator("#export-told")).to_contain_text("1 row measured")
    expect(page.locator("#scores")).to_contain_text("task <i>sum</i>")
    assert seen.errors == []


def test_a_run_goes_from_a_preset_through_a_stop_to_its_resumption(
    page: Page, browser: Browser, app: App, seen: Seen
) -> None:
    open_page(page, "train")
    unfold_form(page)
    choose(page, "model", "tiny (workspace)")
    page.get_by_role("button", name="Quick look").click()
    expect(page.locator("#training-max_steps input")).to_have_value("40")
    page.get_by_role("button", name="More settings").click()
    page.locator("#tuner-r input").fill("0")
    page.locator("#tuner-r input").press("Tab")
    expect(page.locator("#tuner-r.wrong")).to_contain_text("greater than or equal to 1")
    page.locator("#start").click()
    expect(page.get_by_test_id("toast-body").filter(has_text="tuner.r").first).to_be_visible()
    page.locator("#tuner-r input").fill("4")
    page.locator("#tuner-r input").press("Tab")
    expect(page.locator("#tuner-r.wrong")).to_have_count(0)
    page.locator("#training-max_steps input").fill("100000")
    page.locator("#training-save_every input").fill("20")
    page.locator("#training-threads input").fill("1")
    page.locator("#training-threads input").press("Tab")
    page.locator("#start").click()
    expect(page.locator("#status")).to_contain_text("Training, step")
    (run_id,) = re.findall(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}", page.locator("#run textarea, #run input").input_value())
    page.reload()
    expect(page.locator("#run textarea, #run input")).to_have_value(re.compile(run_id))
    expect(page.locator("#status")).to_contain_text("Training, step")
    other = new_page(browser)  # somebody else
    other.goto(f"{app.url}/?page=train&run={run_id}")
    expect(other.locator("#status")).to_contain_text("Training, step")
    other.context.close()
    expect(page.locator("#details")).to_contain_text("CPU cores")
    expect(page.locator("#samples")).to_contain_text("Expected answer")
    run = RunStore(app.workspace).get(run_id)
    catch(page, "status", r"step ([3-9]\d|\d{3})")
    page.locator("#stop").click()
    expect(page.locator("#status")).to_contain_text(
        re.compile(r"Stopped at step \d+ of 100000: the adapter .* is kept")
    )
    stopped = run.state().step
    page.locator("#resume").click()
    expect(page.locator("#status")).to_contain_text("Training, step")
    wait_until(lambda: run.state().step > stopped)
    page.locator("#stop-measure").click()
    expect(page.locator("#status")).to_contain_text("Stopped at step")
    expect(page.locator("#results")).to_contain_text("all rows")
    losses = next(trace for trace in traces(page, "loss") if len(trace["x"]) > 5)
    assert losses["x"] == sorted(losses["x"])
    RunStore(app.workspace).delete(run)
    assert seen.errors == []


def test_a_recipe_is_opened_and_a_wrong_one_refused(page: Page, app: App, tmp_path: Path, seen: Seen) -> None:
    open_page(page, "train")
    unfold_form(page)
    page.get_by_role("button", name="The same from a terminal").click()
    file = tmp_path / "mine.yaml"
    settings = "method: lora\ntuner: {r: 3}\ntraining: {max_steps: 17}\n"
    file.write_text(f"model: tiny\ndata: {{train: {demo_file('train')}}}\n{settings}", encoding="utf-8")
    opened = page.locator("input[data-testid='Open a recipe-upload-button']")
    opened.set_input_files(file)
    expect(page.locator("#training-max_steps input")).to_have_value("17")
    expect(page.locator("#recipe")).to_contain_text("method: lora")
    expect(page.locator("#plan")).to_contain_text("LoRA")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#recipe button").click()
    expect(page.locator("#recipe button")).to_have_text("Copied")
    assert "max_steps: 17" in page.evaluate("navigator.clipboard.readText()")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("model: tiny\ntuner: {rank: 3}\n", encoding="utf-8")
    opened.set_input_files(wrong)
    expect(page.get_by_test_id("toast-body").filter(has_text="rank").first).to_be_visible()
    expect(page.locator("#training-max_steps input")).to_have_value("17")
    assert seen.errors == []


def test_a_waiting_run_is_moved_and_taken_out_of_the_queue(
    two_runs: list[Run], page: Page, app: App, seen: Seen
) -> None:
    jobs = JobManager(RunStore(app.workspace))
    recipe = two_runs[0].recipe()
    recipe.training.max_steps = 1_000_000
    at_work, first, second = (jobs.start(recipe) for _ in range(3))
    page.goto(f"{app.url}/?page=train&run={second.id}")
    expect(page.locator("#status")).to_contain_text("Queued, 2 ahead")
    page.locator("#sooner").click()
    expect(page.locator("#status")).to_contain_text("Queued, 1 ahead")
    assert jobs.waiting() == [second, first]
    page.locator("#later").click()
    expect(page.locator("#status")).to_contain_text("Queued, 2 ahead")
    page.locator("#stop").click()
    expect(page.locator("#status")).to_contain_text("Stopped before it started")
    expect(page.locator("#sooner")).to_be_hidden()
    assert jobs.waiting() == [first]
    jobs.stop(first)
    jobs.stop(at_work)
    jobs.follow(at_work)
    for run in (at_work, first, second):
        jobs.delete(run)
    assert seen.errors == []


def test_a_run_is_trained_on(runs_page: Page, two_runs: list[Run], seen: Seen) -> None:
    page = runs_page
    line(page, two_runs[0]).click()
    expect(page.locator("#run-sentence")).to_contain_text(f"{two_runs[0].name} is finished")
    page.locator("#train-on").click()
    expect_page(page, "train")
    expect(page.locator("#plan")).to_contain_text(f"trained on from {two_runs[0].id}")
    page.get_by_role("button", name="More settings").click()
    expect(page.locator("#start_from textarea, #start_from input")).to_have_value(two_runs[0].id)
    assert seen.errors == []

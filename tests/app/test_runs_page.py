"""The Runs tab as it is wired: runs that come and go elsewhere, words not yet kept, deletions of several people."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from app.actions import shell
from app.services import Services
from hydralora.runs.run import Run
from tests.app.pages import Page, RefusedError, open_page
from tests.conftest import FinishedRun


@pytest.fixture(scope="module")
def served(services: Services) -> Iterator[Page]:
    with open_page(services) as page:
        yield page


@pytest.fixture
def page(served: Page) -> Page:
    """A new session."""
    return Page(served.blocks, served.url)


@pytest.fixture
def elsewhere(page: Page, services: Services, finished: FinishedRun) -> Iterator[Run]:
    """A run that another process made after the page was opened."""
    page.tell("reopen", {}, fills="hydralora")
    run = services.store.create(finished.run.recipe())
    run.update(state="stopped", message="by hand")
    yield run
    if run.folder.exists():
        services.store.delete(run)


def test_a_row_of_a_run_that_was_started_elsewhere_opens_it(page: Page, finished: FinishedRun, elsewhere: Run) -> None:
    listed = page.tell("list_runs", None, [], {}, fills="runs-table")
    assert elsewhere.id in [row["id"] for row in listed["runs-table"]["runs"]]
    chosen = page.tell("choose", fills="run", event={"id": elsewhere.id})["run"]
    assert chosen == elsewhere.id
    told = page.tell("look", elsewhere.id, None, fills="run-sentence")["run-sentence"]
    assert f"{elsewhere.name} is stopped" in re.sub("<[^>]*>", "", told)


def bar(page: Page, run_id: str, before: Any = None) -> dict[str, Any]:
    return page.tell("show", run_id, "demo", None, before, fills="bar")


def test_the_bar_lists_runs_that_were_started_elsewhere(page: Page, finished: FinishedRun, elsewhere: Run) -> None:
    shown = bar(page, finished.run.id)["bar"]
    assert [run["id"] for run in shown["runs"]] == [elsewhere.id, finished.run.id]
    assert shown["run"] == finished.run.id
    assert all(run["name"] for run in shown["runs"])


def test_a_run_that_was_deleted_elsewhere_is_chosen_no_more(
    page: Page, services: Services, finished: FinishedRun, elsewhere: Run
) -> None:
    both = [elsewhere.id, finished.run.id]
    page.tell("list_runs", None, [], {}, fills="runs-table")
    services.store.delete(elsewhere)
    told = bar(page, elsewhere.id)
    assert elsewhere.id not in [run["id"] for run in told["bar"]["runs"]]
    assert told["run"] != elsewhere.id
    assert page.tell("list_runs", None, both, {}, fills="runs-table")["compared"]["value"] == [finished.run.id]
    with pytest.raises(RefusedError, match="There is no run"):
        page.tell("choose", fills="run", event={"id": elsewhere.id})


def test_the_address_opens_a_run_that_was_started_elsewhere(page: Page, elsewhere: Run) -> None:
    assert page.tell("reopen", {}, fills="hydralora", query=f"?run={elsewhere.id}")["hydralora"]["run"] == elsewhere.id
    page.tell("look", elsewhere.id, None, fills="run-sentence")


def test_a_run_is_renamed_and_keeps_its_note(page: Page, finished: FinishedRun, elsewhere: Run) -> None:
    page.tell("save", elsewhere.id, "first", "a note", "", fills="label-name")
    page.tell("rename_run", elsewhere.id, fills="", event={"name": "  <b>second</b>  name "})
    assert (elsewhere.name, elsewhere.label().note) == ("<b>second</b> name", "a note")


def test_the_dataset_follows_the_run_and_the_run_the_dataset(
    page: Page, services: Services, finished: FinishedRun, elsewhere: Run
) -> None:
    own = shell.dataset_of(services, finished.run.id) or "demo"
    nothing = {"__type__": "update"}
    picked = page.tell("pick_run", fills="run", event={"id": finished.run.id})
    assert picked["run"] == finished.run.id
    assert picked["dataset"] in (own, nothing)
    assert page.tell("to_run", finished.run.id, own, fills="run")["run"] == nothing  # it is chosen already
    assert page.tell("to_run", "", own, fills="run")["run"] in (elsewhere.id, nothing)  # the newest one on it


def test_a_run_whose_settings_the_form_lacks_says_so_as_it_is_cloned(
    page: Page, services: Services, finished: FinishedRun
) -> None:
    recipe = finished.run.recipe()
    recipe.data.task_column = "task"
    recipe.launch.slurm = {"timeout_min": 9}
    run = services.store.create(recipe)
    run.update(state="stopped")
    page.tell("reopen", {}, fills="hydralora")
    page.tell("use_settings", run.id, fills="model")
    assert any("no place for data.task_column, launch.slurm," in told for told in page.warned)
    services.store.delete(run)


def test_words_that_are_not_kept_yet_outlive_a_look_at_another_tab(
    page: Page, services: Services, finished: FinishedRun, elsewhere: Run
) -> None:
    words = ("label-name", "run-note", "run-tags")
    page.tell("list_runs", None, [], {}, fills="runs-table")
    first = page.tell("look", finished.run.id, None, fills="run-sentence")
    assert [first[word] for word in words] == [finished.run.label().name, "", ""]
    again = page.tell("look", finished.run.id, None, fills="run-sentence")
    assert all("value" not in again[word] for word in words)  # nothing is sent
    kept = page.tell("save", elsewhere.id, " my  run ", "a note", "one,, two", fills="label-name")
    assert [kept[word] for word in words] == ["my run", "a note", "one, two"]
    other = page.tell("look", elsewhere.id, None, fills="run-sentence")
    assert [other[word] for word in words] == ["my run", "a note", "one, two"]


def test_each_browser_brings_back_what_was_deleted_in_it(
    page: Page, services: Services, finished: FinishedRun, elsewhere: Run
) -> None:
    mine, other = elsewhere, services.store.create(finished.run.recipe())
    other.update(state="stopped")
    another = Page(page.blocks, page.url)
    kept = {}
    for browser, run in ((page, mine), (another, other)):
        browser.tell("reopen", {}, fills="hydralora")
        listed = browser.tell("list_runs", None, [], {}, fills="runs-table")
        assert listed["undo-delete"]["visible"] is False
        with pytest.raises(RefusedError, match="Another run is being opened"):
            browser.tell("delete", run.id, None, {}, fills="runs-told")
        browser.tell("look", run.id, None, fills="run-sentence")
        browser.tell("delete", run.id, None, {}, fills="runs-told")
        kept[run.id] = {"runs": [run.id]}
    listed = page.tell("list_runs", None, [], kept[mine.id], fills="runs-table")
    assert listed["undo-delete"]["visible"] is True
    told = page.tell("restore", kept[mine.id], fills="runs-told")
    assert told["run"] == mine.id
    assert mine.id in told["runs-told"]
    with pytest.raises(RefusedError, match="none can be restored"):
        page.tell("restore", kept[mine.id], fills="runs-told")
    assert other.id in services.store.deleted()


def test_a_damaged_run_is_told_under_the_table_and_its_row_opens_nothing(
    page: Page, finished: FinishedRun, elsewhere: Run
) -> None:
    (elsewhere.folder / "state.json").write_text("", encoding="utf-8")
    listed = page.tell("list_runs", None, [], {}, fills="runs-table")
    assert [row["state"] for row in listed["runs-table"]["runs"] if row["id"] == elsewhere.id] == ["damaged"]
    assert "state.json can&#x27;t be read" in listed["runs-damaged"]
    with pytest.raises(RefusedError, match=r"state\.json"):
        page.tell("choose", fills="run", event={"id": elsewhere.id})

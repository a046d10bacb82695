"""The Components page in a real browser: names, search, selection and zoom, trials, and what it hands to a run."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from hydralora.data.store import DatasetStore
from tests.browser.conftest import Seen
from tests.browser.steps import (
    UPLOAD,
    choose,
    download_until,
    expect_page,
    lasso,
    open_page,
    settle,
    unfold,
    unfold_form,
)
from tests.serving import App

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def clusters(page: Page, upload: Path) -> Page:
    """The Components page on the uploaded rows, with their map by PCA."""
    page.locator(UPLOAD).set_input_files(upload)
    expect(page.locator("#data-summary")).to_contain_text("three skills.jsonl")
    page.locator("#to-clusters").click()
    page.locator("#map-method").get_by_text("PCA").click()
    expect(page.locator("#clusters-sentence")).to_contain_text("3 components")
    page.wait_for_function("document.querySelector('#map .plot')?.layout?.title.text.includes('PCA')")
    return page


def test_a_component_is_named_and_trained_alone(clusters: Page, app: App, seen: Seen) -> None:
    page = clusters
    page.locator("#component-list button").filter(has_text="tool").click()
    expect(page.locator("#component-list button[aria-pressed=true]")).to_contain_text("40 rows, 33 %")
    page.wait_for_function("document.querySelector('#map .plot').data.some((t) => t.selectedpoints?.length === 40)")
    chosen = page.locator("#component input")
    expect(chosen).to_have_value(re.compile("tool|engine"))
    expect(page.locator("#component-rows")).to_contain_text(re.compile("engine.*outlier", re.DOTALL))
    expect(page.locator("#component-sentence")).to_contain_text("40 rows, 33% of all")
    number = int(re.search(r"(\d)", chosen.input_value()).group(1))  # type: ignore[union-attr]
    page.locator("#component-name textarea, #component-name input").fill("repairs & <b>tools</b>")
    page.locator("#component-name button").click()
    expect(page.locator("#component-list")).to_contain_text("repairs & <b>tools</b>")
    page.wait_for_function("document.querySelector('#map .plot').data.some((t) => t.name.includes('repairs'))")
    page.get_by_role("button", name="Save the rows with their components").click()
    download_until(page, "components-csv", lambda text: text.count("repairs & <b>tools</b>") == 40)
    page.reload()
    expect(page.locator("#component-list")).to_contain_text("repairs & <b>tools</b>")
    page.get_by_role("button", name="One component").click()
    choose(page, "component", "repairs")
    expect(page.locator("#component-name textarea, #component-name input")).to_have_value("repairs & <b>tools</b>")
    page.locator("#train-alone").click()
    expect_page(page, "train")
    expect(page.locator("#plan")).to_contain_text(f"A plain LoRA of rank 8, on component {number} alone (repairs & <b>")
    unfold(page, "More settings")
    expect(page.locator("#method input")).to_have_value("LoRA")
    expect(page.locator("#components-only input")).to_have_value(str(number))
    open_page(page, "components")
    page.locator("#use-heads").click()
    expect(page.locator("#plan")).to_contain_text("HydraLoRA: 3 heads of rank 8")
    expect(page.locator("#method input")).to_have_value("HydraLoRA")
    expect(page.locator("#components-only input")).to_have_value("0")
    assert seen.errors == []


def test_selection_and_zoom_outlive_a_change_of_colour(clusters: Page, seen: Seen) -> None:
    page = clusters
    plot = page.locator("#map .plot")
    page.evaluate("Plotly.relayout(document.querySelector('#map .plot'), {'xaxis.range': [-0.5, 0.5]})")
    lasso(page, plot)
    expect(page.locator("#map-rows")).to_contain_text("selected rows")
    before = _selected(page)
    assert before
    page.locator("#map-colour").get_by_text("task").click()
    page.wait_for_function("document.querySelector('#map .plot').data.some((trace) => trace.name === 'fruit')")
    assert _selected(page) == before
    assert page.evaluate("document.querySelector('#map .plot').layout.xaxis.range") == [-0.5, 0.5]
    page.locator("#map-method").get_by_text("t-SNE").click()
    page.wait_for_function("document.querySelector('#map .plot').layout.title.text.includes('t-SNE')")
    assert _selected(page) == before  # the same rows, in other places
    assert seen.errors == []


def test_search_selects_rows_and_leaves_the_others_grey(clusters: Page, seen: Seen) -> None:
    page = clusters
    page.locator("#map-search textarea, #map-search input").fill("Engine")
    page.locator("#map-search").get_by_role("button").click()
    expect(page.locator("#map-hits")).to_contain_text("40 of 120 rows hold “Engine”.")
    expect(page.locator("#map-rows")).to_contain_text("40 selected rows")
    assert len(_selected(page)) == 40
    assert all(trace["unselected"]["marker"]["opacity"] < 0.5 for trace in _data(page))
    page.evaluate("document.body.classList.toggle('dark')")
    settle(page)
    assert len(_selected(page)) == 40
    page.locator("#map-search textarea, #map-search input").fill("no such words")
    page.locator("#map-search").get_by_role("button").click()
    expect(page.locator("#map-hits")).to_contain_text("0 of 120 rows hold")
    assert seen.errors == []


def test_what_was_asked_for_outlives_a_reload_at_once(clusters: Page, seen: Seen) -> None:
    page = clusters
    _unfold_settings(page)
    page.get_by_label("Find their number").uncheck()
    expect(page.locator("#components-k input")).to_have_value("3")  # as found
    page.locator("#components-k input").fill("5")
    expect(page.locator("#clusters-sentence")).to_contain_text("5 components, as you asked.")
    page.reload()
    expect_page(page, "components")
    _unfold_settings(page)
    expect(page.locator("#components-k input")).to_have_value("5")
    expect(page.get_by_label("Find their number")).not_to_be_checked()
    expect(page.locator("#clusters-sentence")).to_contain_text("5 components, as you asked.")
    page.locator("#use-heads").click()
    expect(page.locator("#plan")).to_contain_text("HydraLoRA: 5 heads of rank 8")
    page.reload()  # with another tab, and settings of it
    expect_page(page, "train")
    expect(page.locator("#tuner-num_heads input")).to_have_value("5")
    assert seen.errors == []


def test_trials_are_run_and_other_settings_forget_them(clusters: Page) -> None:
    page = clusters
    unfold(page, "How many, by other methods")
    page.locator("#run-trials").click()
    expect(page.locator("#trials-sentence")).to_contain_text("Trial")
    page.wait_for_function("document.querySelector('#trials-figure .plot')?.data?.length > 0")
    assert sum(int(times) for times in _data(page, "trials-figure")[0]["text"]) == 15 * 4
    _unfold_settings(page)
    choose(page, "components-method", "DBSCAN")
    expect(page.locator("#clusters-sentence")).to_contain_text("noise")
    page.wait_for_function("!document.querySelector('#trials-figure .plot')?.data?.length")
    choose(page, "components-method", "k-means")
    expect(page.locator("#clusters-sentence")).to_contain_text("3 components: ")


def test_the_base_models_states_can_tell_rows_apart(clusters: Page) -> None:
    page = clusters
    open_page(page, "train")
    unfold_form(page)
    choose(page, "model", "tiny (workspace)")
    open_page(page, "components")
    _unfold_settings(page)
    choose(page, "components-features", "the base model's states")
    expect(page.locator("#map-help")).to_contain_text("the model takes for alike")
    assert page.locator("#component-list button").count() >= 1


def test_a_dataset_is_given_held_out_rows_and_removed(clusters: Page, app: App, tmp_path: Path) -> None:
    page = clusters
    open_page(page, "data")
    held = tmp_path / "held.jsonl"
    held.write_text('{"instruction": "name a fruit, new", "output": "plum"}\n', encoding="utf-8")
    page.locator("input[data-testid='Upload held-out rows-upload-button']").set_input_files(held)
    expect(page.locator("#data-summary")).to_contain_text("1 held out")
    expect(page.locator("#bar .dataset option:checked")).to_contain_text("held out: held.jsonl")
    before = len(DatasetStore(app.workspace).all())
    page.locator("#remove").click()
    expect(page.locator("#really-remove")).to_contain_text("Remove the dataset's files")
    page.locator("#remove-no").click()
    expect(page.locator("#really-remove")).to_have_count(0)
    assert len(DatasetStore(app.workspace).all()) == before
    page.locator("#remove").click()
    page.locator("#remove-yes").click()
    expect(page.locator("#data-summary")).to_contain_text("Demo: four skills")
    assert len(DatasetStore(app.workspace).all()) == before - 1
    expect(page.locator("#remove")).to_be_disabled()


def _unfold_settings(page: Page) -> None:
    page.get_by_role("button", name="How the components are found").click()


def _data(page: Page, elem_id: str = "map") -> list[dict[str, Any]]:
    return page.evaluate(f"JSON.parse(JSON.stringify(document.querySelector('#{elem_id} .plot').data))")


def _selected(page: Page) -> set[int]:
    """The customdata of the selected points."""
    return {trace["customdata"][i] for trace in _data(page) for i in trace.get("selectedpoints") or []}


def test_a_term_is_explained_by_pointer_and_by_keyboard(clusters: Page) -> None:
    page, meaning = clusters, clusters.locator("#meaning")
    term = page.locator("#clusters-sentence dfn").first
    term.hover()
    expect(meaning).to_contain_text("A group of rows that are alike")
    meaning.hover()
    expect(meaning).to_be_visible()
    page.mouse.move(5, 700)
    expect(meaning).to_be_hidden()
    term.focus()
    expect(meaning).to_be_visible()
    expect(term).to_have_attribute("aria-describedby", "meaning")
    page.keyboard.press("Escape")
    expect(meaning).to_be_hidden()

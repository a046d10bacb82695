"""The whole way through the app, as a person goes it: data, clusters, training, A and B, chat."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from hydralora.data.store import DatasetStore
from hydralora.inference.generation import Sampling, generate
from hydralora.inference.model_cache import load_base_model
from hydralora.runs.store import RunStore
from tests.browser.conftest import Seen
from tests.browser.steps import (
    SIZE,
    UPLOAD,
    catch,
    choose,
    expect_page,
    lasso,
    open_page,
    photograph,
    settle,
    traces,
    unfold,
    unfold_form,
)
from tests.serving import App

pytestmark = [pytest.mark.browser, pytest.mark.slow]

STEPS = 600  # enough to see them go by
ANSWER_TOKENS = 24


def test_from_a_file_to_live_gates(page: Page, app: App, upload: Path, seen: Seen) -> None:
    _upload(page, upload)
    _inspect_clusters(page)
    run_id = _train_and_reload(page)
    _lasso_matrices(page)
    _chat(page, app, upload)
    _photograph_tabs(page)
    assert RunStore(app.workspace).get(run_id).state().state == "finished"
    assert seen.foreign == []
    assert seen.errors == []
    assert page.evaluate("window.hacked") is None


def test_a_wrong_file_is_refused_by_row_and_column(page: Page, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"instruction": "c", "output": ""}\n', encoding="utf-8")
    page.locator(UPLOAD).set_input_files(wrong)
    message = page.locator("#reading")  # it stays
    expect(message).to_contain_text("wrong.jsonl, row 1: column 'output' is empty")
    expect(message).to_contain_text("the dataset below is the one that was there before")


def test_bad_rows_are_listed_and_unknown_columns_mapped(page: Page, tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("Frage;Antwort;Art\nWas ist 1?;Eine Zahl;x\nWas ist 2?;;x\n", encoding="utf-8")
    two.write_text("Frage;Antwort;Art\nWas ist 3?;Noch eine;y\nkurz;y\n", encoding="utf-8")
    page.locator(UPLOAD).set_input_files([one, two])
    expect(page.locator("#reading")).to_contain_text("one.csv: found 'Frage', 'Antwort', 'Art'")
    for field, column in (("question", "Frage"), ("answer", "Antwort"), ("task", "Art")):
        choose(page, f"column-{field}", column)
    page.locator("#apply-columns").click()
    expect(page.locator("#data-summary")).to_contain_text("one.csv, two.csv")
    expect(page.locator("#data-summary")).to_contain_text("2 of 4 rows can be used")
    expect(page.locator("#data-more")).to_contain_text("x, y")
    problems = page.locator("#problems")
    expect(problems).to_contain_text("one.csv, 2")
    expect(problems).to_contain_text("has 2 cells where the header has 3")
    expect(page.locator("#bar .dataset option:checked")).to_contain_text("Frage, Antwort")
    with page.expect_download() as download:
        page.locator("#problems-csv").click()
    assert (
        download.value.path().read_text(encoding="utf-8").splitlines()[1].startswith("one.csv,2,Antwort,missing-answer")
    )
    with page.expect_download() as download:
        page.locator("#columns button").first.click()
        page.locator("#mapping-file").click()
    assert download.value.path().read_text(encoding="utf-8") == "question: Frage\nanswer: Antwort\ntask: Art\n"


def test_the_first_batch_shows_what_is_learnt(page: Page, upload: Path) -> None:
    rows = page.locator("#batch [role=listitem]")
    page.locator(UPLOAD).set_input_files(upload)
    expect(page.locator("#data-summary")).to_contain_text("three skills.jsonl")
    expect(rows).to_have_count(8)
    settle(page)
    page.evaluate(  # what the batch shows when the summary names the other dataset
        """() => new MutationObserver((_, observer) => {
          if (!document.getElementById('data-summary').textContent.includes('Demo')) return;
          observer.disconnect();
          requestAnimationFrame(() => (window.atFirst = document.querySelector('#batch .batch').textContent));
        }).observe(document.body, {subtree: true, childList: true, characterData: true})"""
    )
    page.locator("#use-demo").click()
    expect(page.locator("#data-summary")).to_contain_text("Demo: four skills")
    expect(rows).to_have_count(8)
    assert page.evaluate("window.atFirst") == "Being read …"
    expect(rows.filter(visible=True)).to_have_count(2)  # the others are folded
    page.get_by_role("button", name="Lengths in tokens").click()
    expect(page.locator("#template-checks")).to_contain_text("An answer ends with <|im_end|>.")
    expect(rows.first.locator(".special").first).to_have_text("<|im_start|>")
    learnt = "".join(rows.first.locator(".learnt").all_text_contents())
    number = int(re.search(r"row (\d+)", rows.first.text_content() or "").group(1))  # type: ignore[union-attr]
    answer = DatasetStore(Path("unused")).get("demo").read().examples[number - 1].answer
    assert learnt == f"{answer}<|im_end|>"
    assert len(traces(page, "lengths")[0]["x"]) > 10


def _upload(page: Page, file: Path) -> None:
    page.locator(UPLOAD).set_input_files(file)
    expect(page.locator("#data-summary")).to_contain_text("three skills.jsonl")
    expect(page.locator("#data-summary")).to_contain_text("120 rows")
    expect(page.locator("#data-table")).to_contain_text("<img src=x")  # shown as text
    page.locator("#to-clusters").click()


def _inspect_clusters(page: Page) -> None:
    expect(page.locator("#clusters-sentence")).to_contain_text("3 components")
    curve = traces(page, "elbow")
    assert curve[0]["x"][:3] == [1, 2, 3]
    assert curve[0]["y"][2] < 0.6 * curve[0]["y"][0]
    assert curve[1]["x"] == [3]
    assert curve[2]["name"] == "silhouette"
    expect(page.locator("#component-list .size")).to_have_text(["40 rows, 33 %"] * 3)
    page.locator("#map-method").get_by_text("PCA").click()
    page.wait_for_function("document.querySelector('#map .plot')?.layout?.title.text.includes('PCA')")
    expect(page.locator("#map-caption")).not_to_contain_text("is being computed")
    points = traces(page, "map")
    assert sum(len(trace["x"]) for trace in points) == 120
    lasso(page, page.locator("#map .plot"))
    expect(page.locator("#map-rows")).to_contain_text(re.compile("fruit|tool|city"))
    expect(page.locator("#component-list")).to_contain_text("of 40 rows selected")
    page.locator("#use-heads").click()
    expect(page.locator("#tuner-num_heads input")).to_have_value("3")


def _train_and_reload(page: Page) -> str:
    expect(page.locator("#start")).to_be_visible()  # with the heads that came from the components
    choose(page, "model", "tiny (workspace)")
    page.locator("#training-max_steps input").fill(str(STEPS))
    unfold(page, "More settings")
    page.locator("#training-learning_rate input").fill("0.01")
    page.locator("#training-threads input").fill("1")  # more of them would wait for one another
    expect(page.locator("#preset-quick-look")).to_contain_text("Longest row 512 tokens → 256 tokens")
    page.get_by_role("button", name="Default", exact=True).click()
    expect(page.locator("#training-max_steps input")).to_have_value("100")
    expect(page.locator("#tuner-num_heads input")).to_have_value("3")  # a preset keeps them
    page.locator("#training-max_steps input").fill(str(STEPS))
    page.locator("#training-learning_rate input").fill("0.01")
    page.locator("#start").click()
    expect(page.locator("#start")).to_be_hidden()  # the form is one line now, with its estimates
    catch(page, "status", rf"Training, step \d+ of {STEPS}")
    _expect_the_run_at_a_glance(page)
    page.wait_for_function("document.querySelector('#loss .plot')?.data?.[0].y.length >= 3")
    before = traces(page, "loss")[0]["y"]
    run_id = page.locator("#run textarea, #run input").input_value()
    page.reload()
    expect(page.locator("#run textarea, #run input")).to_have_value(run_id)
    expect_page(page, "train")
    page.wait_for_function(
        "count => document.querySelector('#loss .plot')?.data?.[0].y.length >= count", arg=len(before)
    )
    after = traces(page, "loss")[0]["y"]
    assert after[: len(before)] == before
    expect(page.locator("#status")).to_contain_text(f"Finished after {STEPS} steps: exact match", timeout=180_000)
    expect(page.locator("#status")).to_contain_text(re.compile(r"Head \d took component|No head leads"))
    expect(page.locator("#progress [role=progressbar]")).to_be_hidden()
    unfold_form(page)
    expect(page.locator("#model input")).to_have_value("tiny (workspace)")
    expect(page.locator("#training-max_steps input")).to_have_value(str(STEPS))
    losses = traces(page, "loss")[0]["y"]
    assert losses[-1] < losses[0] / 2
    loads = [trace for trace in traces(page, "load") if trace["name"].startswith("head")]
    assert len(loads) == 3
    for gates in zip(*(trace["y"] for trace in loads), strict=True):
        assert sum(gates) == pytest.approx(1, abs=1e-4)
    expect(page.locator("#results")).to_contain_text("all rows")
    use = traces(page, "use")[0]["z"]
    assert len(use) == 3
    assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in use)
    return run_id


def _expect_the_run_at_a_glance(page: Page) -> None:
    """Progress, loss and load are on one screen; loss and step begin at 0."""
    page.set_viewport_size({"width": 1280, "height": 720})
    bar = page.locator("#progress [role=progressbar]")
    expect(bar).to_have_attribute(
        "aria-valuetext", re.compile(r"\d+ %, Phase 7 of 9, training, [\d,]+ of [\d,]+ steps")
    )
    assert 0 < int(bar.get_attribute("aria-valuenow") or 0) <= 100
    page.wait_for_function(  # in one look: at the run's end its results push the curves down
        """document.querySelector('#load .plot')?.data?.length > 0
          && ['status', 'progress', 'loss', 'load'].every((id) => {
            const box = document.getElementById(id).getBoundingClientRect();
            return box.height > 0 && box.top >= 0 && box.bottom <= window.innerHeight;
          })"""
    )
    for axis in ("xaxis", "yaxis"):
        assert page.evaluate(f"document.querySelector('#loss .plot')._fullLayout.{axis}.range[0]") == 0
    page.set_viewport_size({"width": SIZE[0], "height": SIZE[1]})


def _lasso_matrices(page: Page) -> None:
    page.locator("#to-parameters").click()
    page.wait_for_function("document.querySelector('#ab-0 .plot')?.data?.length > 0")
    assert {trace["name"] for trace in traces(page, "ab-0")} == {"head 1", "head 2", "head 3"}
    page.locator("#ab-what").get_by_text("A and heads").click()
    page.wait_for_function("document.querySelector('#ab-0 .plot').data.some((trace) => trace.name === 'A')")
    settle(page)
    groups = [traces(page, f"ab-{i}") for i in range(2)]
    points = sum(len(trace["x"]) for group in groups for trace in group)
    assert points == 2 * 3 * (1 + 3)  # 2 layers, 3 modules, an A and 3 heads each
    page.locator("#ab-method").get_by_text("t-SNE").click()
    page.wait_for_function("document.querySelector('#ab-0 .plot')?.layout?.title.subtitle?.text.includes('t-SNE')")
    lasso(page, page.locator("#ab-0 .plot"))
    table = page.locator("#ab-points")
    expect(table).to_contain_text(re.compile(r"_proj, layer \d, B of head"))
    selected = page.evaluate(
        "document.querySelector('#ab-0 .plot').data.reduce((n, trace) => n + (trace.selectedpoints || []).length, 0)"
    )
    assert selected >= 3
    expect(table).to_contain_text(f"{selected} selected matrices")


def _chat(page: Page, app: App, upload: Path) -> None:
    page.locator("#to-chat").click()
    expect_page(page, "chat")
    unfold(page, "Sampling")
    page.locator("#length input[type=number]").fill(str(ANSWER_TOKENS))
    question = "which tool repairs engine zz"
    page.locator("#prompt textarea").fill(question)
    page.locator("#send").click()
    for key in ("run", "base"):
        expect(page.locator(f"#answer-{key}[data-ended]")).to_be_visible()
    tokens = page.locator("#answer-run .tokens .token")
    assert "".join(tokens.all_inner_texts()) == "saw"
    shown = page.locator("#answer-base .tokens").inner_text()
    assert _letters(_base_answer(app, question)) == _letters(shown)
    _read_gates(page, tokens)


def _read_gates(page: Page, tokens: Locator) -> None:
    """Select a token: heatmap, bars and caption agree, and each layer's gates sum to 1."""
    tokens.nth(1).click()
    caption = page.locator("#mixer .caption")
    expect(caption).to_contain_text("Tuned, token 2 of 3")
    expect(tokens.nth(1)).to_have_attribute("aria-selected", "true")
    bars = [float(gate) for gate in page.locator("#mixer .gate").all_inner_texts()]
    assert sum(bars) == pytest.approx(1, abs=0.02)
    head = tokens.nth(1).get_attribute("data-head")
    if head is None:
        expect(caption).to_contain_text("no head leads")
    else:
        assert int(head) == bars.index(max(bars))
        expect(caption).to_contain_text(f"head {int(head) + 1} leads")
    cells = page.locator("#heatmap rect").evaluate_all(
        "nodes => nodes.map((n) => [n.dataset.layer, n.dataset.head, Number(n.getAttribute('fill-opacity'))])"
    )
    for layer in {layer for layer, _, _ in cells}:
        assert sum(gate for of, _, gate in cells if of == layer) == pytest.approx(1, abs=0.003)
    page.locator("#answer-run .tokens").press("ArrowRight")
    expect(caption).to_contain_text("Tuned, token 3 of 3")


def _base_answer(app: App, question: str) -> str:
    """What a base model answers that was loaded separately and never adapted."""
    loaded = load_base_model(str(app.workspace / "models" / "tiny"))
    messages = [{"role": "user", "content": question}]
    tokens = generate(loaded.model, loaded.tokenizer, messages, Sampling(ANSWER_TOKENS))
    return "".join(token.text for token in tokens)


def _letters(text: str) -> str:
    return re.sub(r"[^a-zA-Z0-9]", "", text)


def _photograph_tabs(page: Page) -> None:
    for name in ("data", "components", "train", "runs", "lab", "explore", "chat"):
        open_page(page, name)
        if name == "runs":
            expect(page.locator("#runs-table")).to_contain_text("finished")
        photograph(page, name)
        expect(page.get_by_role("button", name="Run", exact=True)).to_have_count(0)  # Gradio's name for a stray one

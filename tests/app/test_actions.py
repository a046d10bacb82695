"""What each tab computes, without a browser."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.actions import chat, clusters, data, parameters, recipes, train
from app.services import Services
from hydralora.data.store import DEMO
from hydralora.errors import ConfigError, DatasetError, HydraError, RunError
from hydralora.generation import Sampling, generate
from hydralora.serving import load_base_model
from tests.conftest import FinishedRun


def test_an_uploaded_file_is_kept_once_under_its_name(services: Services, data_file: Path) -> None:
    first = data.upload(services, str(data_file), "../../my rows.jsonl")
    assert data.upload(services, str(data_file), "again.jsonl") == first
    assert ("my rows.jsonl", first) in data.choices(services)
    view = data.view(services, first)
    assert view.summary.startswith("my rows.jsonl: 48 training rows")
    assert view.table[0] == [1, "name fruit number aa", "plum", "fruit"]
    kept = services.datasets.get(first).train.resolve()
    assert kept.is_relative_to(services.store.workspace)


@pytest.mark.parametrize("name", ["../demo", "/etc/passwd", "0" * 16, ""])
def test_no_dataset_id_leads_out_of_the_workspace(services: Services, name: str) -> None:
    with pytest.raises(DatasetError, match="no dataset"):
        services.datasets.get(name)


def test_clusters_of_the_demo(services: Services) -> None:
    view = clusters.view(services, DEMO, "tfidf-svd", None)
    assert view.k == 4
    assert [row[1] for row in view.table] == [200] * 4
    assert clusters.view(services, DEMO, "tfidf-svd", 6).k == 6
    figure, sentence = clusters.row_map(services, DEMO, "tfidf-svd", None, "pca")
    assert sum(len(trace["text"]) for trace in json.loads(figure)["data"]) == 800
    assert "lasso" in sentence
    assert clusters.rows(services, DEMO, [0, 5, 10_000])[1][0] == 6


def test_hover_text_of_a_row_is_not_html(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"<b>bold</b> {word}", "output": "x"} for word in "one two three four five six".split()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    dataset = data.upload(services, str(path), "rows.jsonl")
    figure, _ = clusters.row_map(services, dataset, "tfidf-svd", 2, "pca")
    texts = [text for trace in json.loads(figure)["data"] for text in trace["text"]]
    assert all("<b>" not in text and "&lt;b>" in text for text in texts)


def test_the_form_becomes_a_recipe(services: Services) -> None:
    values = {"tuner.num_heads": None, "training.max_steps": 7, "method": "lora"}
    recipe = recipes.recipe_from_form(services, DEMO, "", values)
    assert (recipe.training.max_steps, recipe.method, recipe.tuner.num_heads) == (7, "lora", None)
    with pytest.raises(ConfigError, match=r"training\.max_steps"):
        recipes.recipe_from_form(services, DEMO, "", {"training.max_steps": -1})


def test_a_typed_model_is_never_a_path_of_the_machine(services: Services, model_folder: Path) -> None:
    for typed in (str(model_folder), f"../{model_folder.name}", "~/model", "C:\\model"):
        with pytest.raises(ConfigError, match="model"):
            recipes.resolve_model(services, typed)


def test_a_finished_run_is_shown_with_its_results(services: Services, finished: FinishedRun) -> None:
    view = train.view(services, finished.run.id)
    assert view
    assert view.status == "Finished: after 10 steps."
    assert not view.active
    assert [row[0] for row in view.table] == ["fruit", "tool", "all rows"]
    assert all(all(row) for row in view.table)
    loss = json.loads(view.loss)["data"]
    assert loss[0]["x"][-1] == 10
    assert len(json.loads(view.load)["data"]) == 3 + 1  # heads, entropy
    assert train.view(services, finished.run.id, view.signature) is None  # nothing new, nothing sent
    assert (train.run_choices(services)[0][1]) == train.newest_run(services) == finished.run.id


@pytest.mark.parametrize("name", ["../runs", "/tmp", "", "20990101-000000-abcd"])
def test_the_page_names_runs_by_id_alone(services: Services, finished: FinishedRun, name: str) -> None:
    for named in (name, str(finished.run.folder)):
        with pytest.raises(RunError, match="no"):
            services.run(named)


def test_a_run_without_an_adapter_is_said_and_answers_as_its_base(services: Services, finished: FinishedRun) -> None:
    run = services.store.create(finished.run.recipe())
    try:
        assert "no adapter yet" in parameters.view(services, run.id, "pca", "head").sentence
        assert parameters.points(services, run.id, "pca", [0]) == []
        last = list(chat.stream(services, run.id, "", [], [], "name fruit number bb", 4, 0.0))[-1]
        assert last.tuned == []
        assert [message["role"] for message in last.base] == ["user", "assistant"]
        assert services.loaded(run.id, "").files.folder == Path(finished.run.recipe().model)
    finally:
        services.store.delete(run)


def test_a_question_without_an_answer_is_not_asked_again(services: Services, finished: FinishedRun) -> None:
    left_over = [{"role": "user", "content": "an error followed"}]
    last = list(chat.stream(services, finished.run.id, "", left_over, left_over, "name fruit number bb", 4, 0.0))[-1]
    assert [message["content"] for message in last.tuned[:1]] == ["name fruit number bb"]
    assert [message["role"] for message in last.base] == ["user", "assistant"]


def test_two_sessions_compute_a_result_once(services: Services) -> None:
    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        time.sleep(0.2)
        return 7

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: services.remember("once", compute), range(4)))
    assert (results, len(calls)) == ([7] * 4, 1)


def test_stopping_a_finished_run_is_refused(services: Services, finished: FinishedRun) -> None:
    with pytest.raises(RunError, match="finished"):
        train.stop(services, finished.run.id)


def test_parameters_have_a_point_for_every_matrix(services: Services, finished: FinishedRun) -> None:
    view = parameters.view(services, finished.run.id, "pca", "head")
    drawn = [trace for figure in view.figures for trace in json.loads(figure)["data"]]
    ids = sorted(i for trace in drawn for i in trace["customdata"])
    assert ids == list(range(2 * 3 * (1 + 3)))  # 2 layers, 3 modules, A and 3 heads
    rows = parameters.points(services, finished.run.id, "pca", [0, 999])
    assert len(rows) == 1
    assert rows[0][0].startswith("model.layers.")
    for colour in ("kind", "layer", "module"):
        assert parameters.view(services, finished.run.id, "pca", colour).figures


def test_without_a_run_every_tab_says_what_to_do(services: Services) -> None:
    view = train.view(services, None)
    assert view
    assert "Start training" in view.status
    assert "Train one first" in parameters.view(services, None, "pca", "head").sentence
    assert "Train one" in chat.titles(services, None, "")[0]


def test_chat_streams_both_columns_with_gates(services: Services, finished: FinishedRun) -> None:
    question = "which tool fixes aa engine"
    views = list(chat.stream(services, finished.run.id, "", [], [], question, 12, 0.0))
    last = views[-1]
    assert last.tuned[0] == {"role": "user", "content": question}
    assert last.base[-1]["role"] == "assistant"
    assert last.strip["heads"] == 3
    answer = services.answer(last.answer_id)
    assert len(answer.tokens) == len(last.strip["tokens"])
    bars, heatmap, sentence = chat.pick(services, last.answer_id, 0)
    gates = json.loads(bars)["data"][0]["y"]
    assert gates == pytest.approx(chat.mean_over_layers(answer.tokens[0]))
    assert sum(gates) == pytest.approx(1, abs=1e-5)
    assert sentence.startswith("Token 1 of")
    assert len(json.loads(heatmap)["data"][0]["x"]) == 2  # layers


def test_the_base_column_is_the_base(services: Services, finished: FinishedRun) -> None:
    question = "name fruit number aa"
    last = list(chat.stream(services, finished.run.id, "", [], [], question, 12, 0.0))[-1]
    base = load_base_model(finished.run.recipe().model)
    tokens = generate(base.model, base.tokenizer, [{"role": "user", "content": question}], Sampling(12))
    assert last.base[-1]["content"] == "".join(token.text for token in tokens)


def test_an_answer_that_is_not_kept_is_refused(services: Services) -> None:
    with pytest.raises(HydraError, match="no longer kept"):
        chat.pick(services, "not-an-id", 0)


def test_an_empty_prompt_is_refused(services: Services, finished: FinishedRun) -> None:
    with pytest.raises(HydraError, match="empty"):
        next(chat.stream(services, finished.run.id, "", [], [], "  ", 12, 0.0))


def test_held_out_rows_are_offered_for_every_task(services: Services) -> None:
    offered = chat.prompts(services, DEMO)
    heldout = services.datasets.get(DEMO).heldout
    assert heldout
    assert len(offered) == 12
    assert {len(pair) for pair in offered} == {2}

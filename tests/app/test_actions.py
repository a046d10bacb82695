"""What each tab computes, without a browser."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from operator import contains
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyarrow.csv import ParseOptions, read_csv
from pyarrow.parquet import read_table

from app.actions import as_read, data, recipes
from app.actions.components import one_component, row_map
from app.actions.components import tab as components
from app.actions.components import trials as number_trials
from app.actions.explore import points, trajectory
from app.actions.run_choices import newest_run, run_choices
from app.actions.runs import tab as runs_tab
from app.actions.train import recipe_form
from app.actions.train import tab as train
from app.services import Services, reading
from app.services.background import Done, Progress, in_background
from app.services.cache import ResultKind
from app.services.components import ComponentRequest
from hydralora import figures
from hydralora.components import cluster
from hydralora.components.rows import read_split
from hydralora.data.mapping import Mapping
from hydralora.data.progress import OnProgress
from hydralora.data.store import DEMO
from hydralora.errors import ConfigError, DatasetError, HydraError, RunError
from hydralora.projection import METHODS, Method
from hydralora.runs.events import EvalEvent, Event, TrainEvent
from hydralora.runs.scores import SampleAnswer, Score
from hydralora.training.preparation import prepare
from tests.conftest import FinishedRun
from tests.known import known
from tests.multilingual import rows_of_kinds
from tests.waiting import wait_until

FIELDS = list(Mapping.model_fields)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Services]:
    """Services that have computed nothing yet, on a workspace of their own."""
    services = Services(tmp_path / "workspace")
    yield services
    services.close()


def uploaded(services: Services, *paths: Path, mapping: dict[str, str] | None = None) -> str:
    """The id of a dataset that was uploaded."""
    *_, done = data.upload(services, [str(path) for path in paths], mapping)
    assert isinstance(done, Done)
    return done.value


def test_an_uploaded_file_is_kept_once_under_its_name(services: Services, data_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "my rows.jsonl"
    path.write_bytes(data_file.read_bytes())
    first = uploaded(services, path)
    assert uploaded(services, path) == first
    assert ("my rows.jsonl", first) in data.choices(services)
    view = data.view(services, first)
    assert view.counts == ["my rows.jsonl", "48 rows", "Alpaca format", "10% held out by a run", "2 tasks"]
    assert (view.problems, view.problem_table) == ("", [])
    assert view.table[0] == [1, "name fruit number aa", "plum", "fruit"]
    assert all(file.is_relative_to(services.store.workspace) for file in services.datasets.get(first).files)
    data.remove(services, first)
    assert first not in dict(data.choices(services)).values()


def test_what_takes_too_much_memory_is_refused_and_leaves_nothing(
    services: Services, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MEMORY", 200 * 2**20)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data_file.read_bytes() + b'{"instruction": "x", "output": [' + b"[]," * 8_000_000 + b"[]]}\n")
    before = psutil.Process().memory_info().rss
    with pytest.raises(HydraError, match=r"takes more than 0\.195 GiB of memory"):
        uploaded(services, path)
    assert psutil.Process().memory_info().rss - before < 100 * 2**20
    assert [dataset.id for dataset in services.datasets.all()] == [DEMO]
    uploaded(services, data_file)


def test_bad_rows_are_listed_with_their_fix(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = {"instruction": "a", "output": "b"}
    path.write_text("\n".join([json.dumps(good), "{", json.dumps(good)]), encoding="utf-8")
    dataset = uploaded(services, path)
    view = data.view(services, dataset)
    assert "1 of 3 rows can be used" in view.counts
    assert view.problems.startswith("Left out: 1 broken row, 1 duplicate.")
    assert [row[0] for row in view.problem_table] == [2, 3]
    assert Path(data.problems_file(services, dataset)).read_text(encoding="utf-8").count("rows.jsonl") == 2


def test_unknown_columns_are_mapped_by_a_person(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"ask": f"a{i}", "say": f"b{i}", "more": "c"} for i in range(3)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    *_, unread = data.upload(services, [str(path)])
    assert isinstance(unread, data.NeedsMapping)
    assert (unread.files, unread.columns) == ((str(path),), ("ask", "say", "more"))
    chosen = dict.fromkeys(FIELDS, data.NONE) | {"question": "ask", "answer": "say"}
    first = uploaded(services, path, mapping=chosen)
    assert data.view(services, first).table[0] == [1, "a0", "b0", ""]
    *_, done = data.remap(services, first, chosen | {"context": "more"})
    assert isinstance(done, Done)
    assert done.value != first
    assert data.view(services, done.value).table[0] == [1, "a0\n\nc", "b0", ""]
    assert data.columns(services, first)[1]["context"] == data.NONE  # runs on the first stay true
    assert ("rows.jsonl (ask, more, say)", done.value) in data.choices(services)
    recipe = recipes.recipe_from_form(services, done.value, "", {})
    assert len(read_split(recipe).train) == 2
    assert Path(data.mapping_file(services, first)).read_text(encoding="utf-8") == "question: ask\nanswer: say\n"
    with pytest.raises(ConfigError, match="name question and answer"):
        list(data.remap(services, first, dict.fromkeys(FIELDS, data.NONE)))


def test_held_out_rows_can_be_uploaded(services: Services, data_file: Path, tmp_path: Path) -> None:
    first = uploaded(services, data_file)
    assert "10% held out by a run" in data.view(services, first).counts
    same = json.loads(data_file.read_text(encoding="utf-8").splitlines()[0])
    held = tmp_path / "held.jsonl"
    held.write_text("\n".join(map(json.dumps, [{"instruction": "new", "output": "x"}, same])), encoding="utf-8")
    second = data.hold_out(services, first, str(held))
    assert "1 held out" in data.view(services, second).counts
    assert "1 held-out row left out: also among the training rows." in data.view(services, second).summary
    assert (f"{data_file.name} (held out: held.jsonl)", second) in data.choices(services)
    rows = read_split(recipes.recipe_from_form(services, second, "", {}))
    assert [row.question for row in rows.heldout] == ["new"]
    assert len(rows.train) == 48
    with pytest.raises(DatasetError, match="each of its 48 rows is also in"):
        data.hold_out(services, first, str(data_file))


def test_what_the_model_reads_is_shown(services: Services, model_folder: Path) -> None:
    name = _own_model(services, model_folder)
    view = as_read.tokens(services, DEMO, name, 512)
    figure = json.loads(view.lengths)
    assert sum(figure["data"][0]["y"]) == 800
    assert figure["data"][1]["x"] == [512, 512]
    assert "800 rows" not in view.sentence  # nothing was sampled
    rows = view.batch["rows"]
    assert len(rows) == 8
    for row in rows:
        example = services.read_dataset(DEMO).examples[row["row"] - 1]
        learnt = "".join(str(text) for text, is_learnt, special in row["tokens"] if is_learnt and not special)
        assert learnt.strip() == example.answer
        assert any(special for _, _, special in row["tokens"])
    assert "rows are longer" in as_read.tokens(services, DEMO, name, 100).sentence
    assert "not on this machine" in as_read.tokens(services, DEMO, "owner/absent", 512).sentence
    checks = {row[0]: row[1] for row in view.checks}
    assert (len(checks), checks["template renders"], checks["end awaited"]) == (9, "ok", "ok")


def _own_model(services: Services, model_folder: Path) -> str:
    folder = services.store.workspace / "models" / "mine"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        folder.symlink_to(model_folder)
    return "mine"


@pytest.mark.parametrize("name", ["../demo", "/etc/passwd", "0" * 16, ""])
def test_no_dataset_id_leads_out_of_the_workspace(services: Services, name: str) -> None:
    with pytest.raises(DatasetError, match="no dataset"):
        services.datasets.get(name)


def asked(services: Services, **settings: object) -> ComponentRequest:
    """How components are asked for, as the form says it."""
    return recipes.component_settings(services, "", {f"components.{key}": value for key, value in settings.items()})


def drawn(
    services: Services, dataset: str, way: ComponentRequest, method: Method = "pca", **more: Any
) -> dict[str, Any]:
    """The map as a figure."""
    services.components.find(dataset, way)
    *_, view = row_map.draw(services, dataset, way, method, **({"colour_by": "component"} | more))
    return read(view.figure)


def read(figure: str | None) -> dict[str, Any]:
    assert figure
    return json.loads(figure)


def seen(services: Services, way: ComponentRequest) -> components.ClusterView:
    """What the page shows of the demo's components, once they are found."""
    *_, done = components.find(services, DEMO, way)
    assert isinstance(done, Done)
    return done.value


def test_clusters_of_the_demo(services: Services) -> None:
    *steps, done = components.find(services, DEMO, asked(services))
    assert isinstance(done, Done)
    assert all(isinstance(step, components.Finding) and step.what == "Finding the components" for step in steps)
    view = done.value
    assert view.k == 4
    assert view.sentence.startswith("4 components: ")
    assert "halves of the rows" in view.sentence
    listed = components.listed(services, DEMO, asked(services), selected=[0, 4, 800])
    assert [(line.size, line.share) for line in listed] == [(200, 0.25)] * 4
    assert sum(line.selected for line in listed) == 2  # there is no row 800
    assert {line.example for line in listed} <= {row.question for row in services.read_dataset(DEMO).examples}
    assert [number for _, number in view.components] == [1, 2, 3, 4]
    names = [trace["name"] for trace in json.loads(view.curve)["data"]]
    assert names == ["SSE", "chosen", "silhouette"]
    assert "adjusted Rand index 1.00" in view.agreement
    assert sorted(map(sum, json.loads(view.tasks)["data"][0]["z"])) == [200] * 4
    assert seen(services, asked(services, k=6)).k == 6
    lines = ParseOptions(newlines_in_values=True)
    files = [components.rows_file(services, DEMO, asked(services), kind) for kind in ("csv", "parquet")]
    for table in (read_csv(files[0], parse_options=lines), read_table(files[1])):
        assert len(table) == 800
        assert set(table["component_number"].to_pylist()) == {1, 2, 3, 4}  # as the page counts


def test_rows_in_several_scripts_are_said_to_be_so() -> None:
    texts = [row for code in ("en", "ru") for row in rows_of_kinds(code, "office", 30)[0]]
    assert "several scripts: 50% Latin, 50% Cyrillic" in components.sentence_on(cluster(texts))
    assert "scripts" not in components.sentence_on(cluster(texts[:30]))


def test_a_run_finds_the_components_that_the_page_shows(services: Services, model_folder: Path) -> None:
    values = {"components.k": 3, "components.text": "everything", "components.method": "kmeans"}
    way = recipes.component_settings(services, "", values)
    labels = services.components.find(DEMO, way).labels
    components.rename(services, DEMO, way, 2, "  the\nsecond ")
    recipe = recipes.recipe_from_form(services, DEMO, _own_model(services, model_folder), values)
    assert recipe.components.names == ["", "the second", ""]
    recipe.training.max_length = 200
    recipe.tuner.router_init, recipe.tuner.num_heads = "random", 3
    prepared = prepare(recipe, lambda stage: None)
    assert prepared.clusters.labels.tolist() == labels.tolist()
    assert [component.name for component in prepared.components] == [
        component.name for component in services.components.named(DEMO, way)
    ]
    of_row = dict(zip((row.row for row in services.read_dataset(DEMO).examples), labels.tolist(), strict=True))
    assert prepared.train_labels == [of_row[row.example.row] for row in prepared.train]
    other = recipes.recipe_from_form(services, DEMO, "", values | {"tuner.num_heads": 5})
    assert other.components.names is None  # five components would be found


def test_a_component_is_looked_at_and_named(services: Services, model_folder: Path) -> None:
    way, model = asked(services), _own_model(services, model_folder)
    seen(services, way)
    view = one_component.component(services, DEMO, way, 2, model, 512)
    found = services.components.find(DEMO, way).components[1]
    assert view.given == ""
    assert view.terms == ", ".join(found.terms)
    assert view.sentence.startswith("200 rows, 25% of all.")
    assert [row[0] for row in view.rows] == ["typical"] * 5 + ["outlier"] * 5
    assert [row[1] for row in view.rows] == [i + 1 for i in found.nearest + found.outliers]
    assert sum(json.loads(view.lengths)["data"][0]["y"]) == 200
    named = components.rename(services, DEMO, way, 2, "<b>mine</b>")
    assert components.listed(services, DEMO, way)[1].name == "<b>mine</b>"
    assert named.components[1] == ("2: <b>mine</b>", 2)
    assert [trace["name"] for trace in drawn(services, DEMO, way)["data"]][1] == "2: &lt;b>mine&lt;/b>"
    assert one_component.component(services, DEMO, way, 2, model, 512).given == "<b>mine</b>"
    assert seen(services, asked(services, k=6)).components[1] != named.components[1]  # others keep theirs
    again = components.rename(services, DEMO, way, 2, "")
    assert again.components[1][1] == 2
    assert "mine" not in again.components[1][0]


@pytest.mark.slow
def test_trials_are_shown_as_they_go(services: Services) -> None:
    seen(services, asked(services, k=2))
    *steps, done = number_trials.trials(services, DEMO, asked(services, k=2))
    assert isinstance(done, Done)
    assert steps[0].startswith("Trial 1 of 15")  # type: ignore[union-attr]
    figure = json.loads(done.value)["data"][0]
    assert set(figure["y"]) == {"this page", "Kneedle", "best silhouette", "DBSCAN"}
    assert sum(int(times) for times in figure["text"]) == 15 * 4
    mine = [number for name, number in zip(figure["y"], figure["x"], strict=True) if name == "this page"]
    assert mine == [4]


def test_the_map_is_coloured_and_searched(services: Services) -> None:
    way = asked(services)
    figure = drawn(services, DEMO, way)
    assert [len(trace["x"]) for trace in figure["data"]] == [200] * 4
    assert "selected" not in figure["layout"]["meta"]
    by_task = drawn(services, DEMO, way, colour_by="task")
    assert {trace["name"] for trace in by_task["data"]} == {"arithmetic", "classify", "extract", "reverse"}
    by_length = drawn(services, DEMO, way, colour_by="length")["data"]
    examples = services.read_dataset(DEMO).examples
    assert by_length[0]["marker"]["color"] == [len(example.everything) for example in examples]
    for other in (by_task, drawn(services, DEMO, way, colour_by="length"), drawn(services, DEMO, asked(services, k=3))):
        assert other["layout"]["meta"] == figure["layout"]["meta"]  # so that zoom and selection stay
    found, told = row_map.search(services, DEMO, "  REVERSE ")
    assert found == [i for i, example in enumerate(examples) if "reverse" in example.everything.lower()]
    assert told == f"{len(found)} of 800 rows hold “REVERSE”."
    first, again = (drawn(services, DEMO, way, selected=found)["layout"]["meta"] for _ in range(2))
    assert first["selected"] == found
    assert first["turn"] != again["turn"]  # the same search again: the page must draw it again
    assert row_map.search(services, DEMO, " ") == ([], "")
    assert row_map.rows(services, DEMO, [0, 5, 10_000])[1][0] == 6
    assert len(row_map.rows(services, DEMO, range(800))) == 200
    assert row_map.listed(800) == "800 selected rows, the first 200 of them"


def test_of_many_rows_a_sample_is_drawn(fresh: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "pca", replace(METHODS["pca"], rows=300))
    way = asked(fresh)
    fresh.components.find(DEMO, way)
    *_, sampled = row_map.draw(fresh, DEMO, way, "pca", "component")
    assert "A random sample is drawn: 300 of 800 rows." in sampled.caption
    ids = [i for trace in read(sampled.figure)["data"] for i in trace["customdata"]]
    assert len(set(ids)) == len(ids) == 300


def test_a_slow_map_starts_as_a_quick_one(services: Services) -> None:
    for k in (5, 6):
        seen(services, asked(services, k=k))
    views = list(row_map.draw(services, DEMO, asked(services, k=5), "tsne", "component"))
    assert "t-SNE is being computed (0 s). Meanwhile this is PCA." in views[0].caption
    assert "PCA" in read(views[0].figure)["layout"]["title"]["text"]
    assert "t-SNE" in read(views[-1].figure)["layout"]["title"]["text"]
    assert all(view.figure is None for view in views[1:-1])  # it is sent once
    assert len(list(row_map.draw(services, DEMO, asked(services, k=6), "tsne", "task"))) == 1  # places are the same


def test_what_needs_components_says_so_while_there_are_none(services: Services) -> None:
    way = asked(services, k=7)
    for ask in (
        lambda: one_component.component(services, DEMO, way, 1, "", 512),
        lambda: components.rename(services, DEMO, way, 1, "mine"),
    ):
        with pytest.raises(DatasetError, match="components are not found yet"):
            ask()
    assert list(row_map.draw(services, DEMO, way, "pca", "component")) == []  # it follows once they are found
    seen(services, way)
    with pytest.raises(DatasetError, match="no component 8 any more: there are 7"):
        one_component.component(services, DEMO, way, 8, "", 512)


def test_of_two_requests_of_a_session_the_newer_one_wins(services: Services) -> None:
    first = services.sessions.newest("a session", "map")
    other = services.sessions.newest("another", "map")
    trials = services.sessions.newest("a session", "trials")
    assert first()
    second = services.sessions.newest("a session", "map")
    assert not first()
    assert all(is_newest() for is_newest in (second, other, trials))


def test_the_request_that_arrived_last_wins_whichever_begins_first(services: Services) -> None:
    late = services.sessions.newest("their session", "map", arrived=2)
    early = services.sessions.newest("their session", "map", arrived=1)
    assert late()
    assert not early()
    assert not services.sessions.switch_to("their session", "map", "a run", arrived=1)
    assert services.sessions.switch_to("their session", "map", "a run", arrived=3)
    assert not late()


def test_no_path_of_this_machine_is_in_what_the_page_gets(services: Services, model_folder: Path) -> None:
    way = recipes.component_settings(
        services, _own_model(services, model_folder), {"components.features": "model", "components.k": 2}
    )
    assert Path(way.model).is_absolute()
    assert str(services.store.workspace) not in json.dumps(drawn(services, DEMO, way))


def test_noise_is_shown_as_noise(services: Services) -> None:
    way = asked(services, method="dbscan", k=3)  # k is k-means' alone
    view = seen(services, way)
    figure = drawn(services, DEMO, way)
    noise = [len(trace["text"]) for trace in figure["data"] if trace["name"] == "noise"]
    curve, knee = json.loads(view.curve)["data"]
    assert curve["y"] == sorted(curve["y"])
    assert knee["y"][0] == knee["y"][1] == pytest.approx(services.components.find(DEMO, way).density.eps)  # type: ignore[union-attr]
    assert "noise" in view.help
    assert sum(line.size for line in components.listed(services, DEMO, way)) + sum(noise) == 800
    assert ("noise" in view.sentence) == bool(noise)


def test_hover_text_of_a_row_is_not_html(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"<b>bold</b> {word}", "output": "x"} for word in "one two three four five six".split()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    figure = drawn(services, uploaded(services, path), asked(services, k=2))
    texts = [text for trace in figure["data"] for text in trace["text"]]
    assert all("<b>" not in text and "&lt;b>" in text for text in texts)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features": "magic"}, r"Components: features"),
        ({"k": 100}, r"Components: k"),
        ({"features": "sentence", "sentence_model": "/etc"}, "is not a Hugging Face id"),
        ({"features": "sentence", "sentence_model": " "}, "No sentence model is named"),
    ],
)
def test_wrong_ways_to_cluster_are_refused(services: Services, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(services, **values)


@pytest.mark.slow
def test_a_second_run_waits_and_says_so(services: Services, model_folder: Path) -> None:
    model = _own_model(services, model_folder)
    values = {"training.max_steps": 3000, "training.batch_size": 1, "tuner.num_heads": 2, "tuner.router_init": "random"}
    runs = [services.run(recipe_form.start(services, DEMO, model, values)) for _ in range(3)]
    try:
        views = [train.view(services, run.id) for run in runs[1:]]
        assert [view.words.status for view in views] == ["Queued, 1 ahead.", "Queued, 2 ahead."]
        assert all(view.buttons.active for view in views)
        train.stop(services, runs[1].id)
        assert train.view(services, runs[1].id).words.status.startswith("Stopped before it started: nothing")
        with pytest.raises(DatasetError, match="is training on this dataset, or waiting to"):
            data.remove(services, DEMO)
    finally:
        for run in reversed(runs):
            if services.jobs.refresh(run).is_active:
                services.jobs.stop(run)
            services.jobs.follow(run)
            services.store.delete(run)


@pytest.mark.slow
def test_a_run_that_died_can_be_resumed_from_the_page(services: Services, model_folder: Path) -> None:
    model = _own_model(services, model_folder)
    values = {"training.max_steps": 3000, "training.batch_size": 1, "training.eval_every": 0, "tuner.num_heads": 2}
    run = services.run(recipe_form.start(services, DEMO, model, values | {"tuner.router_init": "random"}))
    try:
        wait_until(lambda: run.newest_checkpoint() is not None)
        buttons = train.view(services, run.id).buttons
        assert (buttons.active, buttons.resumable) == (True, False)
        os.kill(known(run.state().pid), signal.SIGKILL)
        wait_until(lambda: services.jobs.refresh(run).state == "interrupted")
        view = train.view(services, run.id)
        assert (view.buttons.active, view.buttons.resumable) == (False, True)
        step, _ = known(run.newest_checkpoint())
        assert f"of 3000; checkpoint at {step}. Resume " in view.words.status
        train.resume(services, run.id)
        wait_until(lambda: run.state().state == "training" and run.state().step > step)
        train.stop(services, run.id)
        assert services.jobs.follow(run).state == "stopped"
    finally:
        services.store.delete(run)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "HydraLoRA: a head of rank 8 for each component, on all rows."),
        ({"tuner.num_heads": 3, "tuner.r": 4}, "HydraLoRA: 3 heads of rank 4, on all rows."),
        ({"method": "lora", "components.only": 2}, "A plain LoRA of rank 8, on component 2 alone."),
        ({"method": "adalora", "tuner.r": 4}, "AdaLoRA of rank 4, on all rows."),
        ({"method": "prompt-tuning"}, "Prompt tuning with 20 virtual tokens, on all rows."),
        ({"method": "full"}, "Full fine-tuning, on all rows."),
    ],
)
def test_the_plan_says_what_would_be_trained(fresh: Services, values: dict[str, Any], told: str) -> None:
    assert recipe_form.plan(fresh, DEMO, "", values) == told
    fresh.components.find(DEMO, asked(fresh))
    plan = recipe_form.plan(fresh, DEMO, "", values)
    assert plan.startswith(told[:-1])
    assert ("(account, billing, customer)" in plan) == ("alone" in told)


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
    assert view.words.status.startswith("Finished after 10 steps: exact match ")
    assert "held-out rows." in view.words.status
    assert view.words.details.startswith("It took ")
    assert view.words.bar is None
    assert view.measured.whole
    assert not view.buttons.active
    assert [row[0] for row in view.measured.table] == ["fruit", "tool", "all rows"]
    assert all(all(row) for row in view.measured.table)
    loss = json.loads(view.curves.loss)["data"]
    assert loss[0]["x"][-1] == 10
    assert len(json.loads(view.curves.load)["data"]) == 3 + 1  # heads, entropy
    assert train.view(services, finished.run.id).marks == view.marks  # nothing new, nothing sent
    assert run_choices(services)[0][1] == newest_run(services) == finished.run.id


@pytest.mark.parametrize("name", ["../runs", "/tmp", "", "20990101-000000-abcd"])
def test_the_page_names_runs_by_id_alone(services: Services, finished: FinishedRun, name: str) -> None:
    for named in (name, str(finished.run.folder)):
        with pytest.raises(RunError, match="no"):
            services.run(named)


def test_a_run_without_a_and_heads_is_said(services: Services, finished: FinishedRun) -> None:
    recipe = finished.run.recipe()
    recipe.method = "full"
    run = services.store.create(recipe)
    try:
        seen = next(points.view(services, points.PointsRequest((run.id,)), "head")).sentence
        assert seen.startswith("This run was trained by Full fine-tuning: it has no A and no heads. Choose")
        assert next(trajectory.view(services, run.id, None, "pca")).sentence == seen
        code = runs_tab.view(services, run.id).code
        assert "--format merged" in code
        assert "PeftModel" not in code
        run.adapter.mkdir()
        (run.adapter / "model.safetensors").touch()
        with pytest.raises(RunError, match=r"can't continue from another run\. Resume this one"):
            runs_tab.continuing(services, run.id, ["method"])
    finally:
        services.store.delete(run)


def test_a_run_without_an_adapter_is_said(services: Services, finished: FinishedRun) -> None:
    run = services.store.create(finished.run.recipe())
    try:
        assert "no adapter yet" in next(points.view(services, points.PointsRequest((run.id,)), "head")).sentence
        assert points.rows(services, points.PointsRequest((run.id,)), [0]) == []
    finally:
        services.store.delete(run)


class Key:
    """A result's key that knows which threads have asked for it."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def __hash__(self) -> int:
        self.threads.add(threading.get_ident())
        return 0


def test_four_sessions_compute_a_result_once(services: Services) -> None:
    calls: list[int] = []
    key = Key()

    def compute() -> int:
        calls.append(1)
        wait_until(lambda: len(key.threads) == 4)
        return 7

    def remember(_: int) -> int:
        return services.cache.remember(ResultKind[int]("test"), key, compute=compute)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(remember, range(4)))
    assert (results, len(calls)) == ([7] * 4, 1)


def test_stopping_a_finished_run_is_refused(services: Services, finished: FinishedRun) -> None:
    with pytest.raises(RunError, match="finished"):
        train.stop(services, finished.run.id)


def test_without_a_run_every_tab_says_what_to_do(services: Services) -> None:
    assert "Start training" in train.view(services, None).words.status
    assert "Train one first" in next(points.view(services, points.PointsRequest(()), "head")).sentence


def test_work_in_the_background_tells_how_far_it_is_and_can_be_stopped() -> None:
    steps = [Progress(i, 4) for i in range(1, 4)]
    told: list[Progress | Done[str]] = []

    def work(on_progress: OnProgress) -> str:
        for step in steps:
            on_progress(step.done, step.total)
            wait_until(partial(contains, told, step))
        return "end"

    for now in in_background(work):
        told.append(now)
    assert [step for step in dict.fromkeys(told) if step != Progress()] == [*steps, Done("end")]
    ended = threading.Event()

    def endless(on_progress: OnProgress) -> None:
        try:
            while not ended.wait(0.01):
                on_progress(0, 1)
        finally:
            ended.set()

    running = in_background(endless)
    next(running)
    assert not ended.is_set()
    running.close()
    assert ended.wait(30)
    with pytest.raises(ZeroDivisionError):
        list(in_background(lambda on_progress: 1 // 0))


def test_a_hub_dataset_is_read_like_a_file(
    services: Services, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    told = threading.Event()

    def fetch_dataset(name: str) -> Path:
        asked.append(name)
        assert told.wait(30)
        return data_file

    monkeypatch.setattr("app.actions.data.fetch_dataset", fetch_dataset)
    steps = data.fetch(services, " owner/name@test ")
    assert next(steps) == "Fetching owner/name@test from the Hugging Face Hub …"
    told.set()
    *_, done = steps
    assert isinstance(done, Done)
    assert asked == ["hub:owner/name@test"]
    assert len(services.read_dataset(done.value).examples) == 48


def test_rows_without_tasks_are_scored_by_component() -> None:
    score = Score(loss=1.0, exact_match=0.5, rows=4)
    before = _evaluation("before", per_component={"0": score, "1": score})
    rows = train.score_table([before, before.changed(split="after")])
    assert [row[0] for row in rows] == ["component 1", "component 2", "all rows"]
    assert all(row[1:] == ["1.000", "1.000", "50.0%", "50.0%"] for row in rows)
    by_task = before.changed(per_task={"sums": score})
    assert [row[0] for row in train.score_table([by_task])] == ["sums", "all rows"]


def _evaluation(split: str, **more: Any) -> EvalEvent:
    return EvalEvent(step=0, time=0, split=split, loss=1.0, exact_match=0.5, rows=4, **more)


def test_held_out_prompts_stand_beside_what_was_said_before() -> None:
    def evaluation(split: str, *answers: str) -> EvalEvent:
        said = [SampleAnswer(prompt=f"ask {i}", expected="plum", answer=one) for i, one in enumerate(answers)]
        return _evaluation(split, answers=said)

    def shown(events: list[Event]) -> list[tuple[str, str, str, str]]:
        samples = train.sample_answers(events)
        return [(sample["prompt"], sample["expected"], sample["before"], sample["now"]) for sample in samples]

    events: list[Event] = [evaluation("before", "a", "b")]
    assert shown(events) == [("ask 0", "plum", "a", ""), ("ask 1", "plum", "b", "")]
    trained = TrainEvent(step=1, time=0, loss=1.0)
    events += [trained, evaluation("live", "c", "d"), evaluation("after", "plum", "e")]
    assert shown(events) == [("ask 0", "plum", "a", "plum"), ("ask 1", "plum", "b", "e")]
    assert shown([]) == []


def test_many_pages_draw_a_run_once(services: Services, finished: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = figures.loss

    def counted(events: list[Event]) -> str:
        drawn.append(1)
        return draw(events)

    monkeypatch.setattr(figures, "loss", counted)
    first = train.view(services, finished.run.id)
    drawn.clear()
    finished.run.update()  # its heartbeat makes it another state
    views = [train.view(services, finished.run.id) for _ in range(5)]
    assert drawn == []
    assert views == [first] * 5

"""The Parameters tab's views: every matrix once, the right one behind a point, and what is not there said."""

import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from app.actions.explore import head_use, heads, points, shapes, trajectory
from app.actions.explore.points import PointsRequest
from app.services import Services
from hydralora.analysis import PointGroup, read_weights
from hydralora.errors import ConfigError
from hydralora.figures.names import module_name
from hydralora.files import ADAPTER_WEIGHTS
from hydralora.runs.run import Run
from hydralora.runs.snapshots import saved_snapshots
from tests.conftest import FinishedRun

MATRICES = 2 * 3 * (1 + 3)  # 2 layers, 3 modules, A and 3 heads


def last(steps: Any) -> Any:
    return list(steps)[-1]


def drawn(view: points.PointsView) -> list[dict[str, Any]]:
    assert view.figures is not None
    return [trace for figure in view.figures for trace in json.loads(figure)["data"]]


@pytest.mark.parametrize("colour", ["head", "kind", "layer", "module", "run"])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_matrix_is_a_point(services: Services, finished: FinishedRun, colour: Any, dims: int) -> None:
    view = last(points.view(services, PointsRequest((finished.run.id,), "parts", dims=dims), colour))
    traces = drawn(view)
    assert sorted(i for trace in traces for i in trace["customdata"]) == list(range(MATRICES))
    assert {trace["type"] for trace in traces} == {"scatter3d" if dims == 3 else "scatter"}


def test_products_are_as_many_as_heads(services: Services, finished: FinishedRun) -> None:
    wanted = PointsRequest((finished.run.id,), "products")
    traces = drawn(last(points.view(services, wanted, "head")))
    assert sorted(i for trace in traces for i in trace["customdata"]) == list(range(2 * 3 * 3))


def test_what_takes_long_shows_pca_first(
    services: Services, finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, shown = points.project_matrices, threading.Event()

    def slowly(found: Any, method: Any, *settings: Any) -> list[PointGroup]:
        assert method == "pca" or shown.wait(30)
        return project(found, method, *settings)

    monkeypatch.setattr(points, "project_matrices", slowly)
    views = points.view(services, PointsRequest((finished.run.id,), method="tsne", seed=3), "head")
    first = next(views)
    shown.set()
    *_, done = views
    assert "is being computed" in first.sentence
    assert first.figures
    assert "PCA, " in first.figures[0]
    assert done.figures
    assert "t-SNE, perplexity" in done.figures[0]


def test_a_point_is_looked_into(services: Services, finished: FinishedRun) -> None:
    wanted = PointsRequest((finished.run.id,), "parts")
    (row,) = points.rows(services, wanted, [1, 999])
    seen = points.look_into(services, wanted, 1)
    name, _, _, head = map(str, row[1:5])
    assert seen.sentence.startswith(name)
    modules = read_weights(finished.run.adapter)
    weights = next(layer for module, layer in modules.items() if module_name(module) == name.rpartition(", ")[0])
    matrix = weights.a[0] if row[3] == "A" else weights.heads[int(head) - 1]
    assert f"norm {float(matrix.norm()):.4g}" in seen.sentence
    values = json.loads(seen.spectrum)["data"][0]["y"]
    assert "bdata" in values or len(values) == 4
    assert points.look_into(services, wanted, 10_000).sentence == ""


def test_by_step_the_matrices_are_drawn_as_they_learnt(services: Services, finished: FinishedRun) -> None:
    wanted = PointsRequest((finished.run.id,), "parts", steps=True)
    (*_, view) = points.view(services, wanted, "step")
    traces = drawn(view)
    count = points.STEPS_SHOWN * MATRICES
    ids = sorted(i for trace in traces for i in trace["customdata"])
    assert ids == list(range(count))
    rows = points.rows(services, wanted, range(count))
    names = [str(row[1]) for row in rows]
    steps = [_step(name) for name in names]
    assert Counter(steps) == dict.fromkeys([0, 3, 6, 9, None], MATRICES)
    begun = points.look_into(services, wanted, steps.index(0))
    assert begun.sentence.startswith(names[steps.index(0)])


def _step(name: str) -> int | None:
    """Of the snapshot that a matrix is from, by its name; None for the adapter itself."""
    found = re.search(r"step (\d+)$", name)
    return int(found[1]) if found else None


@pytest.fixture
def other_run(services: Services, finished: FinishedRun) -> Iterator[Run]:
    """The finished run under another id, with other matrices."""
    with services.store.place() as other:
        shutil.copytree(finished.run.folder, other.folder, dirs_exist_ok=True)
        file = other.adapter / ADAPTER_WEIGHTS
        save_file({name: 2 * weight for name, weight in load_file(file).items()}, file)
    run = services.store.get(other.id)
    run.update(id=run.id, adapter_hash="another")
    yield run
    shutil.rmtree(run.folder)


def test_runs_are_drawn_together(services: Services, finished: FinishedRun, other_run: Run) -> None:
    runs = finished.run.id, other_run.id
    wanted = PointsRequest((*runs, finished.run.id), "parts")  # a run that is named twice counts once
    traces = drawn(last(points.view(services, wanted, "run")))
    assert {trace["name"] for trace in traces} == set(runs)
    rows = points.rows(services, wanted, range(2 * MATRICES))
    assert Counter(row[0] for row in rows) == dict.fromkeys(runs, MATRICES)
    texts = {i: text for trace in traces for i, text in zip(trace["customdata"], trace["text"], strict=True)}
    for i, row in enumerate(rows):
        assert texts[i] == f"{row[1]}, {row[0]}"
    place = next(i for i, row in enumerate(rows) if row[0] == other_run.id)
    assert points.look_into(services, wanted, place).sentence.startswith(texts[place])


def test_a_stopped_runs_last_snapshot_is_not_its_adapter(services: Services, other_run: Run) -> None:
    for step, file in saved_snapshots(other_run.snapshots).items():
        if step > 3:
            (other_run.snapshots / file).unlink()
    wanted = PointsRequest((other_run.id,), "parts", steps=True)

    def steps() -> Counter[int | None]:
        return Counter(_step(str(row[1])) for row in points.rows(services, wanted, range(5 * MATRICES)))

    other_run.update(state="stopped", step=5)
    assert steps() == dict.fromkeys([0, 1, 2, 3, None], MATRICES)
    other_run.update(state="finished", step=3, adapter_hash="of its last step")
    assert steps() == dict.fromkeys([0, 1, 2, None], MATRICES)


def test_of_many_shapes_a_person_chooses(
    services: Services, finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "PANELS", 1)
    first = last(points.view(services, PointsRequest((finished.run.id,), "parts"), "head"))
    assert (first.shapes, first.drawn) == (["4 x 48", "4 x 80"], ["4 x 48"])
    assert "Not drawn: 4 x 80." in first.sentence
    wanted = PointsRequest((finished.run.id,), "parts", shapes=("4 x 80",))
    other = last(points.view(services, wanted, "head"))
    assert other.drawn == ["4 x 80"]
    assert "matrices of 4 x 80" in other.figures[0]
    assert sorted(i for trace in drawn(other) for i in trace["customdata"]) == list(range(2 * (1 + 2 * 3)))
    assert ": 4 x 80, Frobenius" in points.look_into(services, wanted, 0).sentence


@pytest.mark.parametrize("measure", ["similarity", "norm", "effective_rank", "moved"])
def test_heads_are_measured_layer_by_layer(services: Services, finished: FinishedRun, measure: Any) -> None:
    view = heads.view(services, finished.run.id, measure)
    assert view.rows is not None
    assert len(view.rows) == 2 * 3 * 3
    grid = json.loads(view.figure)
    assert grid["data"][0]["x"] == ["0", "1"]  # layers
    labels = [label.partition("</span> ")[2] for label in grid["layout"]["yaxis"]["ticktext"]]
    assert [label[:6] for label in labels] == ["head 1"] * 3 + ["head 2"] * 3 + ["head 3"] * 3
    assert {label[8:] for label in labels} == {"down_proj", "gate_proj", "up_proj"}
    assert "Mean" in view.sentence


def test_a_trajectory_has_a_frame_for_every_snapshot(services: Services, finished: FinishedRun) -> None:
    (label, module), *_ = offered = trajectory.modules(services, finished.run.id)
    assert label.endswith(", layer 0")
    view = last(trajectory.view(services, finished.run.id, module, "pca"))
    figure = json.loads(view.figures[0])
    assert [frame["name"] for frame in figure["frames"]] == [str(step) for step in range(11)]
    assert len(figure["layout"]["sliders"][0]["steps"]) == 11
    assert "PCA's axes are" in view.help
    assert "mean nothing" not in view.help
    whole = last(trajectory.view(services, finished.run.id, offered[-1][1], "tsne"))
    assert whole.figures
    assert "gaps between far groups mean nothing" in whole.help


def test_a_run_without_snapshots_says_how_to_get_some(services: Services, finished: FinishedRun) -> None:
    run = services.store.create(finished.run.recipe())
    try:
        assert trajectory.modules(services, run.id) == []
        assert "training.snapshots" in last(trajectory.view(services, run.id, None, "pca")).sentence
        assert "no adapter yet" in heads.view(services, run.id, "norm").sentence
    finally:
        services.store.delete(run)


def test_heads_are_put_beside_components_and_tasks(services: Services, finished: FinishedRun) -> None:
    assert not head_use.is_measured(services, finished.run.id)
    by_task = last(head_use.measure(services, finished.run.id, "task", head_use.ALL))
    figure = json.loads(by_task.figure)
    (drawn_map,) = figure["data"]
    assert figure["layout"]["yaxis"]["ticktext"] == ["fruit", "tool"]
    assert drawn_map["x"] == ["head 1", "head 2", "head 3"]
    assert head_use.is_measured(services, finished.run.id)
    assert "held-out rows" in by_task.sentence
    module = by_task.modules[1]
    assert head_use.tokens(services, finished.run.id, 7, module) == []  # of another run's heads, or modules
    assert head_use.training_rows(services, finished.run.id, 0, "lm_head") == []
    of_one = last(head_use.measure(services, finished.run.id, "component", module))
    assert of_one.figure != by_task.figure
    for place in (head_use.ALL, module):
        rows = head_use.tokens(services, finished.run.id, 0, place)
        gates = [float(str(row[head_use.TOKEN_COLUMNS.index("gate")])) for row in rows]
        assert gates == sorted(gates, reverse=True)
        assert len({str(row[1]).strip().lower() for row in rows}) == len(rows) > 3


def test_a_plain_lora_has_no_heads_to_look_at(services: Services, finished: FinishedRun) -> None:
    recipe = finished.run.recipe()
    recipe.method = "lora"
    run = services.store.create(recipe)
    try:
        (view,) = head_use.measure(services, run.id, "task", head_use.ALL)
        assert "no adapter yet" in view.sentence
        run.adapter.mkdir(parents=True)
        for file in finished.run.adapter.iterdir():
            (run.adapter / file.name).write_bytes(file.read_bytes())
        with pytest.raises(ConfigError, match="trained by LoRA: it has no heads"):
            last(head_use.measure(services, run.id, "task", head_use.ALL))
    finally:
        services.store.delete(run)

"""What the Runs tab computes: the table, one run's words, files that go and come, runs side by side."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from app.actions import recipes
from app.actions.run_choices import run_choices
from app.actions.runs import comparing, files, listing
from app.actions.runs import tab as runs
from app.page.forms import shown
from app.services import Services
from app.services.background import Done
from hydralora.data.store import DEMO
from hydralora.errors import HydraError, RunError
from hydralora.runs.events import EvalEvent
from hydralora.runs.scores import Score
from tests.conftest import FinishedRun
from tests.known import known, loss_of


def cells(services: Services, run_id: str) -> dict[str, object]:
    line = next(line for line in listing.listing(services).rows if line.id == run_id)
    names = [column.name for column in listing.COLUMNS]
    return dict(zip([*names, "name", "state"], [*line.cells, line.name, line.state], strict=True))


def test_every_run_is_in_the_table_with_its_numbers(services: Services, finished: FinishedRun) -> None:
    run, tuned = finished.run, known(known(finished.run.state().results).tuned)
    found = cells(services, run.id)
    assert found["state"] == "finished"
    assert (found["method"], found["N"], found["rank"]) == ("HydraLoRA", 3, 4)
    assert found["held-out loss"] == round(known(tuned.loss), 4)
    assert found["exact match, %"] == round(100 * tuned.exact_match, 1)
    assert (found["dataset"], found["base model"]) == ("rows.jsonl", "tiny")


def test_a_run_is_named_noted_and_tagged(services: Services, finished: FinishedRun) -> None:
    run_id = finished.run.id
    runs.label(services, run_id, " my  <b>run</b> ", "two\nlines", "good, slow,, good")
    seen = runs.view(services, run_id)
    assert (seen.name, seen.note, seen.tags) == ("my <b>run</b>", "two\nlines", "good, slow")
    assert cells(services, run_id)["name"] == "my <b>run</b>"
    assert ("my <b>run</b>", run_id) in comparing.choices(services, run_choices(services))
    assert finished.run.state().state == "finished"
    runs.label(services, run_id, "", "", "")
    assert runs.view(services, run_id).name == ""


def test_a_deleted_run_comes_back_for_a_day(
    services: Services, finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # what other tests left
        patch.setattr("hydralora.runs.store.BIN_SECONDS", -1)
        services.store.empty_bin()
    run = services.store.create(finished.run.recipe())
    run.update(state="stopped", message="by hand")
    with pytest.raises(RunError, match="none can be restored"):
        runs.restore(services, [run.id])
    assert run.id in runs.delete(services, run.id)
    assert run.id not in [line.id for line in listing.listing(services).rows]
    with pytest.raises(RunError, match="none can be restored"):
        runs.restore(services, [])  # another browser deleted it
    assert runs.restore(services, [run.id]) == run.id
    assert cells(services, run.id)["state"] == "stopped, step 0 of 10"
    runs.delete(services, run.id)
    services.store.empty_bin()  # deleted just now, so it stays
    assert services.store.deleted() == [run.id]


def test_a_run_at_work_is_not_deleted(services: Services, finished: FinishedRun) -> None:
    run = services.store.create(finished.run.recipe())  # queued, its process about to start
    with pytest.raises(RunError, match="Stop it first"):
        runs.delete(services, run.id)
    run.update(state="stopped")
    runs.delete(services, run.id)


@pytest.mark.slow
def test_an_export_comes_back_by_the_base_model_that_the_form_names(
    services: Services, finished: FinishedRun, tmp_path: Path
) -> None:
    *_, done = files.export(services, finished.run.id, "adapter")
    assert isinstance(done, Done)
    told, file = done.value
    assert "is ready" in told
    assert zipfile.is_zipfile(file)
    other = Services(tmp_path / "other")
    with pytest.raises(HydraError, match="not on this machine"):
        files.import_file(other, str(file), "nobody/nothing")
    (other.store.workspace / "models").mkdir(parents=True)
    (other.store.workspace / "models" / "mine").symlink_to(finished.run.recipe().model)
    run_id = files.import_file(other, str(file), "mine")
    assert cells(other, run_id)["held-out loss"] == cells(services, finished.run.id)["held-out loss"]
    other.close()


def test_a_lora_export_says_how_far_it_is_from_the_routed_model(services: Services, finished: FinishedRun) -> None:
    *_, done = files.export(services, finished.run.id, "lora")
    assert isinstance(done, Done)
    assert "nats per token" in done.value[0]


@pytest.mark.slow
def test_a_run_is_measured_on_and_answers_a_file(services: Services, finished: FinishedRun, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"name fruit number x{i}", "output": "plum", "task": "fruit"} for i in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    *_, done = files.evaluate(services, finished.run.id, str(file))
    assert isinstance(done, Done)
    told, table = done.value
    assert told == "rows.jsonl: 3 rows measured."
    assert [row[:2] for row in table[:2]] == [["all rows", 3], ["task fruit", 3]]
    *_, answered = files.answers(services, finished.run.id, str(file))
    assert isinstance(answered, Done)
    assert len(answered.value[1].read_text(encoding="utf-8").splitlines()) == 3
    file.write_text('{"instruction": "", "output": ""}\n', encoding="utf-8")
    with pytest.raises(HydraError, match="row 1"):
        list(files.evaluate(services, finished.run.id, str(file)))


def test_runs_stand_side_by_side(services: Services, finished: FinishedRun) -> None:
    recipe = finished.run.recipe()
    recipe.tuner.r = 2
    other = services.store.create(recipe)
    other.update(state="stopped")
    runs.label(services, other.id, "small", "", "")
    seen = comparing.comparison(services, [finished.run.id, other.id])
    assert seen.names == [finished.run.id, "small"]
    assert seen.differences == [["tuner.r", "4", "2"]]
    measured = known(finished.run.state().results)
    base, tuned = known(measured.base), known(measured.tuned)
    rows = {row[0]: row[1:] for row in seen.rows}
    scores: dict[str, tuple[Score, Score]] = {
        "all rows": (base, tuned),
        "task fruit": (base.per_task["fruit"], tuned.per_task["fruit"]),
        "component 1": (base.per_component["0"], tuned.per_component["0"]),
    }
    for name, pair in scores.items():
        told = [f"loss {score.loss:.3f}, exact match {score.exact_match:.1%}" for score in pair]
        assert rows[name] == [*told, "", ""]  # nothing of the other run was measured, and its sentence says so
    assert "blank where nothing was measured" in seen.sentence
    spent = known(measured.energy_kwh)
    for name, part in (("energy", "total"), ("energy, CPU", "cpu"), ("energy, GPU", "gpu"), ("energy, RAM", "ram")):
        assert rows[name] == ["", f"{spent[part]:.6f} kWh", "", ""]
        assert f"{spent[part]:.6f}" in runs.view(services, finished.run.id).sentence
    assert {"task tool", "parameters", "training"} <= set(rows)
    traces = json.loads(seen.figure)["data"]
    assert {trace["name"] for trace in traces} == {finished.run.id, "small"}
    assert comparing.comparison(services, [other.id]).figure == ""
    runs.delete(services, other.id)


def test_a_runs_settings_go_back_into_the_form(services: Services, model_folder: Path) -> None:
    keys = ["tuner.num_heads", "method", "components.only", "training.epochs"]
    (services.store.workspace / "models").mkdir(parents=True, exist_ok=True)
    own = services.store.workspace / "models" / "own"
    if not own.exists():
        own.symlink_to(model_folder)
    values = {"tuner.num_heads": 2, "method": "lora", "training.max_steps": 7}
    recipe = recipes.recipe_from_form(services, DEMO, "own", values)
    run = services.store.create(recipe)
    run.update(state="stopped")
    filled = runs.settings(services, run.id, keys)
    held = filled.values
    assert (filled.dataset, filled.model, held) == (DEMO, "own", [2, "lora", None, None])
    assert [shown(key, value) for key, value in zip(keys, held, strict=True)] == [2, "lora", 0, 0]
    runs.delete(services, run.id)


@pytest.mark.slow
def test_the_snippet_runs_as_it_stands(services: Services, finished: FinishedRun, tmp_path: Path) -> None:
    code = runs.view(services, finished.run.id).code
    *_, exported = files.export(services, finished.run.id, "adapter")
    assert isinstance(exported, Done)
    with zipfile.ZipFile(exported.value[1]) as archive:
        archive.extractall(tmp_path / f"{finished.run.id}-adapter")
    (tmp_path / "use.py").write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_run_is_trained_on_with_its_own_shape(services: Services, finished: FinishedRun, model_folder: Path) -> None:
    keys = ["start_from", "tuner.num_heads", "tuner.r", "training.max_steps"]
    assert runs.continuing(services, finished.run.id, keys).values == [finished.run.id, 3, 4, 10]
    run = services.store.create(finished.run.recipe())
    with pytest.raises(RunError, match="no adapter to continue from"):
        runs.continuing(services, run.id, keys)
    run.update(state="stopped")
    runs.delete(services, run.id)


@pytest.mark.parametrize("name", ["/etc", "../x", "20260101-000000-abcd", "no run"])
def test_the_form_starts_from_runs_of_this_workspace_alone(services: Services, name: str) -> None:
    values = {"start_from": name}
    with pytest.raises(RunError, match=r"no (such )?run"):
        recipes.recipe_from_form(services, DEMO, "", values)
    assert list(recipes.wrong_in_form(services, DEMO, "", values)) == ["start_from"]


def test_each_run_stands_beside_its_own_base(services: Services, finished: FinishedRun) -> None:
    score = Score(loss=9.0, exact_match=0.25, rows=3)
    other = services.store.create(finished.run.recipe())
    measured = EvalEvent(step=0, time=0, split="before", **score.model_dump(), per_task={"new": score})
    other.add_event(measured)
    other.update(state="stopped")
    rows = {row[0]: row[1:] for row in comparing.comparison(services, [finished.run.id, other.id]).rows}
    loss = loss_of(known(finished.run.state().results).base)
    assert rows["all rows"][0].startswith(f"loss {loss:.3f}")
    assert rows["all rows"][2:] == ["loss 9.000, exact match 25.0%", ""]
    assert rows["task new"] == ["", "", "loss 9.000, exact match 25.0%", ""]
    runs.delete(services, other.id)


def test_an_imported_runs_recipe_names_no_file_that_was_never_here(services: Services, finished: FinishedRun) -> None:
    assert str(finished.run.recipe().data.train) in runs.view(services, finished.run.id).recipe
    recipe = finished.run.recipe()
    recipe.data.train = "elsewhere.jsonl"
    run = services.store.create(recipe)
    run.update(state="stopped")
    shown_recipe = runs.view(services, run.id).recipe
    assert "train: elsewhere.jsonl" in shown_recipe
    assert f"model: {recipe.model}" in shown_recipe
    runs.delete(services, run.id)


def test_a_damaged_run_is_shown_with_what_can_be_done(finished: FinishedRun, tmp_path: Path) -> None:
    own = Services(tmp_path)
    stateless, recipeless, whole = (own.store.create(finished.run.recipe()) for _ in range(3))
    for run in (recipeless, whole):
        run.update(state="stopped")
    runs.label(own, stateless.id, "mine", "", "")
    (stateless.folder / "state.json").write_text("{", encoding="utf-8")
    (recipeless.folder / "recipe.yaml").write_text("model: [", encoding="utf-8")
    seen = listing.listing(own)
    assert [row.id for row in seen.rows] == sorted((run.id for run in (stateless, recipeless, whole)), reverse=True)
    states = {row.id: row.state for row in seen.rows}
    assert states == {stateless.id: "damaged", recipeless.id: "damaged", whole.id: "stopped, step 0 of 10"}
    assert cells(own, stateless.id)["name"] == "mine"
    assert set(seen.damaged) == {stateless.id, recipeless.id}
    for run, file in ((stateless, "state.json"), (recipeless, "recipe.yaml")):
        told = seen.damaged[run.id]
        assert run.id in told
        assert file in told
        assert str(tmp_path) not in told
        assert "elete the folder" in told
        with pytest.raises(RunError, match=file):
            runs.readable(own, run.id)
    assert runs.readable(own, whole.id) == whole.id
    own.close()

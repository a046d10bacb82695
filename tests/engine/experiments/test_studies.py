"""Studies as they are declared, and the runs that they need."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from hydralora.data.dataset import read_dataset
from hydralora.errors import ConfigError, DatasetError
from hydralora.experiments.studies import study_label
from hydralora.experiments.studies.cells import Plan, Settings, recipe_key
from hydralora.experiments.studies.report import report
from hydralora.experiments.studies.rows import row_files
from hydralora.experiments.studies.running import begin_study
from hydralora.experiments.studies.study import Study, declared_studies, find_study, read_study
from hydralora.runs.jobs import JobManager
from hydralora.training.sizes import adapter_size
from tests.conftest import FinishedRun
from tests.known import known

OWN: dict[str, Any] = {
    "title": "Mine",
    "question": "Is two better than one?",
    "reference": "one",
    "arms": {"one": {"settings": {"method": "lora", "tuner.r": 2}}, "two": {"settings": {"tuner.num_heads": 2}}},
}


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(OWN | changes, sort_keys=False), encoding="utf-8")
        return path

    return write


def plan(study: Study, folder: Path, data_file: Path, model_folder: Path, **settings: Any) -> Plan:
    return Plan(study, Settings(data=str(data_file), model=str(model_folder), **settings), folder)


@pytest.mark.parametrize("name", declared_studies())
def test_a_study_that_ships_can_be_planned(name: str, tmp_path: Path, data_file: Path, model_folder: Path) -> None:
    _, study = find_study(name)
    fitting: dict[str, list[object]] = {
        "model": [str(model_folder)],
        "rows.kinds": [1, 2],
    }  # on this machine; in these rows
    study = study.with_axes({key: values for key, values in fitting.items() if key in study.axes})
    assert study.question.endswith("?")
    planned = plan(study, tmp_path, data_file, model_folder, seeds=2)
    tried = planned.tuning()
    grids = [arm.values or study.tune.values for arm in study.arms.values()] if study.tune else []
    for grid in grids:
        assert len(grid) >= 5  # it shows whether the best one lies inside
        rates = list(map(float, grid))
        assert [high / low for low, high in pairwise(rates)] == pytest.approx([3] * (len(rates) - 1), rel=0.15)
    points = len(study.points())
    assert [cell.tried for cell in tried] == points * [value for grid in grids for value in grid]
    reported = planned.reported({cell.place: 2e-3 for cell in tried})
    assert [cell.arm for cell in reported] == 2 * points * list(study.arms)
    recipes = [cell.recipe for cell in [*tried, *reported]]
    assert all(recipes.count(recipe) == 1 for recipe in recipes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"referense": "one"}, "referense is not a setting"),
        ({"reference": "three"}, "reference names 'three', which is not an arm. The arms are: one, two"),
        ({"arms": {"one": {}}}, "arms: Dictionary should have at least 2 items"),
        ({"arms": {"one": {}, "two": {"settings": {"tuner.rank": 3}}}}, "Mine, arm two: tuner.rank is not a setting"),
        ({"axes": {"training.seed": [*range(501)]}}, "arms and axes make 1002 different runs, of at most 1000"),
        ({"axes": {"training.batch_size": []}}, "axes.training.batch_size"),
        ({"axes": {"training.batch_size": [4, -1]}}, "training.batch_size: Input should be greater"),
        ({"judged": "head_cosine"}, "judged: of head_cosine, neither more nor less is better"),
        ({"measures": ["speed"]}, "measures.0: Input should be"),
        ({"arms": {"one": {"size_of": "two"}, "two": {"size_of": "one"}}}, "has itself the size of another"),
        ({"version": 2}, "version"),
        ({"arms": {"one": {}, "base model": {}}}, "no arm can be called 'base model'"),
        (
            {"arms": {"one": {}, "two": {"settings": {"rows.kinds": 2}}}},
            "'two' changes the rows, which are the same for",
        ),
        ({"axes": {"rows.noise": [1]}}, "rows.noise is not a setting"),
        ({"axes": {"rows.exchanged": [0.5, 2]}}, "rows.exchanged: Input should be less than or equal to 1"),
        ({"arms": {"one": {}, "two": {"values": [1e-3]}}}, "the arm 'two' has values, but the study chooses none"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(own: Callable[..., Path], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_study(own(**changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "!!python/object/apply:os.system ['true']"])
def test_a_file_that_holds_no_study_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"own\.yaml: it (can't be read as YAML|holds no study)"):
        read_study(path)
    with pytest.raises(ConfigError, match=r"There is no study 'absent'\. Name a file, or one of: ablations,"):
        find_study("absent")


def test_rows_are_trained_on_chosen_by_or_reported(tmp_path: Path, data_file: Path) -> None:
    everything = {row.question for row in read_dataset(data_file).examples}
    seen = []
    for seed in (0, 1):
        files = row_files(tmp_path, str(data_file), None, 200, seed)
        parts = [
            {row.question for row in read_dataset(path).examples} for path in (files.train, files.tune, files.report)
        ]
        assert set.union(*parts) == everything
        assert sum(map(len, parts)) == len(everything)  # no row is in two of them
        assert all(len(part) >= 4 for part in parts)
        seen.append(parts[2])
    assert seen[0] != seen[1]
    assert read_dataset(files.train).tasks
    few = tmp_path / "few.jsonl"
    few.write_text("".join(data_file.read_text(encoding="utf-8").splitlines(keepends=True)[:9]), encoding="utf-8")
    with pytest.raises(DatasetError, match="are too few for a study"):
        row_files(tmp_path / "few", str(few), None, 200, 0)


def test_what_a_row_marks_as_read_only_stays_so(tmp_path: Path) -> None:
    rows = []
    for i in range(30):
        turns = [("user", f"q {i}"), ("assistant", f"wrong {i}"), ("user", "again"), ("assistant", f"right {i}")]
        messages = [{"role": role, "content": content} for role, content in turns]
        messages[1]["weight"] = 0  # type: ignore[assignment]
        rows.append(json.dumps({"messages": messages}))
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(rows), encoding="utf-8")
    files = row_files(tmp_path / "rows", str(data), None, 200, 0)
    assert {row.untaught for row in read_dataset(files.train).examples} == {(1,)}
    text = tmp_path / "text.jsonl"
    text.write_text("".join(f'{{"text": "line {i}"}}\n' for i in range(30)), encoding="utf-8")
    plain = row_files(tmp_path / "text", str(text), None, 200, 0)
    assert all(row.answer.startswith("line") for row in read_dataset(plain.train).examples)


def test_arms_are_paired_and_chosen_on_rows_of_their_own(
    own: Callable[..., Path], tmp_path: Path, data_file: Path, model_folder: Path
) -> None:
    study = read_study(own(tune={"values": [1e-3, 3e-3]}, axes={"training.batch_size": [2, 4]}))
    planned = plan(study, tmp_path / "rows", data_file, model_folder, seeds=2, steps=10)
    tried = planned.tuning()
    assert len(tried) == 2 * 2 * 2
    assert {cell.recipe.training.max_steps for cell in tried} == {5}
    chosen = {cell.place: 3e-3 for cell in tried}
    assert len(chosen) == 4
    reported = planned.reported(chosen)
    assert len(reported) == 2 * 2 * 2
    assert {cell.recipe.training.learning_rate for cell in reported} == {3e-3}
    assert not {cell.recipe.data.eval for cell in tried} & {cell.recipe.data.eval for cell in reported}
    for seed in (0, 1):
        same = [cell.recipe for cell in reported if cell.seed == seed]
        assert len({(recipe.data.eval, str(recipe.data.train), recipe.training.seed) for recipe in same}) == 1
        assert {recipe.components.seed for recipe in same} == {seed}
    without_one = {place: value for place, value in chosen.items() if place[0] != "two"}
    assert {cell.arm for cell in planned.reported(without_one)} == {"one"}


def test_arms_of_one_size_have_as_many_parameters(
    own: Callable[..., Path], tmp_path: Path, data_file: Path, model_folder: Path
) -> None:
    arms = {"one": {"settings": {"method": "lora"}, "size_of": "two"}, "two": {}}
    planned = plan(read_study(own(arms=arms)), tmp_path / "rows", data_file, model_folder, seeds=1)
    lora, ours = (cell.recipe for cell in planned.reported({}))
    sizes = [adapter_size(recipe, 2).counts.total for recipe in (lora, ours)]  # two skills are found in the file
    assert 0 <= sizes[0] - sizes[1] < sizes[0] / lora.tuner.r
    assert lora.tuner.lora_alpha / lora.tuner.r == ours.tuner.lora_alpha / ours.tuner.r


def test_only_some_arms_are_run_with_what_they_need(
    own: Callable[..., Path], tmp_path: Path, data_file: Path, model_folder: Path
) -> None:
    arms = OWN["arms"] | {"three": {"settings": {"method": "lora"}, "size_of": "two"}, "four": {}}
    study = read_study(own(arms=arms))
    assert plan(study, tmp_path, data_file, model_folder, arms=("three",)).names == ["one", "two", "three"]
    with pytest.raises(ConfigError, match=r"There is no arm 'five'\. The arms are: one, two, three, four"):
        plan(study, tmp_path, data_file, model_folder, arms=("five",))


def test_runs_are_found_again_though_the_base_model_is_a_link(
    own: Callable[..., Path], jobs: JobManager, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(model_folder)
    running = begin_study(jobs, "own", read_study(own()), Settings(data=str(data_file), model=str(link), seeds=1))
    for cell, _ in running.cells()[1]:
        jobs.store.create(cell.recipe, study_label(running.id, cell.name, running.file.study.title))
    assert "missing" not in running.status().cells  # else they would be started again and again


def test_a_setting_without_effect_makes_no_other_run(make_recipe: Callable[..., Any]) -> None:
    assert recipe_key(make_recipe("lora")) == recipe_key(make_recipe("lora", {"router_input": "latent"}))
    assert recipe_key(make_recipe("lora")) != recipe_key(make_recipe("lora", {"r": 3}))
    assert recipe_key(make_recipe()) != recipe_key(make_recipe("hydralora", {"router_input": "latent"}))


def test_what_one_study_has_finished_serves_another(
    own: Callable[..., Path], jobs: JobManager, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    study, settings = read_study(own()), Settings(data=str(data_file), model=str(model_folder), seeds=1)
    first = begin_study(jobs, "own", study, settings)
    for cell, _ in first.cells()[1]:
        run = jobs.store.create(cell.recipe, study_label(first.id, cell.name, study.title))
        run.update(state="finished" if cell.arm == "one" else "running")
    more = begin_study(jobs, "own", study, settings.changed(seeds=2))
    assert more.status().cells == {"finished": 1, "missing": 3}  # what is under way is its own study's to stop
    assert more.cells()[1][0][1] == first.cells()[1][0][1]
    other = begin_study(jobs, "own", study, settings.changed(steps=7))
    assert other.status().cells == {"missing": 2}
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(data_file.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    assert begin_study(jobs, "own", study, settings.changed(data=str(changed))).status().cells == {"missing": 2}


def test_a_setting_is_chosen_by_its_measurement_and_a_failed_arm_is_left_out(
    own: Callable[..., Path], jobs: JobManager, data_file: Path, model_folder: Path, finished: FinishedRun
) -> None:
    study = read_study(own(tune={"values": [1e-3, 3e-3, 1e-2]}))
    settings = Settings(data=str(data_file), model=str(model_folder), seeds=2, steps=10)
    running = begin_study(jobs, "own", study, settings)
    assert running.status().cells == {"missing": 6}
    results = known(finished.run.state().results)
    losses: dict[tuple[str, object], float] = {("one", 1e-3): 3.0, ("one", 3e-3): 1.0, ("one", 1e-2): 2.0}
    for cell in running.plan.tuning():
        run = jobs.store.create(cell.recipe, study_label(running.id, cell.name, study.title))
        if loss := losses.get((cell.arm, cell.tried)):
            tuned = known(results.tuned).changed(loss=loss)
            run.update(state="finished", results=results.changed(tuned=tuned))
        else:
            run.update(state="failed", message="no reason")
    assert running.chosen() == {("one", ""): 3e-3}
    phase, cells = running.cells()
    assert (phase, [(cell.arm, cell.seed, run) for cell, run in cells]) == (
        "reporting",
        [("one", 0, None), ("one", 1, None)],
    )
    assert begin_study(jobs, "own", study, settings).id == running.id  # the same command goes on with it
    assert begin_study(jobs, "own", study, settings.changed(seeds=3)).id != running.id
    assert [tried.measure for tried in report(running).tried] == [3.0, 1.0, 2.0, None, None, None]
    assert report(running).verdict == "Nothing can be compared yet."

"""Every study that ships, run on a tiny model: all arms, and their report."""

from pathlib import Path

import pytest

from hydralora import train
from hydralora.experiments.studies import study_label
from hydralora.experiments.studies.cells import Settings
from hydralora.experiments.studies.report import report
from hydralora.experiments.studies.report_files import write_html
from hydralora.experiments.studies.report_tables import report_table
from hydralora.experiments.studies.running import RunningStudy, begin_study
from hydralora.experiments.studies.study import BASE, Study, declared_studies, find_study
from hydralora.runs.jobs import JobManager
from hydralora.training.run import OutputFolders

SMALL = {"training.threads": 1, "training.max_length": 512, "tuner.virtual_tokens": 4}
OF_HEADS = {"head_cosine", "mutual_information", "gate_entropy"}
POINTS = 2  # of each axis


def shortened(name: str, model: Path) -> Study:
    """The study at a few points, without a choice of learning rates."""
    study = find_study(name)[1]
    axes = {key: [str(model)] if key == "model" else values[:POINTS] for key, values in study.axes.items()}
    arms = {arm: values.model_copy(update={"values": None}) for arm, values in study.arms.items()}
    return study.model_copy(update={"axes": axes, "arms": arms, "tune": None})


def run_all(study: RunningStudy) -> None:
    """Its cells in this process, as their workers would."""
    store = study.jobs.store
    for cell, _ in study.cells()[1]:
        run = store.create(cell.recipe, study_label(study.id, cell.name, study.file.study.title))
        folders = OutputFolders(run.adapter, row_scores=run.row_scores, base_scores=store.base_scores)
        results = train(store.resolved(run.recipe()), folders)
        run.update(state="finished", results=results, adapter_hash=results.adapter_hash)


@pytest.mark.slow
@pytest.mark.parametrize("name", declared_studies())
def test_a_study_that_ships_runs(
    name: str, jobs: JobManager, data_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    settings = Settings(data=str(data_file), model=str(model_folder), seeds=1, rows=6, steps=2, recipe=SMALL)
    study = begin_study(jobs, name, shortened(name, model_folder), settings)
    run_all(study)
    found = report(study)
    declared = study.file.study
    assert found.ended
    assert not found.failed
    assert {line.arm for line in found.table} == {*declared.arms, BASE}
    assert len(found.table) == (len(declared.arms) + 1) * len(declared.points())
    for line in found.table:
        if line.arm != BASE:
            measured = {name for name in declared.measures if not name.startswith("energy")}  # by a run's own process
            assert measured - OF_HEADS <= set(line.measures)
    assert all(arm in report_table(found) for arm in declared.arms)
    write_html(tmp_path / "page.html", study, found)
    assert found.title in (tmp_path / "page.html").read_text(encoding="utf-8")

"""A study's report as a page and as a table: what they say, and that texts stay texts."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from typer.testing import CliRunner

from hydralora.cli import app
from hydralora.errors import ConfigError
from hydralora.experiments.studies import study_label
from hydralora.experiments.studies.cells import Settings
from hydralora.experiments.studies.report import report
from hydralora.experiments.studies.report_figures import measured_figure, paper_figure, tried_figure
from hydralora.experiments.studies.report_files import write_csv, write_html
from hydralora.experiments.studies.running import RunningStudy, begin_study
from hydralora.experiments.studies.statistics import interval_of_mean
from hydralora.experiments.studies.study import Study, find_study
from hydralora.runs.jobs import JobManager
from tests.conftest import FinishedRun
from tests.known import known

SCRIPT, COMMAND = "<script>hacked()</script>", "=cmd|'/c calc'!A0"
STUDY: dict[str, Any] = {
    "title": f"Mine {SCRIPT}",
    "question": "Is two better than one?",
    "reference": SCRIPT,
    "arms": {
        SCRIPT: {"settings": {"method": "lora", "tuner.r": 2}},
        COMMAND: {"settings": {"tuner.num_heads": 2}},
        "none": {"settings": {"tuner.num_heads": 3}},
    },
    "tune": {"values": [1e-3, 3e-3]},
    "paper": {"source": "A paper", "measure": "MMLU (%)", "differs": "It is larger.", "values": {SCRIPT: 47.22}},
}
LOSSES = {SCRIPT: (1.0, 1.2, 1.1), COMMAND: (0.5, 0.8, 0.7)}


@pytest.fixture
def ended(jobs: JobManager, data_file: Path, model_folder: Path, finished: FinishedRun) -> RunningStudy:
    """A study of three arms, one of which fails, over three seeds."""
    study = Study.model_validate(STUDY)
    running = begin_study(
        jobs, "mine", study, Settings(data=str(data_file), model=str(model_folder), seeds=3, steps=10)
    )
    results = known(finished.run.state().results)
    for _ in range(2):  # once to choose, once to report
        for cell, run in running.cells()[1]:
            if run:
                continue
            run = jobs.store.create(cell.recipe, study_label(running.id, cell.name, study.title))
            if cell.arm == "none":
                run.update(state="failed", message=f"no reason {SCRIPT}")
                continue
            loss = LOSSES[cell.arm][cell.seed] + (1 if cell.tried == 1e-3 else 0)
            run.update(state="finished", results=results.changed(tuned=known(results.tuned).changed(loss=loss)))
    return running


def test_the_page_shows_all_of_it_and_no_text_becomes_markup(ended: RunningStudy, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(path, ended)
    text = path.read_text(encoding="utf-8")
    page = text.partition('<script id="figures"')[0]
    assert "<script" not in page
    assert "Mine &lt;script&gt;" in page
    assert "=cmd|&#x27;/c calc&#x27;!A0" in page
    for expected in (
        "Is two better than one?",
        "95 % interval",
        "MMLU (%)",
        "It is larger.",
        "no reason &lt;script&gt;",
    ):
        assert expected in page, expected
    by_task = page.partition("By task")[2].partition("By component")[0]
    assert "fruit" in by_task
    assert "tool" in by_task
    for made in ("Base model", "Seeds", "Steps of a run", "This machine", "torch ", "transformers "):
        assert made in page, made
    assert str(tmp_path.parent.parent) not in page  # no folder of this machine
    measured, paper, tried = _figures(text)
    assert measured["layout"]["xaxis"]["title"]["text"] == "loss (nats per token)"
    assert paper["layout"]["xaxis"]["title"]["text"] == "MMLU (%)"
    assert paper["data"][0]["x"] == [47.22]
    assert [trace["y"] for trace in tried["data"]] == [[2.0, 1.0], [1.5, 0.5]]
    assert [trace["marker"]["size"][1] > trace["marker"]["size"][0] for trace in tried["data"]] == [True, True]
    assert "<script" not in json.dumps([measured, paper, tried])


def test_nothing_of_the_page_is_loaded_from_elsewhere(ended: RunningStudy, tmp_path: Path) -> None:
    write_html(tmp_path / "report.html", ended)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    own = re.sub(r"<script>/\*.*?</script>", "", text, flags=re.DOTALL)  # without plotly.js, which is inside
    assert len(own) < len(text) / 10
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", own)


def test_the_table_has_a_line_for_each_run_and_each_summary(
    ended: RunningStudy, finished: FinishedRun, tmp_path: Path
) -> None:
    write_csv(tmp_path / "report.csv", report(ended))
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    runs, summaries = ([row for row in rows if row["kind"] == kind] for kind in ("run", "summary"))
    assert len(runs) == 6
    assert {row["arm"] for row in runs} == {SCRIPT, f"'{COMMAND}"}
    assert [float(row["loss"]) for row in runs if row["arm"] == SCRIPT] == list(LOSSES[SCRIPT])
    assert [row["seed"] for row in runs] == ["0", "0", "1", "1", "2", "2"]
    reference, other, base = summaries
    assert base["arm"] == "base model"
    assert (reference["paper"], reference["difference"], reference["chosen"]) == ("47.22", "", "0.003")
    assert float(other["difference"]) == pytest.approx(-1.3 / 3)
    assert float(other["low"]) < float(other["difference"]) < float(other["high"]) < 0  # a number keeps its sign
    tasks = {(row["arm"], row["group"]): row for row in rows if row["kind"] == "task"}
    assert set(tasks) == {(arm, task) for arm in (SCRIPT, f"'{COMMAND}", "base model") for task in ("fruit", "tool")}
    scores = known(known(finished.run.state().results).tuned)  # alike in all of its runs, but for the loss
    assert float(tasks[SCRIPT, "fruit"]["loss"]) == pytest.approx(scores.per_task["fruit"].loss)
    assert float(tasks[SCRIPT, "fruit"]["exact_match"]) == scores.per_task["fruit"].exact_match
    assert tasks[SCRIPT, "fruit"]["seeds"] == "3"
    assert len([row for row in rows if row["kind"] == "component"]) == 3 * len(scores.per_component)
    for row in rows:
        assert not any(value.startswith(("=", "+", "@", "\t")) for value in row.values())


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t"])
def test_no_cell_begins_like_a_formula(ended: RunningStudy, tmp_path: Path, first: str) -> None:
    found = report(ended)
    line = found.table[0].changed(arm=f"{first}1+1")
    write_csv(tmp_path / "report.csv", found.changed(cells=[], table=[line]))
    with (tmp_path / "report.csv").open(encoding="utf-8", newline="") as file:
        assert next(iter(csv.DictReader(file)))["arm"] == f"'{first}1+1"


def test_the_command_writes_both(ended: RunningStudy, tmp_path: Path) -> None:
    out = [str(tmp_path / name) for name in ("report.html", "report.csv", "absent/report.csv")]
    where = ["--workspace", str(ended.jobs.store.workspace)]
    asked = ["study", "report", ended.id, *where, "--json", "--html", out[0], "--csv"]
    done = CliRunner().invoke(app, [*asked, out[1]])
    assert json.loads(done.stdout)["reference"] == SCRIPT
    assert all(Path(path).stat().st_size for path in out[:2])
    assert CliRunner().invoke(app, [*asked, out[2]]).exit_code == 1
    with pytest.raises(ConfigError, match="can't be written"):
        write_html(tmp_path / "absent" / "report.html", ended)


def test_an_arms_interval_is_students(ended: RunningStudy) -> None:
    low, high = known(interval_of_mean(1.1, 0.1, 3))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, loc=1.1, scale=0.1 / 3**0.5))
    assert interval_of_mean(1.0, None, 1) is None
    seeds, means = json.loads(measured_figure(report(ended), ended.file.study))["data"]
    assert sorted(seeds["x"]) == sorted(value for values in LOSSES.values() for value in values)
    assert means["x"] == pytest.approx([1.1, 2.0 / 3])
    assert means["error_x"]["array"][0] == pytest.approx(high - 1.1)


def test_arms_that_differ_in_their_heads_are_a_line(ended: RunningStudy) -> None:
    _, heads = find_study("number-of-heads")
    first = report(ended).table[0]
    lines = [first.changed(arm=arm) for arm in heads.arms]
    found = report(ended).changed(table=lines, reference=heads.reference)
    line, _, level = json.loads(measured_figure(found, heads))["data"]
    assert line["x"] == [1, 2, 3, 4, 5, 8]
    assert level["name"] == heads.reference
    axes = Study.model_validate(STUDY | {"axes": {"training.batch_size": [4, 2]}})
    points = [first.changed(axes={"training.batch_size": size}) for size in (4, 2)]
    drawn = json.loads(measured_figure(found.changed(table=points), axes))
    assert drawn["data"][0]["x"] == [2, 4]
    assert drawn["layout"]["xaxis"]["title"]["text"] == "batch size"
    _, split = find_study("rank-and-split")  # its arms differ in their rank, too
    rows = [first.changed(arm=arm) for arm in split.arms]
    assert json.loads(measured_figure(found.changed(table=rows), split))["layout"]["yaxis"]["type"] == "category"
    assert list(json.loads(paper_figure(known(split.paper)))["data"][0]["y"]) == list(split.arms)


def test_what_is_not_known_yet_is_not_drawn(ended: RunningStudy) -> None:
    empty = report(ended).changed(table=[], tried=[])
    assert measured_figure(empty, ended.file.study) == tried_figure(empty) == ""


def _figures(page: str) -> list[dict[str, Any]]:
    data = page.partition('<script id="figures" type="application/json">')[2].partition("</script>")[0]
    return list(json.loads(data))


def test_an_arm_that_comes_later_is_in_sight(ended: RunningStudy) -> None:
    found = report(ended)
    for count in (1, 2):  # the page keeps a range that a figure sets, as if a reader had zoomed
        drawn = json.loads(measured_figure(found.changed(table=found.table[:count]), ended.file.study))
        assert "range" not in drawn["layout"]["yaxis"]

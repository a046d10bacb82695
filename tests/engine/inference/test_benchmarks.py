"""Public benchmarks by lm-evaluation-harness, here on a task over rows that ship."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hydralora import ConfigError, train
from hydralora.cli import app
from hydralora.experiments.studies.measures import MEASURES
from hydralora.inference import benchmarks
from hydralora.inference.benchmarks import read_task_scores
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import NoteEvent
from hydralora.runs.state import Stage
from hydralora.training import tasks
from hydralora.training.monitor import Monitor
from hydralora.training.run import OutputFolders
from tests.benchmark_tasks import write_tasks
from tests.conftest import FinishedRun

pytest.importorskip("lm_eval")
from lm_eval.tasks import TaskManager

pytestmark = pytest.mark.slow
ROWS = 6


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return write_tasks(tmp_path / "tasks")


def evaluate(run: FinishedRun, *more: str) -> tuple[int, str]:
    asked = ["evaluate", run.run.id, "--workspace", str(run.run.folder.parent.parent), "--json", *more]
    result = CliRunner().invoke(app, asked)
    return result.exit_code, result.stdout


def test_a_run_and_its_base_model_are_evaluated(finished: FinishedRun, definitions: Path) -> None:
    limited = ["--limit", str(ROWS), "--task-definitions", str(definitions)]
    code, printed = evaluate(finished, "--tasks", "scored,written", *limited)
    assert code == 0, printed
    tasks = json.loads(printed)["tasks"]
    assert set(tasks) == {"scored", "written"}
    assert tasks["scored"]["base"]["perplexity"] != tasks["scored"]["tuned"]["perplexity"]
    assert math.isfinite(tasks["scored"]["tuned"]["perplexity"])
    assert 0 <= tasks["written"]["tuned"]["exact_match"] <= 1
    assert tasks["scored"]["limit"] == ROWS
    kept = read_task_scores(finished.run)
    assert {name: scores.values() for name, scores in kept.items()} == tasks
    asked = ["-m", "hydralora.cli", "with", "lm_eval", "run", "--model", "hydralora", "--tasks", "scored"]
    workspace = finished.run.folder.parent.parent
    where = ["--model_args", f"run={finished.run.id},workspace={workspace}", "--include_path", str(definitions)]
    out = definitions / "out"
    done = subprocess.run(
        [sys.executable, *asked, *where, "--limit", str(ROWS), "--output_path", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = out.rglob("results*.json")
    found = json.loads(file.read_text(encoding="utf-8"))["results"]["scored"]
    assert found["perplexity,none"] == pytest.approx(tasks["scored"]["tuned"]["perplexity"], rel=1e-4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--tasks", "magic"], "lm-evaluation-harness has no task 'magic'"),
        (["--tasks", "absent_rows"], "absent_rows: the harness can't evaluate it ("),
        ([], "give either a file, --data FILE, or benchmarks"),
    ],
)
def test_what_can_not_be_evaluated_is_named(
    asked: list[str], message: str, finished: FinishedRun, definitions: Path
) -> None:
    code, printed = evaluate(finished, *asked, "--task-definitions", str(definitions))
    assert code == 1
    assert message in json.loads(printed)["error"]["message"]
    assert "\n" not in json.loads(printed)["error"]["message"]


def test_a_run_measures_them_itself_and_a_study_by_them(
    definitions: Path, make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "_manager", lambda _: TaskManager(include_path=str(definitions)))
    recipe = make_recipe(max_steps=2, benchmarks=["scored", "written"], benchmark_rows=ROWS, learning_rate=0.05)
    folders = OutputFolders(tmp_path / "adapter", base_scores=tmp_path / "base")
    events: list[Any] = []
    results = train(recipe, folders, Monitor(events.append))
    found = results.benchmarks
    assert set(found) == {"scored", "written"}
    assert found["scored"].base["perplexity"] != found["scored"].tuned["perplexity"]
    means = (found["scored"].tuned["perplexity"] + found["written"].tuned["exact_match"]) / 2
    assert MEASURES["benchmarks"].of(results) == pytest.approx(means)
    stages = [event.stage for event in events if isinstance(event, NoteEvent) and event.stage]
    assert {Stage.EVALUATING_BASE_TASKS, Stage.EVALUATING_TUNED_TASKS} < set(stages)
    # Another run asks the harness about its own model only.
    asked: list[Sequence[str]] = []
    measure = tasks.evaluate_model

    def measured(model: Any, tokenizer: Any, names: Sequence[str], limit: int) -> Any:
        asked.append(names)
        return measure(model, tokenizer, names, limit)

    monkeypatch.setattr(tasks, "evaluate_model", measured)
    again = train(recipe, folders)
    assert asked == [["scored"], ["written"]]
    assert again.benchmarks == found


def test_a_run_stops_within_them(
    definitions: Path, make_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "_manager", lambda _: TaskManager(include_path=str(definitions)))
    recipe = make_recipe(max_steps=2, benchmarks=["scored"], benchmark_rows=ROWS)
    stages: list[Stage] = []
    looks = 0

    def should_stop() -> bool:
        nonlocal looks
        looks += bool(stages) and stages[-1] is Stage.EVALUATING_TUNED_TASKS
        return looks > 2  # neither where the stage begins, nor before its task

    def note(event: Any) -> None:
        if isinstance(event, NoteEvent) and event.stage:
            stages.append(event.stage)

    results = train(recipe, tmp_path / "adapter", Monitor(note, should_stop))
    assert results.stopped
    assert results.adapter_hash
    assert results.benchmarks == {}


def test_an_unknown_one_is_named_before_anything_is_done(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lm-evaluation-harness has no task 'magic'"):
        train(make_recipe(benchmarks=["magic"]), tmp_path)

"""Public benchmarks by lm-evaluation-harness, here on a task over rows that ship."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hydralora.cli import app
from hydralora.data.demo import shipped_folder
from hydralora.inference.benchmarks import read_task_scores
from tests.conftest import FinishedRun

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.slow
ROWS = 6


@pytest.fixture
def definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tasks: one whose answers are scored, one whose answers are written."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(shipped_folder("sets") / "single.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{instruction}} {{input}}",
        "doc_to_target": "{{output}}",
    }
    # Of one letter: lm_eval can't print the huge perplexity of a long answer.
    scored = {"doc_to_target": "{{output[:1]}}"} | {
        "task": "scored",
        "output_type": "loglikelihood",
        "metric_list": [{"metric": "perplexity"}],
    }
    written = {
        "task": "written",
        "output_type": "generate_until",
        "generation_kwargs": {"max_gen_toks": 4, "until": ["\n"]},
        "metric_list": [{"metric": "exact_match"}],
    }
    absent = {"task": "absent_rows", "output_type": "loglikelihood", "dataset_path": "nobody/has-this"}
    for task in (scored, written, absent):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(shared | task), encoding="utf-8")
    return folder


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

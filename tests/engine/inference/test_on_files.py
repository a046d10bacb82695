"""A run's model on the rows of a file, from the terminal and from Python."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hydralora import ConfigError, HydraError, RunStore
from hydralora.cli.options import app
from hydralora.components.rows import read_split
from hydralora.data.dataset import read_dataset
from hydralora.inference.generation import Sampling, generate
from hydralora.inference.model_cache import load_run
from hydralora.inference.on_files import answer_file, evaluate_run
from tests.conftest import FinishedRun
from tests.known import known


@pytest.fixture
def heldout(finished: FinishedRun, tmp_path: Path) -> Path:
    """The run's own held-out rows, as a file."""
    rows = [
        {"instruction": row.question, "output": row.answer, "task": row.task}
        for row in read_split(finished.run.recipe()).heldout
    ]
    file = tmp_path / "heldout.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def command(finished: FinishedRun, *arguments: object) -> dict[str, Any]:
    words = [str(argument) for argument in arguments] + ["--json", "--workspace", str(finished.store.workspace)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_held_out_rows_give_the_numbers_that_the_run_measured(finished: FinishedRun, heldout: Path) -> None:
    scores = command(finished, "evaluate", finished.run.id, "--data", heldout)
    measured = known(finished.run.state().results)
    for found, scored in ((scores, known(measured.tuned)), (scores["base"], known(measured.base))):
        assert found["loss"] == pytest.approx(scored.loss, abs=1e-5)
        assert found["exact_match"] == scored.exact_match
        assert set(found["per_task"]) == {"fruit", "tool"}
        assert {group: row["rows"] for group, row in found["per_component"].items()} == {
            group: row.rows for group, row in scored.per_component.items()
        }
    assert (scores["rows"], scores["read"], scores["problems"]) == (10, 10, {})
    assert scores["components_unknown"] is None


def test_rows_are_measured_where_those_trained_on_are_gone(
    finished: FinishedRun, heldout: Path, store: RunStore, tmp_path: Path
) -> None:
    recipe = finished.run.recipe()
    recipe.data.train = str(tmp_path / "gone.jsonl")
    with store.place() as placed:
        placed.begin(recipe, state="finished")
        (placed.folder / "adapter").symlink_to(finished.run.adapter)
    scores = evaluate_run(store.get(placed.id), heldout)
    assert scores.per_component == {}
    assert "gone.jsonl" in known(scores.components_unknown)
    assert scores.per_task


def test_answers_in_batches_are_those_of_one_row_at_a_time(
    finished: FinishedRun, heldout: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    told = command(finished, "generate", finished.run.id, heldout, "--out", out, "--max-new-tokens", 5)
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    examples = list(read_dataset(heldout).examples)
    loaded = load_run(finished.run)
    for line, example in zip(lines, examples, strict=True):
        alone = generate(loaded.model, loaded.tokenizer, example.prompt, Sampling(max_new_tokens=5))
        assert line == {
            "row": example.row,
            "task": example.task,
            "prompt": example.question,
            "expected": example.answer,
            "answer": loaded.tokenizer.decode([token.id for token in alone], skip_special_tokens=True),
        }
    assert told["rows"] == len(lines) == 10
    assert told["exact_match"] == sum(line["answer"].strip() == line["expected"] for line in lines) / 10


def test_questions_alone_are_answered_from_a_named_column(finished: FinishedRun, tmp_path: Path) -> None:
    file, out = tmp_path / "questions.csv", tmp_path / "answers.jsonl"
    file.write_text("ask\nname fruit number zz\nwhich tool fixes zz engine\n", encoding="utf-8")
    told = answer_file(finished.run, file, out, column="ask", max_new_tokens=3)
    assert told.values() == {"rows": 2, "exact_match": None}
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["prompt"] for line in lines] == ["name fruit number zz", "which tool fixes zz engine"]
    assert all(line["expected"] is None for line in lines)
    with pytest.raises(HydraError, match="'ask'"):
        answer_file(finished.run, file, out, column="question")


def test_a_prompt_that_the_model_can_not_read_is_said(finished: FinishedRun, tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"instruction": "word " * 5000, "output": "x"}) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="reads at most"):
        answer_file(finished.run, file, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_runs_are_compared_by_what_differs(finished: FinishedRun, store: RunStore) -> None:
    recipe = finished.run.recipe()
    recipe.method, recipe.tuner.r = "lora", 16
    other = store.create(recipe)
    compared = command(finished, "compare", finished.run.id, other.folder)
    assert compared["differences"] == {
        "method": {finished.run.id: "hydralora", other.id: "lora"},
        "tuner.r": {finished.run.id: 4, other.id: 16},
    }
    first, second = compared["results"]
    measured = known(finished.run.state().results)
    tuned, base = known(measured.tuned), known(measured.base)
    assert (first["loss"], first["base_loss"]) == (tuned.loss, base.loss)
    assert (first["heads"], second["heads"]) == (3, None)
    assert first["per_task"] == tuned.values()["per_task"]
    assert first["base"]["per_task"] == base.values()["per_task"]
    assert second["loss"] is None
    text = CliRunner().invoke(app, ["compare", str(finished.run.folder), str(other.folder)]).stdout
    assert "tuner.r: 4, 16" in text
    assert f"{tuned.loss:.4f}" in text

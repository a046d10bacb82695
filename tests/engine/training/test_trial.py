"""A trial tells what a run will take."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hydralora import DatasetError, RunStore
from hydralora.recipe.settings import Recipe
from hydralora.runs.jobs import JobManager
from hydralora.training.trial import estimate_text, run_trial

Make = Callable[..., Recipe]


def test_a_trial_counts_steps_and_leaves_nothing(make_recipe: Make, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = run_trial(
        make_recipe(max_steps=30, gradient_accumulation=2), lambda done, total: seen.append((done, total))
    )
    assert found.steps == 30
    assert seen[0] == (0, 5)
    assert seen[-1] == (5, 5)
    assert found.seconds > 30 * found.step_seconds > 0
    assert found.memory_bytes > 100 * 2**20
    assert "for 30 steps" in estimate_text(found)


def test_epochs_are_counted_in_steps(make_recipe: Make) -> None:
    recipe = make_recipe(max_steps=None, epochs=2)
    found = run_trial(recipe)
    assert found.steps == 2 * -(-38 // 4)  # 38 of 48 rows are trained on, in batches of 4


@pytest.mark.slow
def test_the_adapter_and_its_checkpoints_take_the_disk_that_was_said(
    make_recipe: Make, store: RunStore, jobs: JobManager
) -> None:
    recipe = make_recipe(max_steps=12, save_every=3, keep_checkpoints=2)
    run = jobs.start(recipe)
    assert jobs.follow(run).state == "finished"
    weights = [path for path in run.folder.rglob("*") if path.suffix in (".safetensors", ".pt", ".bin")]
    used = sum(path.stat().st_size for path in weights)
    assert used < run_trial(recipe).disk_bytes * 1.5


def test_what_a_run_would_refuse_a_trial_refuses(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe()
    recipe.data.train = str(tmp_path / "gone.jsonl")
    with pytest.raises(DatasetError, match=r"gone.jsonl"):
        run_trial(recipe)

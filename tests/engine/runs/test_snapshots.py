"""Snapshots of a run: at even steps, from its start to its end, readable beside its adapter."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hydralora.analysis import read_weights
from hydralora.recipe.settings import Recipe
from hydralora.runs.checkpoints import saved_checkpoints
from hydralora.runs.events import Event
from hydralora.runs.scores import Scores
from hydralora.runs.snapshots import saved_snapshots, snapshot_steps
from hydralora.training.monitor import Monitor
from hydralora.training.run import OutputFolders, Resume, train

Make = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("steps", "count", "wanted"),
    [(100, 4, {0, 25, 50, 75, 100}), (3, 12, {0, 1, 2, 3}), (100, 0, set()), (7, 1, {0, 7})],
)
def test_snapshots_are_even_and_hold_start_and_end(steps: int, count: int, wanted: set[int]) -> None:
    assert snapshot_steps(steps, count) == wanted


@pytest.mark.parametrize("method", ["hydralora", "lora"])
def test_a_run_keeps_its_start_and_its_end(make_recipe: Make, tmp_path: Path, method: str) -> None:
    recipe = make_recipe(method, max_steps=6, snapshots=3, eval_every=0)
    train(recipe, OutputFolders(tmp_path / "adapter", snapshots=tmp_path / "snapshots"))
    saved = saved_snapshots(tmp_path / "snapshots")
    assert list(saved) == [0, 2, 4, 6]
    start, end = (read_weights(tmp_path / "snapshots", saved[step]) for step in (0, 6))
    final = read_weights(tmp_path / "adapter")
    assert list(start) == list(final)
    for module, layer in final.items():
        assert not start[module].heads.any()
        assert layer.heads.any()
        assert torch.allclose(end[module].heads, layer.heads, rtol=1e-3, atol=1e-6)
        assert torch.allclose(end[module].a, layer.a, rtol=1e-3, atol=1e-6)


def test_a_run_that_goes_on_keeps_the_rest(make_recipe: Make, tmp_path: Path) -> None:
    recipe = make_recipe(max_steps=6, snapshots=3, save_every=2, eval_every=0)
    events: list[Event] = []
    checkpoints, snapshots = tmp_path / "checkpoints", tmp_path / "snapshots"
    monitor = Monitor(events.append, lambda: events[-1].step >= 3)
    train(recipe, OutputFolders(tmp_path / "a", checkpoints, snapshots), monitor)
    assert 6 not in saved_snapshots(snapshots)
    step, checkpoint = list(saved_checkpoints(checkpoints).items())[-1]
    before = Scores(loss=1.0, exact_match=0.0, rows=10, per_task={}, per_component={})
    resume = Resume(step, checkpoint, before)
    train(recipe, OutputFolders(tmp_path / "b", checkpoints, snapshots), resume=resume)
    assert list(saved_snapshots(snapshots)) == [0, 2, 4, 6]


def test_none_are_kept_where_none_are_asked_for(make_recipe: Make, tmp_path: Path) -> None:
    folders = OutputFolders(tmp_path / "adapter", snapshots=tmp_path / "snapshots")
    train(make_recipe(max_steps=2, snapshots=0, eval_every=0), folders)
    assert saved_snapshots(tmp_path / "snapshots") == {}

"""Checkpoints, and runs that go on from them: the same weights and the same curve as without a break."""

import math
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hydralora import RunError, RunStore
from hydralora.recipe.settings import Recipe
from hydralora.runs.checkpoints import best_checkpoint, building_place, put_in_place, saved_checkpoints
from hydralora.runs.events import EvalEvent, Event, NoteEvent, TrainEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.scores import Scores
from hydralora.training.monitor import TRAINING_STARTS, Monitor
from hydralora.training.run import OutputFolders, Resume, train
from tests.known import known, loss_of
from tests.waiting import wait_until

Make = Callable[..., Recipe]
Damage = Callable[[Path], object]
Curve = list[tuple[Any, ...]]
STEPS = 24  # of 4 rows; an epoch has 10 steps
CURVE = {"train": ("step", "loss", "learning_rate"), "gates": ("step", "mean_gate"), "eval": ("step", "split", "loss")}
BEFORE = Scores(loss=1.0, exact_match=0.0, rows=10, per_task={}, per_component={})


@pytest.fixture(scope="module")
def recipe(make_recipe: Make) -> Recipe:
    tuner = {"lora_dropout": 0.1, "head_dropout": 0.1}
    return make_recipe(tuner=tuner, max_steps=STEPS, save_every=4, eval_every=6, learning_rate=1e-2)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Curve]:
    """The weights and the curve of a run without a break."""
    folder = tmp_path_factory.mktemp("whole")
    events: list[Event] = []
    train(recipe, OutputFolders(folder / "adapter", folder / "checkpoints"), Monitor(events.append))
    return weights(folder / "adapter"), curve(events)


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


def curve(events: list[Event]) -> Curve:
    return [tuple(event.values()[key] for key in CURVE[event.kind]) for event in events if event.kind in CURVE]


def resume(folder: Path) -> Resume:
    step, checkpoint = list(saved_checkpoints(folder).items())[-1]
    return Resume(step, checkpoint, BEFORE)


def bit_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stop", [6, 10, 16], ids=["first epoch", "between epochs", "second epoch"])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    recipe: Recipe, whole: tuple[dict[str, torch.Tensor], Curve], tmp_path: Path, stop: int
) -> None:
    checkpoints = tmp_path / "checkpoints"
    events: list[Event] = []
    monitor = Monitor(events.append, lambda: events[-1].step >= stop)
    first = train(recipe, OutputFolders(tmp_path / "a", checkpoints), monitor)
    assert first.stopped
    stopped = first.step
    assert max(saved_checkpoints(checkpoints)) == stopped
    torch.manual_seed(99)  # whatever the next process begins with
    last = train(recipe, OutputFolders(tmp_path / "b", checkpoints), Monitor(events.append), resume(checkpoints))
    assert (last.step, last.stopped, loss_of(last.base)) == (STEPS, False, 1.0)
    assert bit_equal(weights(tmp_path / "b"), whole[0])
    assert not bit_equal(weights(tmp_path / "a"), whole[0])
    assert curve(events) == whole[1]


def test_only_the_newest_checkpoints_stay(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    (folder / ".building-3").mkdir(parents=True)  # of a process that was killed
    train(recipe, OutputFolders(tmp_path / "adapter", folder))
    assert list(saved_checkpoints(folder)) == [20, 24]
    assert {path.name for path in folder.iterdir()} == {"checkpoint-20", "checkpoint-24"}
    never = recipe.model_copy(update={"training": recipe.training.model_copy(update={"save_every": 0, "max_steps": 2})})
    train(never, OutputFolders(tmp_path / "other", tmp_path / "none"))
    assert not saved_checkpoints(tmp_path / "none")


def test_a_run_that_died_after_its_last_step_only_measures(
    recipe: Recipe, whole: tuple[dict[str, torch.Tensor], Curve], tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoints"
    events: list[Event] = []
    train(recipe, OutputFolders(tmp_path / "a", folder))
    results = train(recipe, OutputFolders(tmp_path / "b", folder), Monitor(events.append), resume(folder))
    assert (results.step, results.max_steps) == (STEPS, STEPS)
    assert [event.kind for event in events if event.kind not in ("note", "progress")] == ["eval"]
    assert bit_equal(weights(tmp_path / "b"), whole[0])


@pytest.mark.slow
def test_a_killed_worker_goes_on_from_its_checkpoint(
    recipe: Recipe, whole: tuple[dict[str, torch.Tensor], Curve], jobs: JobManager
) -> None:
    run = jobs.start(recipe)
    wait_until(lambda: run.newest_checkpoint() and run.newest_checkpoint()[0] >= 8)  # type: ignore[index]
    os.kill(known(run.state().pid), signal.SIGKILL)
    wait_until(lambda: jobs.refresh(run).state == "interrupted")
    step, _ = run.newest_checkpoint() or (0, None)
    assert f"of {STEPS}; checkpoint at {step}" in run.state().message
    with pytest.raises(RunError, match="is finished, so there is nothing to resume"):
        jobs.resume(_finished_copy(run, jobs.store))
    assert jobs.resume(run) == step
    assert run.state().state == "queued"
    with pytest.raises(RunError, match=r"is queued|is preparing"):
        jobs.resume(run)
    state = jobs.follow(run)
    assert state.state == "finished", run.log.read_text(encoding="utf-8")
    assert bit_equal(weights(run.adapter), whole[0])
    assert curve(run.events()) == whole[1]
    assert TRAINING_STARTS in [event.message for event in run.events() if isinstance(event, NoteEvent)]


def test_what_came_after_the_checkpoint_is_forgotten(jobs: JobManager, recipe: Recipe) -> None:
    run = jobs.store.create(recipe)
    for step in range(1, 7):
        run.add_event(TrainEvent(step=step, time=0.0, loss=1.0))
    run.add_event(EvalEvent(step=0, time=0.0, split="before", loss=3.0, exact_match=0.5, rows=10))
    run.request_stop()
    (run.checkpoints / "checkpoint-4").mkdir(parents=True)
    (run.checkpoints / ".building-6").mkdir()
    assert run.rewind() == 4
    assert [event.step for event in run.events() if event.kind == "train"] == [1, 2, 3, 4]
    assert run.before() == Scores(loss=3.0, exact_match=0.5, rows=10, per_task={}, per_component={})
    assert not run.stop_requested


@pytest.fixture(scope="module")
def cut_short(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with two checkpoints, that was stopped."""
    run = RunStore(tmp_path_factory.mktemp("cut")).create(recipe)
    train(recipe, OutputFolders(run.adapter, run.checkpoints), Monitor(run.add_event))
    shutil.rmtree(run.adapter)
    run.update(state="interrupted")
    return run


def rewritten(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def hashes_and_state(path: Path) -> None:
    path.write_bytes(b"{")
    (path.parent / "trainer_state.json").unlink()


def hashes_and_schedule(path: Path) -> None:
    path.unlink()
    (path.parent / "scheduler.pt").write_bytes(b"PK\x03\x04 nothing")


DAMAGES: dict[str, tuple[str, Damage]] = {
    "weights cut": ("adapter_model.safetensors", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "a bit of the weights": ("adapter_model.safetensors", one_bit),
    "optimizer missing": ("optimizer.pt", Path.unlink),
    "optimizer empty": ("optimizer.pt", rewritten(b"")),
    "state no JSON": ("trainer_state.json", rewritten(b"{")),
    "a bit of the random numbers": ("rng_state.pth", one_bit),
    "hashes damaged, and the state missing": ("sha256.json", hashes_and_state),
    "hashes missing, and the schedule no zip": ("sha256.json", hashes_and_schedule),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_said_so(
    name: str, cut_short: Run, jobs: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hydralora.runs.jobs.spawn", lambda run, recipe: None)
    run = Run(jobs.store.folder / cut_short.id)
    shutil.copytree(cut_short.folder, run.folder)
    older, newest = list(saved_checkpoints(run.checkpoints))
    file, do = DAMAGES[name]
    do(run.checkpoints / f"checkpoint-{newest}" / file)
    assert jobs.resume(run) == older
    assert list(saved_checkpoints(run.checkpoints)) == [older]
    assert all(event.step <= older for event in run.events())
    (lost,) = [event.lost for event in run.events() if isinstance(event, NoteEvent) and event.lost]
    assert re.search(rf"the checkpoint at step {newest} is damaged \(.+\), so the run goes on from step {older}", lost)


def test_a_run_whose_checkpoints_are_all_damaged_begins_again(
    cut_short: Run, jobs: JobManager, whole: tuple[dict[str, torch.Tensor], Curve]
) -> None:
    run = Run(jobs.store.folder / cut_short.id)
    shutil.copytree(cut_short.folder, run.folder)
    for path in saved_checkpoints(run.checkpoints).values():
        one_bit(path / "optimizer.pt")
    assert jobs.resume(run) == 0
    assert jobs.follow(run).state == "finished"
    assert bit_equal(weights(run.adapter), whole[0])
    assert [event.lost for event in run.events() if isinstance(event, NoteEvent) and event.lost]
    assert not list(run.checkpoints.glob(".damaged-*"))


def _finished_copy(run: Run, store: RunStore) -> Run:
    """Another run of the store, which is finished."""
    copy = store.create(run.recipe())
    copy.update(state="finished", message="after 24 steps")
    return copy


def test_the_best_checkpoint_stays_beside_the_newest(tmp_path: Path) -> None:
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: None, 5: math.nan, 6: 1.5}
    for step, loss in losses.items():
        (building_place(tmp_path, step) / f"checkpoint-{step}").mkdir(parents=True)
        put_in_place(tmp_path, step, 2, loss)
    assert list(saved_checkpoints(tmp_path)) == [2, 5, 6]
    best = best_checkpoint(tmp_path)
    assert best
    assert best[0] == 2


def test_a_run_that_diverges_keeps_the_best_adapter(
    make_recipe: Make, tmp_path: Path, break_loss: Callable[[int], None]
) -> None:
    break_loss(14)
    recipe = make_recipe(max_steps=30, eval_every=4, save_every=4, log_every=2)
    with pytest.raises(RunError, match=r"no longer a number.* The adapter of step \d+, the best"):
        train(recipe, OutputFolders(tmp_path / "adapter", tmp_path / "checkpoints"))
    best = best_checkpoint(tmp_path / "checkpoints")
    assert best
    assert bit_equal(weights(tmp_path / "adapter"), weights(best[1]))
    assert all(value.isfinite().all() for value in weights(tmp_path / "adapter").values())
    assert "Trained on" in (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")


def test_a_run_that_was_stopped_has_a_checkpoint_even_where_none_are_saved(make_recipe: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    folder = tmp_path / "checkpoints"
    recipe = make_recipe(max_steps=8, save_every=0, log_every=1)
    monitor = Monitor(events.append, lambda: events[-1].step >= 3)
    results = train(recipe, OutputFolders(tmp_path / "adapter", folder), monitor)
    assert list(saved_checkpoints(folder)) == [results.step]


@pytest.mark.parametrize("what", ["data", "base model"])
def test_training_does_not_go_on_with_other_rows_or_weights(
    recipe: Recipe, whole: tuple[dict[str, torch.Tensor], Curve], tmp_path: Path, what: str
) -> None:
    events: list[Event] = []
    folder = tmp_path / "checkpoints"
    train(recipe, OutputFolders(tmp_path / "a", folder), Monitor(events.append, lambda: events[-1].step >= 6))
    prepared = next(event for event in events if isinstance(event, NoteEvent) and event.message == "prepared")
    base, data = known(prepared.base), known(prepared.data)
    if what == "data":
        data = [source.changed(sha256="0" * 64) for source in data]
    else:
        base = replace(base, hash="0" * 64)
    step, checkpoint = list(saved_checkpoints(folder).items())[-1]
    with pytest.raises(RunError, match=f"The {what} changed since step {step}"):
        train(recipe, OutputFolders(tmp_path / "b", folder), resume=Resume(step, checkpoint, None, base, data))


def test_what_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    for name in ("checkpoint-4", "checkpoint-old", "checkpoint-4 (copy)"):
        (tmp_path / name).mkdir()
    assert list(saved_checkpoints(tmp_path)) == [4]


def test_a_loss_far_above_a_guess_ends_the_run(
    make_recipe: Make, tmp_path: Path, break_loss: Callable[..., None]
) -> None:
    break_loss(6, 100.0)
    with pytest.raises(RunError, match=r"At step 6 the loss is \d+\.\d, more than twice that of a guess"):
        train(make_recipe(max_steps=8, log_every=1), tmp_path / "adapter")


def test_the_step_is_told_once_a_second(make_recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydralora.training.monitor.STEP_SECONDS", 0.0)
    events: list[Event] = []
    train(make_recipe(max_steps=5, log_every=5), tmp_path / "adapter", Monitor(events.append))
    assert [event.step for event in events if event.kind == "step"] == [1, 2, 3, 4, 5]

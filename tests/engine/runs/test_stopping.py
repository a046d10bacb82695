"""A stop is obeyed within two seconds, whatever the run is doing, and it says what is kept."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from hydralora import RunStore
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import training_losses
from hydralora.runs.jobs import JobManager
from hydralora.runs.phases import run_progress
from hydralora.runs.processes import worker_command
from hydralora.runs.run import Run
from hydralora.runs.state import RunState, Stage
from tests.known import known
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
Make = Callable[..., Recipe]
LIMIT = 2.0 + 3.0  # seconds: what is promised, and as much again for a machine with other things to do
WITHIN = 0.6  # seconds of a phase that pass before the stop
# A worker whose base model takes BLOCK seconds for each block, forward and backward, in one stage; in training from
# step 2 on. What can't be interrupted sleeps instead.
SLOW_WORKER = """
import os, sys, time
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from hydralora.training import preparation, worker
from hydralora.training.recording import Recorder

BLOCK = 0.4
wanted, at = os.environ["SLOW_STAGE"], {"stage": "", "step": 0}

def slow():
    if at["stage"] == wanted and (wanted != "training" or at["step"] >= 2):
        time.sleep(BLOCK)

record, forward = Recorder.record, LlamaDecoderLayer.forward

def noted(self, event):
    at["step"] = event.step
    at["stage"] = getattr(event, "stage", None) or at["stage"]
    record(self, event)

def slowly(self, *args, **options):
    slow()
    output = forward(self, *args, **options)
    hidden = output[0] if isinstance(output, tuple) else output
    if hidden.requires_grad:
        hidden.register_hook(lambda gradient: slow())
    return output

def endless(*args, **options):
    time.sleep(600)

Recorder.record, LlamaDecoderLayer.forward = noted, slowly
names = {"reading the data": "read_rows", "clustering": "components_of", "loading the base model": "load_base"}
if wanted in names:
    setattr(preparation, names[wanted], endless)
worker.run_as_process()
"""


@pytest.fixture(scope="module")
def many_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 rows of two skills: 80 are held out, in 5 batches."""
    rows = []
    for i in range(200):
        name = "".join(chr(ord("a") + (i // 26**place) % 26) for place in range(2))
        rows.append({"instruction": f"name fruit number {name}", "output": "plum"})
        rows.append({"instruction": f"which tool fixes {name} engine", "output": "saw"})
    path = tmp_path_factory.mktemp("many") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def recipe(make_recipe: Make, many_rows: Path) -> Recipe:
    made = make_recipe(
        tuner={"lora_dropout": 0.1}, max_steps=12, gradient_accumulation=8, eval_every=0, log_every=1, save_every=0
    )
    made.data.train = str(many_rows)
    return made


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[Run, Stage, int], subprocess.Popen[bytes]]]:
    """Starts the worker of a run that is slow in a stage, as one process or several."""
    script = tmp_path / "slow_worker.py"
    script.write_text(SLOW_WORKER, encoding="utf-8")
    begun: list[subprocess.Popen[bytes]] = []

    def start(run: Run, stage: Stage, processes: int = 1) -> subprocess.Popen[bytes]:
        *launcher, _, _, folder = worker_command(run, processes)
        environment = {**os.environ, "SLOW_STAGE": stage.value, "PYTHONPATH": str(Path.cwd())}
        with run.log.open("ab") as log:
            begun.append(subprocess.Popen([*launcher, str(script), folder], stderr=log, stdout=log, env=environment))
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        process.wait()


def stopped(
    jobs: JobManager, run: Run, process: subprocess.Popen[bytes], ready: Callable[[RunState], bool]
) -> RunState:
    """The run's state after a stop, which is asked for a moment after it is ready."""
    wait_until(lambda: ready(run.state()) or process.poll() is not None)
    time.sleep(WITHIN)
    assert process.poll() is None, run.log.read_text(encoding="utf-8")
    asked = time.monotonic()
    jobs.stop(run)
    process.wait(60)
    took = time.monotonic() - asked
    print(f"stopped after {took:.2f} s: {run.state().message}")
    assert took < LIMIT, f"{took:.1f} s; {run.state().message}"
    state = run.state()
    assert state.state == "stopped", run.log.read_text(encoding="utf-8")
    return state


BEFORE_TRAINING = (
    (Stage.READING, "reading the data"),
    (Stage.CLUSTERING, "clustering"),
    (Stage.LOADING, "loading the base model"),
    (Stage.STARTING_ROUTER, "starting the router"),
    (Stage.EVALUATING_BASE, "evaluating the base model"),
)


@pytest.mark.parametrize(("stage", "name"), BEFORE_TRAINING)
def test_before_the_first_step(
    stage: Stage, name: str, jobs: JobManager, recipe: Recipe, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    run = jobs.store.create(recipe)
    state = stopped(jobs, run, begin(run, stage), lambda state: state.stage is stage)
    place = [phase for phase, _ in BEFORE_TRAINING].index(stage) + 2
    assert state.message == f"Stopped in phase {place} of 9, {name}: nothing was learnt yet."
    assert not run.has_adapter
    assert state.stage is None
    assert known(state.spent).total_seconds > 0
    assert jobs.refresh(run).ended


def test_in_the_sample_answers(jobs: JobManager, recipe: Recipe, begin: Callable[..., subprocess.Popen[bytes]]) -> None:
    """All 80 rows are measured by then; an answer is not finished."""
    run = jobs.store.create(recipe)

    def ready(state: RunState) -> bool:
        return state.stage is Stage.EVALUATING_BASE and (state.progress or (0, 0))[0] == 80

    state = stopped(jobs, run, begin(run, Stage.EVALUATING_BASE), ready)
    assert state.message == "Stopped in phase 6 of 9, evaluating the base model: nothing was learnt yet."
    assert known(state.progress)[1] == 80 + recipe.training.sample_prompts


def test_within_a_step_which_is_abandoned(
    jobs: JobManager, recipe: Recipe, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Continuing gives what a run without a break gives, bit for bit."""
    whole = jobs.start(recipe)
    assert jobs.follow(whole).state == "finished"
    run = jobs.store.create(recipe)
    state = stopped(jobs, run, begin(run, Stage.TRAINING), lambda state: state.step == 2)
    assert state.message == "Stopped at step 2 of 12: the adapter of step 2 is kept."
    assert run.has_adapter
    assert jobs.resume(run) == 2
    assert run_progress(run.state(), recipe).count == 8  # the base model was evaluated before
    assert jobs.follow(run).state == "finished"
    assert_equal_runs(run, whole)


def assert_equal_runs(run: Run, whole: Run) -> None:
    ours, theirs = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert training_losses(run.events()) == training_losses(whole.events())


def test_in_a_measurement_during_training(
    jobs: JobManager, recipe: Recipe, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    recipe.training.eval_every, recipe.training.gradient_accumulation = 2, 1
    run = jobs.store.create(recipe)
    state = stopped(jobs, run, begin(run, Stage.TRAINING), lambda state: state.step == 2)
    assert state.message == "Stopped at step 2 of 12: the adapter of step 2 is kept."
    assert [step for step, _ in training_losses(run.events())] == [1, 2]
    assert (run.newest_checkpoint() or (0,))[0] == 2


@pytest.mark.parametrize(
    ("stage", "place"),
    [
        (Stage.EVALUATING_TUNED, "phase 8 of 9, evaluating the tuned model"),
        (Stage.MEASURING_HEADS, "phase 9 of 9, measuring the heads"),
    ],
)
def test_after_the_last_step_keeps_the_adapter(
    stage: Stage, place: str, jobs: JobManager, recipe: Recipe, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    recipe.training.max_steps = 2
    run = jobs.store.create(recipe)
    state = stopped(jobs, run, begin(run, stage), lambda state: state.stage is stage)
    assert state.message.startswith(f"Stopped in {place}: the adapter of step 2 is kept")
    assert run.has_adapter
    assert known(state.results).component_by_head is None


def test_while_its_process_still_starts(jobs: JobManager, recipe: Recipe) -> None:
    """It takes seconds to import what it needs; the next run in the queue begins at once."""
    run, following = jobs.start(recipe), jobs.start(recipe)
    process = psutil.Process(known(run.state().pid))
    jobs.stop(run)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert (run.state().state, run.state().message) == ("stopped", "Stopped before it started: nothing was learnt yet.")
    assert not jobs.is_waiting(following)
    jobs.stop(following)
    assert jobs.resume(run) == 0


def test_a_stop_asked_for_with_a_measurement_still_stops(
    jobs: JobManager, recipe: Recipe, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """A second, plain stop ends the measurement of the first one."""
    run = jobs.store.create(recipe)
    process = begin(run, Stage.EVALUATING_TUNED)
    wait_until(lambda: run.state().step >= 1)
    jobs.stop(run, measure=True)
    state = stopped(jobs, run, process, lambda state: state.stage is Stage.EVALUATING_TUNED)
    assert f"Stopped at step {state.step} of 12: the adapter of step {state.step} is kept." == state.message


@pytest.mark.parametrize("stage", [Stage.CLUSTERING, Stage.EVALUATING_BASE])
def test_several_processes_before_their_first_step(
    stage: Stage, jobs: JobManager, recipe: Recipe, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    recipe.launch.processes = 2
    run = jobs.store.create(recipe)
    process = begin(run, stage, 2)
    state = stopped(jobs, run, process, lambda state: state.stage is stage)
    assert "nothing was learnt yet" in state.message
    assert alive(run) == []


def alive(run: Run) -> list[int]:
    """Processes of the run that still exist."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(run.folder) in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_several_processes_within_a_step(
    jobs: JobManager, recipe: Recipe, begin: Callable[..., subprocess.Popen[bytes]]
) -> None:
    recipe.launch.processes, recipe.training.gradient_accumulation = 2, 4
    whole = jobs.start(recipe)
    assert jobs.follow(whole).state == "finished", whole.log.read_text(encoding="utf-8")
    run = jobs.store.create(recipe)
    state = stopped(jobs, run, begin(run, Stage.TRAINING, 2), lambda state: state.step == 2)
    assert state.message == "Stopped at step 2 of 12: the adapter of step 2 is kept."
    assert alive(run) == []
    assert {path.name for path in known(run.newest_checkpoint())[1].glob("rng*")} == {
        "rng_state_0.pth",
        "rng_state_1.pth",
    }
    assert jobs.resume(run) == 2
    assert jobs.follow(run).state == "finished", run.log.read_text(encoding="utf-8")
    assert_equal_runs(run, whole)


def test_a_store_of_runs_is_left_in_order(jobs: JobManager, store: RunStore, recipe: Recipe) -> None:
    """A stop of a run that ended meanwhile is refused in words, and the queue goes on."""
    run = jobs.start(recipe)
    jobs.stop(run)
    with pytest.raises(Exception, match="nothing to stop"):
        jobs.stop(run)
    assert store.queue().waiting == []

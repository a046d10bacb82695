"""Runs, imports and apps that are killed at any moment; two apps on one workspace; a workspace that is read-only; a
clock that is set.

HYDRALORA_KILLS and HYDRALORA_SEED set how often, and when (`make test-faults`).
"""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from hydralora import RunStore
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import NoteEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.state import ACTIVE
from hydralora.training.monitor import TRAINING_STARTS
from hydralora.transfer import export_run
from tests.conftest import FinishedRun
from tests.engine.runs.test_faults import KILLS, SEED, assert_readable, belonging, losses, serve
from tests.known import known
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

IMPORT = """
import sys
from pathlib import Path
from hydralora import RunStore
from hydralora.transfer import import_run
print("begins", flush=True)
import_run(RunStore(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3])
"""
DROPPED = (1, 2, 3)  # capabilities by which root writes what it may not: DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "workspace"
    for process in belonging(tmp_path):
        process.kill()


def end(run: Run) -> None:
    """Kill whatever works on a run, also a process that has not begun."""
    for process in belonging(run.folder):
        process.kill()
        psutil.wait_procs([process], timeout=20)


def test_killed_at_any_moment_a_run_ends_as_if_it_had_not_been(
    workspace: Path, make_recipe: Callable[..., Recipe]
) -> None:
    """Before its first step, while it evaluates, while it saves."""
    recipe = make_recipe(max_steps=30, save_every=3, eval_every=3, log_every=2)
    jobs = JobManager(RunStore(workspace))
    begun = time.monotonic()
    whole = jobs.start(recipe)
    assert jobs.follow(whole).state == "finished"
    lasts = time.monotonic() - begun
    chance = random.Random(SEED)
    run = jobs.start(recipe)
    for _ in range(KILLS):
        time.sleep(chance.random() * lasts)
        end(run)
        wait_until(partial(_has_ended, jobs.store, run))
        assert_readable(run.folder)
        if run.state().state == "finished":
            run = jobs.start(recipe)
        else:
            jobs.resume(run)
    assert jobs.follow(run).state == "finished", run.log.read_text(encoding="utf-8")
    ours, theirs = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert losses(run) == losses(whole)


def test_a_killed_import_leaves_nothing(finished: FinishedRun, workspace: Path, model_folder: Path) -> None:
    archive = workspace.parent / "run.zip"
    export_run(finished.run, "adapter", archive)
    store, chance = RunStore(workspace), random.Random(SEED)
    command = [sys.executable, "-c", IMPORT, str(workspace), str(archive), str(model_folder)]
    for _ in range(KILLS):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert known(process.stdout).readline()
            time.sleep(chance.random() * 0.5)
            process.kill()
        assert store.damaged() == {}
        for run in store.all():
            assert run.state().state == "finished"
            assert_readable(run.folder)
            assert run.events()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert list((store.folder / ".building").iterdir()) == []


def test_two_apps_on_one_workspace_do_each_run_once(workspace: Path, make_recipe: Callable[..., Recipe]) -> None:
    jobs = JobManager(RunStore(workspace))
    jobs.set_slots(2)
    runs = [jobs.start(make_recipe(max_steps=4, eval_every=0)) for _ in range(4)]
    apps = [serve(workspace), serve(workspace)]
    try:
        wait_until(lambda: all(run.state().state not in ACTIVE for run in runs), 180)
        for run in runs:
            assert run.state().state == "finished", run.log.read_text(encoding="utf-8")
            notes = [event.message for event in run.events() if isinstance(event, NoteEvent)]
            assert notes.count(TRAINING_STARTS) == 1
    finally:
        for app in apps:
            app.kill()
            app.wait()


def _has_ended(store: RunStore, run: Run) -> bool:
    return JobManager(store).refresh(run).state not in ACTIVE


def _without_roots_rights() -> None:
    libc = ctypes.CDLL(None)
    for capability in DROPPED:
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.skipif(sys.platform != "linux", reason="root's rights are dropped as Linux does it")
def test_a_workspace_that_is_read_only_can_be_read(
    finished: FinishedRun, workspace: Path, user_environment: dict[str, str]
) -> None:
    runs = workspace / "runs"
    runs.mkdir(parents=True)
    subprocess.run(["cp", "-r", str(finished.run.folder), str(runs)], check=True)
    for folder, _, _ in os.walk(workspace):
        os.chmod(folder, 0o555)
    environment = user_environment | {"HYDRALORA_HOME": str(workspace), "HYDRALORA_CACHE": str(workspace.parent / "c")}

    def asked(*words: str, module: str = "hydralora.cli") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *words]
        return subprocess.run(
            command, env=environment, preexec_fn=_without_roots_rights, capture_output=True, text=True, check=False
        )

    try:
        listed = asked("runs")
        assert (listed.returncode, finished.run.id in listed.stdout) == (0, True), listed.stderr
        shown = asked("inspect", finished.run.id)
        assert "Traceback" not in shown.stderr
        refused = asked("train", str(finished.run.folder / "recipe.yaml"))
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr, refused.stderr
        assert "Permission denied. Check its rights" in refused.stderr
        assert len(refused.stderr.splitlines()) < 4, refused.stderr
        app = asked("--port", "0", module="app")
        assert (app.returncode, "Traceback" in app.stderr) == (1, False), app.stderr
        assert "choose another folder with --workspace" in app.stderr
    finally:
        for folder, _, _ in os.walk(workspace):
            os.chmod(folder, 0o755)


def test_a_clock_that_is_set_back_ends_no_run(
    workspace: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobManager(RunStore(workspace))
    run = jobs.start(make_recipe(max_steps=2000, eval_every=0))
    wait_until(lambda: run.state().step > 3)
    created = psutil.Process.create_time
    for hours in (-48, 48):
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + hours * 3600)  # noqa: B023
        assert jobs.refresh(run).state == "training"
    os.kill(known(run.state().pid), signal.SIGKILL)
    wait_until(lambda: jobs.refresh(run).state == "interrupted")

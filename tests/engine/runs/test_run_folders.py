"""Run folders and the processes behind them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf, nan
from pathlib import Path
from typing import Any

import psutil
import pytest

from hydralora import ConfigError, RunError, RunStore
from hydralora.files import write_json
from hydralora.models.adapters import load_adapted
from hydralora.models.catalogue import find_model
from hydralora.recipe.settings import Recipe
from hydralora.runs import processes
from hydralora.runs.events import EvalEvent, Event, StepEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.results import RunResults
from hydralora.runs.run import Run
from hydralora.runs.scores import Score
from hydralora.runs.state import RunState
from hydralora.runs.store import default_workspace
from hydralora.training import recording, worker
from tests.conftest import FinishedRun
from tests.known import known
from tests.waiting import wait_until

Make = Callable[..., Recipe]


def test_a_finished_run_leaves_what_the_contract_says(finished: FinishedRun) -> None:
    run, printed = finished.run, finished.printed
    assert printed == {"version": 1, "run": run.id, "folder": str(run.folder), "state": "finished"}
    names = {"recipe.yaml", "state.json", "events.jsonl", "train.log", "adapter"}
    assert names <= {path.name for path in run.folder.iterdir()}
    assert {path.name for path in run.adapter.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    state = json.loads((run.folder / "state.json").read_text(encoding="utf-8"))
    assert {key: state[key] for key in ("version", "id", "state", "step", "max_steps")} == {
        "version": 1,
        "id": run.id,
        "state": "finished",
        "step": 10,
        "max_steps": 10,
    }
    assert state["started"] <= state["heartbeat"] <= time.time()
    assert set(state["base"]) == {"id", "source", "hash"}
    assert state["adapter_hash"] == state["results"]["adapter_hash"]
    assert state["pid"] != os.getpid()
    assert state["results"]["tuned"]["loss"] < state["results"]["base"]["loss"]


def test_events_are_json_lines_of_known_kinds(finished: FinishedRun) -> None:
    lines = (finished.run.folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    assert events == [event.values() for event in finished.run.events()]
    assert {event["kind"] for event in events} == {"note", "train", "gates", "eval"}
    assert all({"step", "time", "kind"} <= set(event) for event in events)


def test_progress_was_shown_while_following(finished: FinishedRun) -> None:
    assert "loss" in finished.stderr
    assert finished.run.id in finished.stderr


def test_a_line_that_is_still_being_written_is_left_out(store: RunStore, make_recipe: Make) -> None:
    run = store.create(make_recipe())
    event = StepEvent(step=1, time=0.0)
    run.add_event(event)
    with (run.folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2')
    assert run.events() == [event]


def test_a_run_is_found_by_id_and_by_folder(store: RunStore, make_recipe: Make) -> None:
    recipe = make_recipe()
    run = store.create(recipe)
    assert store.get(run.id) == store.get(str(run.folder)) == run
    assert run.recipe() == recipe
    assert run.state().state == "queued"


@pytest.mark.parametrize(
    "name",
    ["", "20250101-000000-abcd", "../..", "/", "x\0y", "~nobody-here/run", "20250101-000000-abcd/../..", "a" * 300],
)
def test_what_is_no_run_is_refused(name: str, store: RunStore, make_recipe: Make) -> None:
    store.create(make_recipe())
    with pytest.raises(RunError, match="There is no run"):
        store.get(name)


def test_runs_come_newest_first(store: RunStore, make_recipe: Make) -> None:
    assert store.all() == []
    made = {store.create(make_recipe()).id for _ in range(3)}
    (store.folder / "not-a-run").mkdir()
    assert [run.id for run in store.all()] == sorted(made, reverse=True)


def test_a_deleted_run_is_gone(store: RunStore, make_recipe: Make) -> None:
    kept, gone = store.create(make_recipe()), store.create(make_recipe())
    store.delete(gone)
    assert store.all() == [kept]
    assert not gone.folder.exists()
    with pytest.raises(RunError):
        store.get(gone.id)


def test_a_folder_that_is_no_whole_run_is_not_listed(store: RunStore, make_recipe: Make) -> None:
    kept, broken = store.create(make_recipe()), store.create(make_recipe())
    (broken.folder / "state.json").unlink()  # as a deletion that was cut off leaves it
    assert store.all() == [kept]


def test_a_reader_never_sees_half_a_state(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_json(path, {"text": ""})
    done = threading.Event()

    def write() -> None:
        for i in range(200):
            write_json(path, {"text": "x" * (i * 97 % 5000)})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert set(json.loads(path.read_text(encoding="utf-8"))) == {"text"}
    writer.join()
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


def test_the_workspace_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRALORA_HOME", str(tmp_path / "here"))
    assert default_workspace() == tmp_path / "here"
    assert RunStore().workspace == tmp_path / "here"


def test_a_killed_worker_reads_interrupted(jobs: JobManager, make_recipe: Make) -> None:
    run = jobs.start(make_recipe(max_steps=1_000_000, eval_every=0))
    wait_until(lambda: run.state().step > 2)
    assert jobs.active() == [run]
    os.kill(known(run.state().pid), signal.SIGKILL)
    wait_until(lambda: jobs.refresh(run).state == "interrupted", 10)
    assert "step" in run.state().message
    assert jobs.active() == []
    with pytest.raises(RunError, match="nothing to stop"):
        jobs.stop(run)


def test_a_stopped_run_keeps_its_adapter(jobs: JobManager, make_recipe: Make, model_folder: Path) -> None:
    run = jobs.start(make_recipe(max_steps=1_000_000, eval_every=0))
    wait_until(lambda: run.state().step > 2)
    jobs.stop(run)
    told: list[Event] = []
    state = jobs.follow(run, told.append, poll=0.05)
    assert state.state == "stopped"
    assert known(state.results).tuned is None
    assert told == run.events()
    assert 2 < state.step < 1_000_000
    assert state.adapter_hash
    load_adapted(find_model(str(model_folder)), run.adapter)


def test_events_that_were_passed_on_are_not_passed_on_again(store: RunStore, make_recipe: Make) -> None:
    run = store.create(make_recipe())
    events = [StepEvent(step=step, time=0.0) for step in range(6)]
    run.write_events(events[:3])
    following = run.follow_events(passed=2)
    assert list(following.look()) == events[2:3]
    run.add_event(events[3])
    assert list(following.look()) == events[3:4]
    run.write_events(events)  # the same ones, in another file, and two that are new
    assert list(following.look()) == events[4:]
    assert list(following.look()) == []


def work(run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[int, RunState]:
    """What a worker does with a run, in this process."""
    monkeypatch.setattr(sys, "argv", ["worker", str(run.folder)])
    monkeypatch.setattr(os, "nice", lambda increment: 0)
    monkeypatch.setattr(recording, "PATIENCE", 60.0)  # the worker must not end this process
    return worker.main(), run.state()


def test_a_run_whose_data_is_gone_says_so(store: RunStore, make_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe()
    recipe.data.train = "/nowhere/rows.jsonl"
    code, state = work(store.create(recipe), monkeypatch)
    assert code == 1
    assert state.state == "failed"
    assert "/nowhere/rows.jsonl" in state.message
    assert JobManager(store).active() == []


def test_any_other_failure_says_so_too(
    store: RunStore, make_recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(*args: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(worker, "train", breaks)
    code, state = work(store.create(make_recipe()), monkeypatch)
    assert (code, state.state) == (1, "failed")
    assert state.message.startswith("ZeroDivisionError: by zero. The log has the details")
    assert "Traceback" in capsys.readouterr().err  # the log


def test_a_damaged_recipe_says_so(store: RunStore, make_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.create(make_recipe())
    (run.folder / "recipe.yaml").write_text("modle: x", encoding="utf-8")
    code, state = work(run, monkeypatch)
    assert (code, state.state) == (1, "failed")
    assert "modle is not a setting" in state.message
    with pytest.raises(ConfigError):
        run.recipe()


def test_a_queued_run_whose_worker_never_came_reads_interrupted(
    store: RunStore, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.create(make_recipe())
    jobs = JobManager(store)
    assert jobs.refresh(run).state == "queued"
    monkeypatch.setattr(processes, "START_GRACE", -1.0)
    assert jobs.refresh(run).state == "interrupted"


def test_another_process_with_the_workers_id_is_not_the_worker(store: RunStore, make_recipe: Make) -> None:
    run = store.create(make_recipe())
    run.update(state="training", pid=os.getpid())
    state = run.state().values() | {"heartbeat": psutil.Process().create_time() - 100}
    write_json(run.folder / "state.json", state)  # its last sign of life is older than this process
    assert JobManager(store).refresh(run).state == "interrupted"


@pytest.mark.parametrize("text", ["", '{"version": 1, "state": "train', "null", "{}", "[1]", "\x00\x00"])
def test_a_damaged_run_blocks_nothing(text: str, store: RunStore, make_recipe: Make) -> None:
    damaged, good = store.create(make_recipe()), store.create(make_recipe())
    (damaged.folder / "state.json").write_text(text, encoding="utf-8")
    assert store.all() == [good]
    assert list(store.damaged()) == [damaged]
    assert str(damaged.folder) in store.damaged()[damaged]
    assert JobManager(store).active() == [good]
    with pytest.raises(RunError, match=damaged.id):
        JobManager(store).refresh(damaged)


def test_many_may_notice_a_death_at_once(store: RunStore, make_recipe: Make) -> None:
    run = store.create(make_recipe())
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    run.update(state="training", pid=ended.pid)
    state, sessions = run.state().values(), 8
    together = threading.Barrier(sessions)

    def look(_: int) -> str:
        together.wait()
        return JobManager(store).refresh(run).state

    with ThreadPoolExecutor(sessions) as pool:
        for _ in range(20):
            write_json(run.folder / "state.json", state)
            assert set(pool.map(look, range(sessions))) == {"interrupted"}


def test_changes_made_at_once_are_all_kept(store: RunStore, make_recipe: Make) -> None:
    run = store.create(make_recipe())
    counted = ("step", "max_steps", "k")

    def change(name: str) -> None:
        for i in range(30):
            run.update(**{name: i})

    threads = [threading.Thread(target=change, args=(name,)) for name in counted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.state().values()[name] for name in counted] == [29, 29, 29]
    assert not [file for file in run.folder.iterdir() if file.name.startswith(".state.json")]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "state.json", {"whole": True})
    with pytest.raises(TypeError):
        write_json(tmp_path / "state.json", {"whole": object()})
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]
    assert json.loads((tmp_path / "state.json").read_text(encoding="utf-8")) == {"whole": True}


def test_windows_is_asked_again_while_another_process_has_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = os.replace, [PermissionError(13, "in use")] * 3

    def replace(source: Path, target: Path) -> None:
        if refusals:
            raise refusals.pop()
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError):
        write_json(tmp_path / "state.json", 1)
    monkeypatch.setattr(sys, "platform", "win32")
    write_json(tmp_path / "state.json", 2)
    assert (tmp_path / "state.json").read_text(encoding="utf-8") == "2"


def test_what_is_no_number_is_written_as_null(store: RunStore, make_recipe: Make) -> None:
    run = store.create(make_recipe())
    scores = {"a": Score(loss=inf, exact_match=0.5, rows=1), "b": Score(loss=-inf, exact_match=0.5, rows=1)}
    event = EvalEvent(step=1, time=0.0, split="live", loss=nan, exact_match=0.5, rows=2, per_task=scores)
    run.add_event(event)
    run.update(results=RunResults(ari=nan))
    write_json(run.folder / "other.json", {"loss": nan, "per_task": {"a": [inf, 1.5, (-inf,)]}})
    for name in ("events.jsonl", "state.json", "other.json"):
        json.loads((run.folder / name).read_text(encoding="utf-8"), parse_constant=pytest.fail)
    unknown = {group: score.changed(loss=None) for group, score in scores.items()}
    assert run.events() == [event.changed(loss=None, per_task=unknown)]
    assert known(run.state().results) == RunResults(ari=None)
    written = json.loads((run.folder / "other.json").read_text(encoding="utf-8"))
    assert written == {"loss": None, "per_task": {"a": [None, 1.5, [None]]}}


def test_a_worker_that_starts_slowly_is_waited_for(
    jobs: JobManager, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = subprocess.Popen

    def slow(command: list[str], **options: Any) -> Any:
        return real([sys.executable, "-c", "import time; time.sleep(300)"], **options)

    monkeypatch.setattr(processes.subprocess, "Popen", slow)
    run = jobs.start(make_recipe())
    assert psutil.pid_exists(known(run.state().pid))
    monkeypatch.setattr(processes, "START_GRACE", -1.0)
    assert jobs.refresh(run).state == "queued"
    os.kill(known(run.state().pid), signal.SIGKILL)
    wait_until(lambda: jobs.refresh(run).state == "interrupted", 10)


@pytest.mark.parametrize("state", ["interrupted", "finished", "training"])
def test_a_worker_starts_only_a_queued_run(
    state: str, store: RunStore, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.create(make_recipe())
    before = run.update(state=state)
    monkeypatch.setattr(worker, "train", lambda *args: pytest.fail("it has started"))
    assert work(run, monkeypatch) == (1, before)


def test_a_run_stopped_before_its_first_step_ends_at_once(
    store: RunStore, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.create(make_recipe())
    run.request_stop()
    code, state = work(run, monkeypatch)
    assert (code, state.state, state.step, state.adapter_hash) == (0, "stopped", 0, None)
    assert "nothing was learnt" in state.message
    assert not run.has_adapter


def test_a_worker_on_windows_needs_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes._detached() == {"start_new_session": True}
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200, raising=False)
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0x8000000, raising=False)
    assert processes._detached() == {"creationflags": 0x8000200}


def test_a_process_that_may_not_be_looked_at_is_alive(
    store: RunStore, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: psutil.Process) -> str:
        raise psutil.AccessDenied(self.pid)

    run = store.create(make_recipe())
    run.update(state="training", pid=os.getpid())
    monkeypatch.setattr(psutil.Process, "status", refuses)
    assert JobManager(store).refresh(run).state == "training"


def test_a_state_of_another_version_is_upgraded_or_named(
    store: RunStore, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.create(make_recipe())
    monkeypatch.setattr("hydralora.runs.state.VERSION", 3)
    first = lambda state: state | {"message": state["message"] + " one"}  # noqa: E731
    second = lambda state: state | {"message": state["message"] + " two"}  # noqa: E731
    monkeypatch.setattr("hydralora.runs.state.UPGRADES", (first, second))
    assert run.state().message == " one two"
    assert run.update(step=1).version == 3
    assert run.state().message == " one two"  # written as it is now, so not upgraded again
    monkeypatch.setattr("hydralora.runs.state.VERSION", 2)
    with pytest.raises(RunError, match="newer hydralora"):
        run.state()

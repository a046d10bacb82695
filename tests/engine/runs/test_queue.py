"""Runs that wait for their turn: one at work at a time, whatever happens to it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise

import psutil
import pytest

from hydralora import RunError, RunStore
from hydralora.cli.runs import followed
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import TrainEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.store import Queue
from hydralora.training.monitor import TRAINING_STARTS
from tests.known import known
from tests.waiting import wait_until

pytestmark = pytest.mark.slow  # each run's process takes seconds to import what it needs
Make = Callable[..., Recipe]
WORKING = ("training", "evaluating", "stopping")
LONG = {"max_steps": 1_000_000, "eval_every": 0, "save_every": 0}


def test_a_run_waits_until_the_one_at_work_ends(jobs: JobManager, make_recipe: Make) -> None:
    first, second, third = jobs.start(make_recipe(**LONG)), jobs.start(make_recipe()), jobs.start(make_recipe(**LONG))
    assert [jobs.ahead(run) for run in (first, second, third)] == [0, 1, 2]
    assert [jobs.is_waiting(run) for run in (first, second, third)] == [False, True, True]
    assert (jobs.active(), jobs.waiting()) == ([first], [second, third])
    assert jobs.refresh(second).state == "queued"
    assert second.state().pid is None
    wait_until(lambda: first.state().step > 1)
    jobs.stop(first)
    # Its worker starts the next one: nobody looks here but at the files.
    wait_until(lambda: second.state().state == "finished")
    assert first.state().state == "stopped"
    wait_until(lambda: third.state().state == "training")
    assert (jobs.active(), jobs.waiting()) == ([third], [])


def test_the_next_run_starts_after_a_failure_and_after_a_kill(jobs: JobManager, make_recipe: Make) -> None:
    failing = make_recipe()
    failing.data.train = "/nowhere/rows.jsonl"
    failed, killed, last = jobs.start(failing), jobs.start(make_recipe(**LONG)), jobs.start(make_recipe())
    wait_until(lambda: killed.state().state == "training")
    assert failed.state().state == "failed"
    os.kill(known(killed.state().pid), signal.SIGKILL)
    wait_until(lambda: (jobs.advance(), last.state().state == "finished")[1])
    assert killed.state().state == "interrupted"


def test_a_waiting_run_can_be_moved_and_cancelled(jobs: JobManager, make_recipe: Make) -> None:
    first, second, third, fourth = (jobs.start(make_recipe(**LONG)) for _ in range(4))
    jobs.move(fourth, 0)
    assert jobs.waiting() == [fourth, second, third]
    jobs.move(fourth, 99)
    assert jobs.waiting() == [second, third, fourth]
    jobs.stop(third)
    assert jobs.waiting() == [second, fourth]
    assert third.state().state == "stopped"
    assert "before it started" in third.state().message
    for run in (first, third):
        with pytest.raises(RunError, match="has no place in the queue"):
            jobs.move(run, 0)
    with pytest.raises(RunError, match="nothing to stop"):
        jobs.stop(third)
    assert jobs.resume(third) == 0  # it waits again, as the last
    assert jobs.waiting() == [second, fourth, third]


def test_more_slots_let_more_runs_work_at_once(jobs: JobManager, make_recipe: Make) -> None:
    runs = [jobs.start(make_recipe(**LONG)) for _ in range(3)]
    jobs.set_slots(2)
    assert {run.id for run in jobs.active()} == {run.id for run in runs[:2]}
    assert jobs.waiting() == [runs[2]]
    jobs.set_slots(1)
    assert len(jobs.active()) == 2  # none is taken off its work


def test_a_waiting_run_that_is_gone_or_damaged_holds_up_nobody(store: RunStore, make_recipe: Make) -> None:
    jobs = JobManager(store)
    damaged, gone = store.create(make_recipe()), store.create(make_recipe())
    (damaged.folder / "recipe.yaml").write_text("modle: x", encoding="utf-8")
    store.write_queue(Queue([damaged.id, gone.id]))
    store.delete(gone)
    jobs.advance()
    assert store.queue().waiting == []
    assert damaged.state().state == "failed"
    assert "modle is not a setting" in damaged.state().message


@pytest.mark.parametrize("text", ["", "[]", "{", '{"places": 3}'])
def test_a_damaged_queue_is_an_empty_one(text: str, store: RunStore, make_recipe: Make) -> None:
    run = store.create(make_recipe())
    (store.folder / "queue.json").write_text(text, encoding="utf-8")
    assert store.queue() == Queue()
    assert store.all() == [run]


def test_five_runs_of_which_one_fails_one_is_cancelled_and_one_is_cloned(jobs: JobManager, make_recipe: Make) -> None:
    first, failing, third, cancelled = (make_recipe(max_steps=4) for _ in range(4))
    failing.data.train = "/nowhere/rows.jsonl"
    runs = [jobs.start(recipe) for recipe in (first, failing, third, cancelled)]
    jobs.stop(runs[3])
    clone = runs[2].recipe()
    clone.tuner.r = 2
    runs.append(jobs.start(clone))
    wait_until(lambda: all(run.state().state not in ("queued", "preparing", *WORKING) for run in runs))
    assert [run.state().state for run in runs] == ["finished", "failed", "finished", "stopped", "finished"]
    assert not runs[3].events()
    assert runs[4].recipe() == clone
    worked = [run for run in runs if run.events()]
    spans = sorted((run.events()[0].time, run.events()[-1].time) for run in worked)
    assert all(begin >= end for (_, end), (begin, _) in pairwise(spans))  # never two at once
    assert jobs.waiting() == []


def test_waiting_runs_change_places(jobs: JobManager, make_recipe: Make) -> None:
    at_work, *waiting = (jobs.start(make_recipe(**LONG)) for _ in range(4))
    jobs.swap(waiting[2], -1)
    assert jobs.waiting() == [waiting[0], waiting[2], waiting[1]]
    jobs.swap(waiting[0], -1)  # the next one already
    assert jobs.waiting()[0] == waiting[0]
    jobs.swap(waiting[0], 1)
    assert jobs.waiting() == [waiting[2], waiting[0], waiting[1]]
    with pytest.raises(RunError, match="no place in the queue"):
        jobs.swap(at_work, 1)


def test_two_apps_start_a_run_once(jobs: JobManager, make_recipe: Make) -> None:
    runs = [jobs.store.create(make_recipe(max_steps=2)) for _ in range(3)]
    jobs.store.write_queue(Queue([run.id for run in runs]))
    code = "import sys, time; from hydralora import RunStore; from hydralora.runs.jobs import JobManager\n"
    code += "jobs = JobManager(RunStore(sys.argv[1]))\nwhile True: jobs.advance(); time.sleep(.01)"
    apps = [subprocess.Popen([sys.executable, "-c", code, str(jobs.store.workspace)]) for _ in range(2)]
    try:
        wait_until(lambda: all(jobs.refresh(run).state == "finished" for run in runs))
    finally:
        for app in apps:
            app.kill()
            app.wait()
    for run in runs:
        assert [event.values().get("message") for event in run.events()].count(TRAINING_STARTS) == 1


def test_two_workers_dont_work_on_one_run(store: RunStore, make_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.create(make_recipe(max_steps=2))
    with run.worker_lock():
        second = subprocess.run(
            [sys.executable, "-m", "hydralora.training.worker", str(run.folder)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (second.returncode, run.state().state, run.events()) == (1, "queued", [])
    assert "Another process works on run" in second.stderr


def test_a_run_is_ended_at_once(jobs: JobManager, make_recipe: Make) -> None:
    run = jobs.start(make_recipe(**(LONG | {"save_every": 2})))
    wait_until(lambda: run.newest_checkpoint() is not None)
    pid = known(run.state().pid)
    jobs.kill(run)
    assert run.state().state == "interrupted"
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    jobs.kill(run)  # nothing is left to end


def test_a_second_interruption_ends_a_followed_run(
    jobs: JobManager, make_recipe: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = jobs.start(make_recipe(**LONG))
    wait_until(lambda: run.state().step > 1)

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "follow", interrupted)
    with pytest.raises(KeyboardInterrupt):
        followed(jobs, run)
    told = capsys.readouterr().err
    assert "Ctrl-C again" in told
    assert f"hydralora resume {run.id}" in told
    assert run.state().state in ("interrupted", "stopped")


def test_a_stopped_run_is_measured_where_that_is_asked_for(jobs: JobManager, make_recipe: Make) -> None:
    run = jobs.start(make_recipe(**LONG))
    wait_until(lambda: run.state().step > 1)
    jobs.stop(run, measure=True)
    assert jobs.follow(run).state == "stopped"
    results = known(run.state().results)
    assert results.stopped
    assert known(results.tuned).rows == known(results.base).rows


def test_what_a_run_takes_is_added_up(jobs: JobManager, make_recipe: Make) -> None:
    run = jobs.start(make_recipe(max_steps=2000, eval_every=0, save_every=5))
    wait_until(lambda: run.state().step > 5)
    jobs.stop(run)
    assert jobs.follow(run).state == "stopped"
    first = known(run.state().results)
    assert known(first.energy_kwh)["total"] > 0
    jobs.resume(run)
    wait_until(lambda: run.state().step > first.step + 5)
    jobs.stop(run)
    assert jobs.follow(run).state == "stopped"
    second = known(run.state().results)
    assert known(second.total_seconds) > known(first.total_seconds) + 1
    assert second.seconds["training"] > first.seconds["training"]
    assert known(second.energy_kwh)["total"] > known(first.energy_kwh)["total"]


def test_a_run_of_another_machine_is_told_by_its_signs_of_life(jobs: JobManager, make_recipe: Make) -> None:
    run = jobs.store.create(make_recipe())
    run.update(state="training", pid=2**22 + 1, host="another machine")
    assert jobs.refresh(run).state == "training"
    assert run.state().state == "training"
    assert jobs.active() == []  # it takes none of the slots here
    with pytest.raises(RunError, match="running on another machine, so it can't be killed from here"):
        jobs.kill(run)
    silent = run.state().values() | {"heartbeat": 0.0}
    (run.folder / "state.json").write_text(json.dumps(silent), encoding="utf-8")
    assert jobs.refresh(run).state == "interrupted"


def test_a_worker_that_was_taken_for_dead_keeps_its_events(
    jobs: JobManager, make_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hydralora.runs.run.LEAVING", 0.1)
    run = jobs.store.create(make_recipe())
    run.add_event(TrainEvent(step=3, time=0.0, loss=1.0))
    run.update(state="interrupted")
    with run.worker_lock(), pytest.raises(RunError, match="still running in another process"):
        jobs.resume(run)
    assert len(run.events()) == 1


def test_the_log_tells_what_the_run_did(jobs: JobManager, make_recipe: Make) -> None:
    run = jobs.start(make_recipe(max_steps=3, log_every=1))
    assert jobs.follow(run).state == "finished"
    lines = run.log_lines(10_000)
    assert sum(line.startswith("step ") for line in lines) == 3
    assert "clustering ..." in lines

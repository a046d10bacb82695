"""Runs that wait for their turn: one at work at a time, whatever happens to it."""

import os
import signal
from collections.abc import Callable

import pytest

from hydralora import RunError, RunStore
from hydralora.jobs import JobManager
from hydralora.recipe import Recipe
from hydralora.runs import Queue
from tests.waiting import wait_until

Make = Callable[..., Recipe]
LONG = {"max_steps": 1_000_000, "eval_every": 0, "save_every": 0}


def test_a_run_waits_until_the_one_at_work_ends(jobs: JobManager, make_recipe: Make) -> None:
    first, second, third = jobs.start(make_recipe(**LONG)), jobs.start(make_recipe()), jobs.start(make_recipe(**LONG))
    assert [jobs.ahead(run) for run in (first, second, third)] == [0, 1, 2]
    assert [jobs.is_waiting(run) for run in (first, second, third)] == [False, True, True]
    assert (jobs.active(), jobs.waiting()) == ([first], [second, third])
    assert jobs.refresh(second)["state"] == "queued"
    assert second.state()["pid"] is None
    wait_until(lambda: first.state()["step"] > 1)
    jobs.stop(first)
    # Its worker starts the next one: nobody looks here but at the files.
    wait_until(lambda: second.state()["state"] == "finished")
    assert first.state()["state"] == "stopped"
    wait_until(lambda: third.state()["state"] == "training")
    assert (jobs.active(), jobs.waiting()) == ([third], [])


def test_the_next_run_starts_after_a_failure_and_after_a_kill(jobs: JobManager, make_recipe: Make) -> None:
    failing = make_recipe()
    failing.data.train = "/nowhere/rows.jsonl"
    failed, killed, last = jobs.start(failing), jobs.start(make_recipe(**LONG)), jobs.start(make_recipe())
    wait_until(lambda: killed.state()["state"] == "training")
    assert failed.state()["state"] == "failed"
    os.kill(killed.state()["pid"], signal.SIGKILL)
    wait_until(lambda: jobs.advance() or last.state()["state"] == "finished")  # type: ignore[func-returns-value]
    assert killed.state()["state"] == "interrupted"


def test_a_waiting_run_can_be_moved_and_cancelled(jobs: JobManager, make_recipe: Make) -> None:
    first, second, third, fourth = (jobs.start(make_recipe(**LONG)) for _ in range(4))
    jobs.move(fourth, 0)
    assert jobs.waiting() == [fourth, second, third]
    jobs.move(fourth, 99)
    assert jobs.waiting() == [second, third, fourth]
    jobs.stop(third)
    assert jobs.waiting() == [second, fourth]
    assert third.state()["state"] == "stopped"
    assert "before it started" in third.state()["message"]
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
    assert damaged.state()["state"] == "failed"
    assert "modle is not a setting" in damaged.state()["message"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"places": 3}'])
def test_a_damaged_queue_is_an_empty_one(text: str, store: RunStore, make_recipe: Make) -> None:
    run = store.create(make_recipe())
    (store.folder / "queue.json").write_text(text, encoding="utf-8")
    assert store.queue() == Queue()
    assert store.all() == [run]

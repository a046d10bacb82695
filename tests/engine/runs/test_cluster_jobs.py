"""Runs as jobs of a cluster: submitit's own local one stands in for SLURM's."""

from collections.abc import Callable

import pytest

from hydralora import ConfigError
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs import cluster, processes
from hydralora.runs.jobs import JobManager
from tests.engine.runs.cluster_runs import stop_and_resume
from tests.waiting import wait_until

submitit = pytest.importorskip("submitit")
pytestmark = [  # submitit's local jobs are processes that nobody holds on to
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <function Popen:pytest.PytestUnraisableExceptionWarning"),
]
Make = Callable[..., Recipe]


@pytest.fixture
def recipe(make_recipe: Make) -> Recipe:
    values = make_recipe().model_dump()
    return parse_recipe(values | {"launch": {"executor": "slurm", "slurm": {"timeout_min": 5}}})


def test_a_job_does_not_wait_behind_the_runs_of_this_machine(
    jobs: JobManager, make_recipe: Make, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CLUSTER", "local")
    here = jobs.start(make_recipe(max_steps=1_000_000, eval_every=0, save_every=0))
    job = jobs.start(recipe)
    assert job.state().job
    assert not jobs.is_waiting(job)
    wait_until(lambda: jobs.refresh(job).state == "finished")
    assert job.has_adapter
    assert jobs.active() == [here]
    assert list((job.folder / "job").glob("*_log.out"))


def test_a_job_is_stopped_and_resumed_by_the_files_of_its_run(
    jobs: JobManager, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CLUSTER", "local")
    recipe.training.max_steps = 100_000
    recipe.training.eval_every = 0
    job = jobs.start(recipe)
    stop_and_resume(jobs, job)
    jobs.stop(job)
    wait_until(lambda: jobs.refresh(job).state == "stopped")


def test_several_runs_are_one_array(jobs: JobManager, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CLUSTER", "local")
    arrays: list[int] = []
    executor = submitit.AutoExecutor
    process = executor._internal_process_submissions

    def submit(self: object, submissions: list[object]) -> object:
        arrays.append(len(submissions))
        return process(self, submissions)

    monkeypatch.setattr(executor, "_internal_process_submissions", submit)
    other = recipe.model_copy(deep=True)
    other.training.seed = 1
    runs = jobs.start_all([(recipe, None), (other, None), (recipe, None)])
    assert arrays == [3]
    assert len({run.state().job for run in runs}) == 3
    wait_until(lambda: all(jobs.refresh(run).state == "finished" for run in runs))
    hashes = [run.state().adapter_hash for run in runs]
    assert hashes[0] == hashes[2] != hashes[1]
    assert jobs.store.all() == sorted(runs, key=lambda run: run.id, reverse=True)


def test_a_job_that_is_silent_counts_as_dead(jobs: JobManager, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    run = jobs.store.create(recipe)
    run.update(job="7", pid=1)
    monkeypatch.setattr(processes, "SILENCE", -1.0)
    assert jobs.refresh(run).state == "queued"  # for days, maybe
    run.update(state="training")
    assert jobs.refresh(run).state == "interrupted"


def test_without_a_cluster_the_run_fails_with_a_sentence(jobs: JobManager, recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="SLURM rejected the run"):
        jobs.start(recipe)
    (run,) = jobs.store.all()
    assert run.state().state == "failed"
    recipe.launch.slurm = {"nonsense": 1}
    with pytest.raises(ConfigError, match=r"launch\.slurm"):
        jobs.start(recipe)

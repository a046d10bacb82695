"""Runs on a real SLURM: followed, stopped, cancelled, their node killed, several as an array, one on two nodes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs import cluster as slurm
from hydralora.runs.events import NoteEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.training.monitor import TRAINING_STARTS
from tests.engine.runs.cluster_runs import stop_and_resume
from tests.slurm_cluster import Cluster, running_cluster, why_no_slurm
from tests.waiting import wait_until

pytest.importorskip("submitit")
pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.skipif(bool(why_no_slurm()), reason=why_no_slurm())]
Make = Callable[..., Recipe]
ENDLESS = {"max_steps": 100_000, "eval_every": 0, "save_every": 0}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def on_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    monkeypatch.setattr(slurm, "FRESH", 0.5)
    slurm._queued.cache_clear()


@pytest.fixture
def make_job(make_recipe: Make) -> Make:
    def make(nodes: int = 1, asked: dict[str, object] | None = None, **training: object) -> Recipe:
        values = make_recipe(**training).model_dump()
        launch = {"executor": "slurm", "nodes": nodes, "slurm": {"timeout_min": 10, **(asked or {})}}
        return parse_recipe(values | {"launch": launch})

    return make


def node_of(cluster: Cluster, run: Run) -> str:
    return cluster.run("squeue", "-h", "-j", str(run.state().job), "-o", "%N").strip()


def test_a_run_is_submitted_followed_and_finishes(jobs: JobManager, make_job: Make) -> None:
    run = jobs.start(make_job())
    assert jobs.refresh(run).state == "queued"
    steps: list[int] = []
    state = jobs.follow(run, on_event=lambda event: steps.append(event.step))
    assert state.state == "finished"
    assert steps[-1] == state.step == state.max_steps
    assert run.has_adapter


def test_a_run_is_stopped_and_goes_on_as_another_job(jobs: JobManager, make_job: Make) -> None:
    run = jobs.start(make_job(**ENDLESS))
    stop_and_resume(jobs, run)
    jobs.kill(run)
    wait_until(lambda: jobs.refresh(run).state == "interrupted")


@pytest.mark.parametrize("how", ["stopped by us", "cancelled on the cluster"])
def test_a_job_that_never_began_does_not_stay_queued(
    how: str, jobs: JobManager, make_job: Make, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hydralora.runs.processes.QUEUE_GRACE", 1.0)
    run = jobs.start(make_job(asked={"slurm_additional_parameters": {"begin": "now+1hour"}}))
    job = str(run.state().job)
    assert wait_until(lambda: slurm.in_queue(job))
    assert jobs.refresh(run).state == "queued"
    if how == "stopped by us":
        jobs.stop(run)
        assert run.state().state == "stopped"
    else:
        cluster.run("scancel", job)
        wait_until(lambda: jobs.refresh(run).state == "interrupted")
        assert "left SLURM's queue before it began" in run.state().message
    assert wait_until(lambda: slurm.in_queue(job) is False)
    assert jobs.resume(run) == 0
    assert jobs.refresh(run).state == "queued"
    jobs.stop(run)


def test_a_run_whose_node_dies_goes_on_from_its_checkpoint_on_another(
    jobs: JobManager, make_job: Make, make_recipe: Make, cluster: Cluster
) -> None:
    training = {"max_steps": 400, "save_every": 20, "eval_every": 0, "log_every": 20}
    whole = jobs.start(make_recipe(**training))
    run = jobs.start(make_job(**training))
    wait_until(lambda: run.newest_checkpoint())
    node = node_of(cluster, run)
    cluster.kill_node(node)
    try:
        assert jobs.follow(run).state == "finished"
    finally:
        cluster.start_node(node)
    starts = [event for event in run.events() if isinstance(event, NoteEvent) and event.message == TRAINING_STARTS]
    assert [event.step > 0 for event in starts] == [False, True]
    assert jobs.follow(whole).state == "finished"
    ours, theirs = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_several_runs_are_one_array(jobs: JobManager, make_job: Make) -> None:
    runs = jobs.start_all([(make_job(seed=seed), None) for seed in range(3)])
    ids = [str(run.state().job) for run in runs]
    assert len({job.partition("_")[0] for job in ids}) == 1
    assert [job.partition("_")[2] for job in ids] == ["0", "1", "2"]
    wait_until(lambda: all(jobs.refresh(run).state == "finished" for run in runs), 180)
    assert len({run.state().adapter_hash for run in runs}) == 3


def test_a_run_over_two_nodes_is_one_of_two_processes(
    jobs: JobManager, make_job: Make, make_recipe: Make, tmp_path: Path
) -> None:
    run = jobs.start(make_job(nodes=2, asked={"slurm_cpus_per_task": 1}))
    assert jobs.follow(run).state == "finished"
    here = parse_recipe(make_recipe().model_dump() | {"launch": {"processes": 2}})
    other = jobs.start(here)
    assert jobs.follow(other).state == "finished"
    ours, theirs = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, other))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-5, rtol=1e-4)

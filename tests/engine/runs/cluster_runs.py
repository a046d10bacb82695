"""What a run on a cluster must do, whichever cluster it is."""

from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from tests.waiting import wait_until


def stop_and_resume(jobs: JobManager, run: Run) -> None:
    """Stop a run that trains; it goes on from where it stopped, as another job."""
    wait_until(lambda: run.state().step > 1)
    jobs.stop(run)
    wait_until(lambda: jobs.refresh(run).state == "stopped")
    first = run.state().job
    assert jobs.resume(run) > 0
    wait_until(lambda: jobs.refresh(run).state == "training")
    assert run.state().job != first

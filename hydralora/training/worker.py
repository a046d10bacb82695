"""`python -m hydralora.training.worker RUN_DIR`: the process of a run."""

import atexit
import errno
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import Timeout

from hydralora.errors import HydraError, RunError
from hydralora.runs.checkpoints import remove_unfinished
from hydralora.runs.jobs import JobManager, rewind
from hydralora.runs.phases import run_progress
from hydralora.runs.processes import HOST
from hydralora.runs.results import RunResults
from hydralora.runs.run import Run
from hydralora.runs.state import ACTIVE, Spent, Stage
from hydralora.runs.store import RunStore
from hydralora.training.energy import EnergyMeter
from hydralora.training.monitor import Monitor
from hydralora.training.parallel import Processes, this_process
from hydralora.training.recording import Recorder
from hydralora.training.resources import is_out_of_memory, peak_memory
from hydralora.training.run import OutputFolders, Resume, train

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITTEN = ("No space left", "File too large", "failed writing file", "unexpected pos")  # torch's, safetensors'
NICENESS = 5  # below the app and whatever else the user does
LAUNCHER_SECONDS = 0.3  # between looks at the launcher, and at the run's state
ENDED = ("stopped", "failed")
RESTARTS = "SLURM_RESTART_COUNT"  # how often SLURM has begun a job again, such as after its node has failed
GRACE = 5.0  # seconds within which the launcher ends this process if another one of the run has died


def run_as_process() -> None:
    """`main`, and the end of the process.

    It leaves as soon as what others registered for its end is done: taking all modules down would take over a second,
    and longer where a group of processes waits for one that has left.
    """
    code = 1

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    atexit.register(leave)  # what is registered later is called before it
    code = main()


def main() -> int:
    run, processes = Run(Path(sys.argv[1])), this_process()
    pid = os.getpid()
    if processes.count > 1:
        pid = os.getppid()  # the launcher's, which lives as long as all of them
        threading.Thread(target=_end_with, args=(pid, run, processes), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(max(0, NICENESS - os.nice(0)))  # a worker started by another one has it already
    if not processes.is_first:
        return _work(run, processes, Recorder(run))
    try:
        with run.worker_lock():
            return _begin(run, processes, pid)
    except Timeout:
        print(f"Another process works on run {run.id}.", file=sys.stderr)
        return 1
    finally:  # in any case the next run can start, on the machine that has the queue
        if not _is_job(run):
            JobManager(RunStore(run.folder.parent.parent)).advance()


def _is_job(run: Run) -> bool:
    try:
        return bool(run.state().job)
    except RunError:  # damaged or removed, which must not block the others
        return False


def _begin(run: Run, processes: Processes, pid: int) -> int:
    state = run.state().state
    restarted = state in ACTIVE and os.environ.get(RESTARTS, "0") != "0"
    if restarted:
        rewind(run)
        run.update(base_measured=run.before() is not None)
    elif state != "queued":
        print(f"Run {run.id} is {state}; only a queued run is started.", file=sys.stderr)
        return 1
    run.update(state="preparing", pid=pid, host=HOST, message="starting", stage=None, progress=None, fraction=None)
    recorder = Recorder(run)
    threading.Thread(target=recorder.pulse, daemon=True).start()
    threading.Thread(target=recorder.end_unlearnt, args=(lambda: _end_unlearnt(run),), daemon=True).start()
    return _work(run, processes, recorder)


def _work(run: Run, processes: Processes, recorder: Recorder) -> int:
    meter = EnergyMeter() if processes.is_first else None
    try:
        step, checkpoint = run.newest_checkpoint() or (0, None)
        state = run.state()
        store = RunStore(run.folder.parent.parent)
        results = train(
            store.resolved(run.recipe()),
            OutputFolders(run.adapter, run.checkpoints, run.snapshots, run.row_scores, store.base_scores),
            Monitor(recorder.record, recorder.stop_requested, lambda: run.measure_requested),
            Resume(step, checkpoint, run.before(), state.base, state.data),
        )
    except Exception as error:  # any error must be reported in the run's state
        traceback.print_exc()
        with recorder.ending():
            _fail(run, error, processes)
            if meter:
                with suppress(OSError):  # the error's message matters more
                    _record_spent(run, meter, {})
        return 1
    if meter:
        with recorder.ending():
            _finish(run, results, _record_spent(run, meter, results.seconds))
    return 0


def _record_spent(run: Run, meter: EnergyMeter | None, seconds: dict[str, float]) -> Spent:
    """Record the time and energy of this and earlier processes of the run."""
    before = run.state().spent or Spent()
    energy = _sum(before.energy_kwh or {}, (meter and meter.stop()) or {}) or None
    total = round(before.total_seconds + time.time() - psutil.Process().create_time(), 2)
    spent = Spent(seconds=_sum(before.seconds, seconds), total_seconds=total, energy_kwh=energy)
    run.update(spent=spent)
    return spent


def _sum(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    return {name: first.get(name, 0.0) + second.get(name, 0.0) for name in first | second}


def _finish(run: Run, results: RunResults, spent: Spent) -> None:
    results = results.changed(**dict(spent))
    step, changes = results.step, {}
    if results.adapter_hash or not step:
        changes = {"adapter_hash": results.adapter_hash, "results": results}
    if results.stopped:
        state, message = "stopped", _stopped(run, results)
    else:
        state, message = "finished", f"after {step} steps"
    run.update(state=state, step=step, message=message, stage=None, ended=time.time(), **changes)


def _stopped(run: Run, results: RunResults | None = None) -> str:
    """Where a run stopped, and what is kept; without results it has learnt nothing since it was started."""
    state = run.state()
    step = results.step if results else state.step
    if results and results.adapter_hash:
        kept = f"the adapter of step {step} is kept{' and evaluated' if results.tuned else ''}"
    else:
        kept = f"the checkpoint of step {step} is kept" if step else "nothing was learnt yet"
    if results and results.adapter_hash and results.max_steps and step < results.max_steps:
        return f"Stopped at step {step} of {results.max_steps}: {kept}."
    return f"Stopped in {run_progress(state, run.recipe()).place}: {kept}."


def _end_unlearnt(run: Run) -> None:
    """Record the end of a run that has learnt nothing, and let the next one start."""
    run.update(state="stopped", message=_stopped(run), stage=None, ended=time.time())
    _record_spent(run, None, {})
    if not _is_job(run):
        JobManager(RunStore(run.folder.parent.parent)).advance()


def _fail(run: Run, error: Exception, processes: Processes) -> None:
    """Report an error, unless another process of the run did: then only the connection to it failed here."""
    if processes.count > 1 and not isinstance(error, HydraError):
        time.sleep(GRACE)
    if run.state().state in ACTIVE:
        remove_unfinished(run.checkpoints)  # if the disk is full, this frees space for the state
        run.update(state="failed", message=_sentence(error, run))


def _sentence(error: Exception, run: Run) -> str:
    """The error, and how to fix it."""
    description = f"{type(error).__name__}: {error}"
    if isinstance(error, HydraError):
        return str(error) or type(error).__name__
    if is_out_of_memory(error):
        return f"Not enough memory while {_doing(run)}{_memory_use()}. Try {_less_memory(run)}."
    if getattr(error, "errno", None) in NO_SPACE or any(sign in description for sign in NOT_WRITTEN):
        return (
            f"A file could not be written, probably because the disk is full "
            f"({description[:120]}). Free some space, then resume."
        )
    return f"{description}. The log has the details; resume the run once the cause is fixed."


def _doing(run: Run) -> str:
    stage, training = run.state().stage, run.recipe().training
    if stage is Stage.TRAINING:
        return f"training, in batches of {training.batch_size} rows"
    return stage.value if stage else "starting"


def _memory_use() -> str:
    """The memory that the run used, and that of its machine or GPU."""
    import torch

    on_gpu = torch.cuda.is_available()
    taken, total = peak_memory("cuda" if on_gpu else "cpu"), psutil.virtual_memory().total
    if on_gpu:
        total = torch.cuda.mem_get_info()[1]
    where = "the GPU" if on_gpu else "this machine"
    return f"; it had used {taken / 2**30:.1f} GB of the {total / 2**30:.1f} GB of {where}"


def _less_memory(run: Run) -> str:
    recipe, stage = run.recipe(), run.state().stage
    training = recipe.training
    if stage is Stage.LOADING:
        return "a smaller base model" + ("" if recipe.quantization != "none" else ", or quantization=nf4 on a GPU")
    if training.batch_size > 1 and stage is Stage.TRAINING:
        half, rows = training.batch_size // 2, training.batch_size * training.gradient_accumulation
        return (
            f"training.batch_size={half} with training.gradient_accumulation={-(-rows // half)}, "
            "for the same rows per step"
        )
    if not training.gradient_checkpointing and stage is Stage.TRAINING:
        return "training.gradient_checkpointing=true"
    return f"training.max_length={max(8, training.max_length // 2)}"


def _end_with(launcher: int, run: Run, processes: Processes) -> None:
    """End this process if its launcher dies, which then can't do it; or if the first process has recorded the end.

    The others may then be waiting for the first one in a step that was abandoned.
    """
    while os.getppid() == launcher and psutil.pid_exists(launcher):
        time.sleep(LAUNCHER_SECONDS)
        with suppress(RunError):
            if not processes.is_first and run.state().state in ENDED:
                os._exit(0)
    os._exit(1)


if __name__ == "__main__":
    run_as_process()

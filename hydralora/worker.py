"""`python -m hydralora.worker RUN_DIR`: the process that a job is."""

import errno
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
from filelock import Timeout

from hydralora.energy import EnergyMeter
from hydralora.errors import HydraError
from hydralora.jobs import JobManager
from hydralora.parallel import Processes, this_process
from hydralora.runs import ACTIVE, Run, RunStore
from hydralora.training import Resume, train

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "OutOfMemoryError")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITTEN = ("No space left", "File too large", "failed writing file", "unexpected pos")  # torch's, safetensors'
NICENESS = 5  # below the app and whatever else the user does
GRACE = 5.0  # seconds in which the launcher ends this process, where another one of the run has died
STATES = {"training": "training", "evaluating": "evaluating"}  # first word of a stage; any other is preparing


def main() -> int:
    run, processes = Run(Path(sys.argv[1])), this_process()
    pid = os.getpid()
    if processes.count > 1:
        pid = os.getppid()  # the launcher's, which lives as long as all of them
        threading.Thread(target=_end_with, args=(pid,), daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(max(0, NICENESS - os.nice(0)))  # a worker that another one started has it already
    if not processes.is_first:
        return _work(run, processes)
    try:
        with run.worker_lock():
            return _begin(run, processes, pid)
    except Timeout:
        print(f"Another process works on run {run.id}.", file=sys.stderr)
        return 1
    finally:  # whether it ended well or not, the next one's turn has come
        JobManager(RunStore(run.folder.parent.parent)).advance()


def _begin(run: Run, processes: Processes, pid: int) -> int:
    found = run.state()["state"]
    if found != "queued":
        print(f"Run {run.id} is {found}; only a queued run is started.", file=sys.stderr)
        return 1
    run.update(state="preparing", pid=pid, message="starting")
    return _work(run, processes)


def _work(run: Run, processes: Processes) -> int:
    meter = EnergyMeter() if processes.is_first else None
    try:
        step, checkpoint = run.newest_checkpoint() or (0, None)
        results = train(
            RunStore(run.folder.parent.parent).resolved(run.recipe()),
            run.adapter,
            lambda event: _record(run, event),
            lambda: run.stop_requested,
            run.checkpoints,
            Resume(step, checkpoint, run.before()),
            lambda: run.measure_requested,
            run.snapshots,
        )
    except Exception as error:  # the run's state must tell what happened, whatever it was
        traceback.print_exc()
        if meter:
            _spend(run, meter, {})
        _fail(run, error, processes)
        return 1
    if meter:
        _finish(run, results | _spend(run, meter, results["seconds"]))
    return 0


def _spend(run: Run, meter: EnergyMeter, seconds: dict[str, float]) -> dict[str, Any]:
    """What this process and those before it took: seconds by stage, total_seconds, energy_kwh by part (None: unknown).

    One that was killed is not among them.
    """
    before = run.state().get("spent") or {"seconds": {}, "total_seconds": 0.0, "energy_kwh": {}}
    spent = {
        "seconds": _sum(before["seconds"], seconds),
        "total_seconds": round(before["total_seconds"] + time.time() - psutil.Process().create_time(), 2),
        "energy_kwh": _sum(before["energy_kwh"] or {}, meter.stop() or {}) or None,
    }
    run.update(spent=spent)
    return spent


def _sum(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in one | other}


def _finish(run: Run, results: dict[str, Any]) -> None:
    step, changes = results["step"], {}
    if results["adapter_hash"]:
        message, changes = f"after {step} steps", {"adapter_hash": results["adapter_hash"], "results": results}
    elif step:
        message = f"before it went on from step {step}"
    else:
        message, changes = "before its first step, so nothing was learnt yet", {"results": results}
    state = "stopped" if results["stopped"] else "finished"
    run.update(state=state, step=step, message=message, ended=time.time(), **changes)


def _fail(run: Run, error: Exception, processes: Processes) -> None:
    """Say why, unless another process of this run has: what fails here then is the connection to it."""
    if processes.count > 1 and not isinstance(error, HydraError):
        time.sleep(GRACE)
    if run.state()["state"] in ACTIVE:
        run.update(state="failed", message=_sentence(error, run))


def _sentence(error: Exception, run: Run) -> str:
    """What went wrong and what to do next."""
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, HydraError):
        return str(error) or type(error).__name__
    if isinstance(error, MemoryError) or any(sign in told for sign in NO_MEMORY):
        return _less_memory(run)
    if getattr(error, "errno", None) in NO_SPACE or any(sign in told for sign in NOT_WRITTEN):
        return f"A file could not be written, probably for want of disk space ({told[:120]}). Free some, then resume."
    return told


def _less_memory(run: Run) -> str:
    training = run.recipe().training
    if training.batch_size > 1:
        half, rows = training.batch_size // 2, training.batch_size * training.accumulation
        change = f"training.batch_size={half} with training.accumulation={-(-rows // half)}, which learns the same"
    elif not training.gradient_checkpointing:
        change = "training.gradient_checkpointing=true"
    else:
        change = f"training.max_length={max(8, training.max_length // 2)}"
    return f"Not enough memory for batches of {training.batch_size} rows. Try {change}."


def _end_with(launcher: int) -> None:
    """End this process when its launcher has died, which then can't do it."""
    while os.getppid() == launcher and psutil.pid_exists(launcher):
        time.sleep(0.5)
    os._exit(1)


def _record(run: Run, event: dict[str, Any]) -> None:
    changes: dict[str, Any] = {"step": event["step"]}
    if "stage" in event:
        state = "stopping" if run.stop_requested else STATES.get(event["stage"].split()[0], "preparing")
        changes |= {"state": state, "message": event["stage"]}
    if "total" in event:
        changes["progress"] = [event["done"], event["total"]]
    else:
        run.add_event(event)
    for key in ("max_steps", "base", "k"):
        if key in event and event["kind"] == "note":
            changes[key] = event[key]
    run.update(**changes)


if __name__ == "__main__":
    raise SystemExit(main())

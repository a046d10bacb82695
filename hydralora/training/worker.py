"""`python -m hydralora.training.worker RUN_DIR`: the process that a job is."""

import errno
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import Timeout

from hydralora.errors import HydraError, RunError
from hydralora.runs.checkpoints import remove_unfinished
from hydralora.runs.events import event_line
from hydralora.runs.jobs import JobManager
from hydralora.runs.processes import HOST
from hydralora.runs.run import ACTIVE, Run
from hydralora.runs.store import RunStore
from hydralora.training.energy import EnergyMeter
from hydralora.training.parallel import Processes, this_process
from hydralora.training.resources import is_out_of_memory, peak_memory
from hydralora.training.run import Resume, train

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITTEN = ("No space left", "File too large", "failed writing file", "unexpected pos")  # torch's, safetensors'
NICENESS = 5  # below the app and whatever else the user does
PULSE = 30.0  # seconds between signs of life where nothing else is told
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
    finally:  # whether it ended well or not, the next one's turn has come, on the machine that keeps the queue
        if not _is_job(run):
            JobManager(RunStore(run.folder.parent.parent)).advance()


def _is_job(run: Run) -> bool:
    try:
        return bool(run.state().get("job"))
    except RunError:  # damaged, or taken away: that must not hold up the others
        return False


def _begin(run: Run, processes: Processes, pid: int) -> int:
    found = run.state()["state"]
    if found != "queued":
        print(f"Run {run.id} is {found}; only a queued run is started.", file=sys.stderr)
        return 1
    run.update(state="preparing", pid=pid, host=HOST, message="starting")
    threading.Thread(target=_live, args=(run,), daemon=True).start()
    return _work(run, processes)


def _work(run: Run, processes: Processes) -> int:
    meter = EnergyMeter() if processes.is_first else None
    try:
        step, checkpoint = run.newest_checkpoint() or (0, None)
        state = run.state()
        results = train(
            RunStore(run.folder.parent.parent).resolved(run.recipe()),
            run.adapter,
            lambda event: _record(run, event),
            lambda: run.stop_requested,
            run.checkpoints,
            Resume(step, checkpoint, run.before(), state["base"], state.get("data")),
            lambda: run.measure_requested,
            run.snapshots,
        )
    except Exception as error:  # the run's state must tell what happened, whatever it was
        traceback.print_exc()
        _fail(run, error, processes)
        if meter:
            with suppress(OSError):  # the sentence is more important
                _spend(run, meter, {})
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
        remove_unfinished(run.checkpoints)  # where the disk is full, that makes room to say so
        run.update(state="failed", message=_sentence(error, run))


def _sentence(error: Exception, run: Run) -> str:
    """What went wrong and what to do next."""
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, HydraError):
        return str(error) or type(error).__name__
    if is_out_of_memory(error):
        return f"Not enough memory while {_doing(run)}{_held()}. Try {_less_memory(run)}."
    if getattr(error, "errno", None) in NO_SPACE or any(sign in told for sign in NOT_WRITTEN):
        return f"A file could not be written, probably for want of disk space ({told[:120]}). Free some, then resume."
    return f"{told}. The log has the whole story; where it can be mended, resume."


def _doing(run: Run) -> str:
    stage, training = run.state()["message"], run.recipe().training
    return f"{stage}, in batches of {training.batch_size} rows" if stage == "training" else stage


def _held() -> str:
    """What the run had taken, and what its machine or GPU has."""
    import torch

    on_gpu = torch.cuda.is_available()
    taken, total = peak_memory("cuda" if on_gpu else "cpu"), psutil.virtual_memory().total
    if on_gpu:
        total = torch.cuda.mem_get_info()[1]
    where = "the GPU" if on_gpu else "this machine"
    return f"; it had taken {taken / 2**30:.1f} GB of the {total / 2**30:.1f} GB of {where}"


def _less_memory(run: Run) -> str:
    recipe, stage = run.recipe(), run.state()["message"]
    training = recipe.training
    if stage.startswith("loading"):
        return "a smaller base model" + ("" if recipe.quantization != "none" else ", or quantization=nf4 on a GPU")
    if training.batch_size > 1 and stage == "training":
        half, rows = training.batch_size // 2, training.batch_size * training.accumulation
        return f"training.batch_size={half} with training.accumulation={-(-rows // half)}, which learns the same"
    if not training.gradient_checkpointing and stage == "training":
        return "training.gradient_checkpointing=true"
    return f"training.max_length={max(8, training.max_length // 2)}"


def _end_with(launcher: int) -> None:
    """End this process when its launcher has died, which then can't do it."""
    while os.getppid() == launcher and psutil.pid_exists(launcher):
        time.sleep(0.5)
    os._exit(1)


def _live(run: Run) -> None:
    """Give signs of life, for those who can't look at this process."""
    while True:
        time.sleep(PULSE)
        with suppress(OSError, RunError):  # a full disk may pass; a run that was taken away needs none
            run.update()


def _record(run: Run, event: dict[str, Any]) -> None:
    changes: dict[str, Any] = {"step": event["step"]}
    if event["kind"] == "step":
        run.update(**changes)
        return
    if "stage" in event:
        state = "stopping" if run.stop_requested else STATES.get(event["stage"].split()[0], "preparing")
        changes |= {"state": state, "message": event["stage"]}
    if "total" in event:
        changes["progress"] = [event["done"], event["total"]]
    else:
        run.add_event(event)
        if line := event_line(event):
            print(line, file=sys.stderr)  # into the log
    for key in ("max_steps", "base", "data", "k"):
        if key in event and event["kind"] == "note":
            changes[key] = event[key]
    run.update(**changes)


if __name__ == "__main__":
    raise SystemExit(main())

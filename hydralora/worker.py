"""`python -m hydralora.worker RUN_DIR`: the process that a job is."""

import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from hydralora.errors import HydraError
from hydralora.runs import Run
from hydralora.training import train

NICENESS = 5  # below the app and whatever else the user does
STATES = {"training": "training", "evaluating": "evaluating"}  # first word of a stage; any other is preparing


def main() -> int:
    run = Run(Path(sys.argv[1]))
    found = run.state()["state"]
    if found != "queued":
        print(f"Run {run.id} is {found}; only a queued run is started.", file=sys.stderr)
        return 1
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    run.update(state="preparing", pid=os.getpid(), message="starting")
    try:
        results = train(run.recipe(), run.adapter, lambda event: _record(run, event), lambda: run.stop_requested)
    except Exception as error:  # the run's state must tell what happened, whatever it was
        traceback.print_exc()
        sentence = str(error) if isinstance(error, HydraError) else f"{type(error).__name__}: {error}"
        run.update(state="failed", message=sentence or type(error).__name__)
        return 1
    step = results["step"]
    run.update(
        state="stopped" if results["stopped"] else "finished",
        step=step,
        adapter_hash=results["adapter_hash"],
        message=f"after {step} steps" if step else "before its first step, so nothing was learnt yet",
        ended=time.time(),
        results=results,
    )
    return 0


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

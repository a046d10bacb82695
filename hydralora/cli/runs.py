"""Commands on runs: starting, following, stopping, comparing, using and sharing them."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydralora.cli.options import Json, RunName, Workspace, command
from hydralora.cli.output import Output, comparison_text, following, progress, say, scores_text, tasks_text
from hydralora.errors import ConfigError

if TYPE_CHECKING:
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.run import Run
    from hydralora.runs.state import RunState

LOOK = 1.0  # seconds between looks at the queue


@command
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.name=value.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait until the run ends, showing its progress.")] = False,
    executor: Annotated[
        str | None, typer.Option(help="local, or slurm to submit it as a job; short for --set launch.executor=.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Start a training run in its own process. While following, Ctrl-C stops the run and saves its adapter; a second
    Ctrl-C kills it."""
    from hydralora.recipe.reading import load_recipe
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    jobs = JobManager(RunStore(workspace))
    chosen = [*(set_ or []), *([f"launch.executor={executor}"] if executor else [])]
    run = jobs.start(load_recipe(recipe, chosen))
    begun = f"queued, {jobs.ahead(run)} ahead" if jobs.is_waiting(run) else "started"
    say(f"Run {run.id} {begun}; `hydralora show {run.id}` shows its state, `hydralora stop {run.id}` stops it.")
    state = followed(jobs, run) if follow else jobs.refresh(run)
    return Output(_about(run, state), f"{run.id}  {state.state}")


@command
def work(
    slots: Annotated[
        int | None, typer.Option(help="How many runs at once; the queue's own number if left out.", min=1)
    ] = None,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when nothing waits or runs here.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Take waiting runs on this machine, beside others that share the workspace, until Ctrl-C; what runs goes on."""
    import time

    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    jobs, started = JobManager(RunStore(workspace), slots), list[str]()
    say(f"Waiting for runs in {jobs.store.folder}; Ctrl-C ends this, and no run.")
    with suppress(KeyboardInterrupt):
        while not until_empty or jobs.store.queue().waiting or jobs.active():
            for run in jobs.advance():
                started.append(run.id)
                say(f"Run {run.id} started.")
            time.sleep(LOOK)
    return Output({"started": started}, f"{len(started)} started here")


@command
def estimate(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.name=value.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Estimate a run's time, memory and disk use from a trial of a few steps. Nothing is saved."""
    from hydralora.recipe.reading import load_recipe
    from hydralora.runs.store import RunStore
    from hydralora.training.trial import estimate_text, run_trial

    with progress("trial") as on_progress:
        trial = run_trial(RunStore(workspace).resolved(load_recipe(recipe, set_)), on_progress)
    return Output(trial.values(), f"{estimate_text(trial)}.")


def followed(jobs: "JobManager", run: "Run", seen: int = 0) -> "RunState":
    """Show a run's progress, and its events after the first `seen`, until it ends; returns its last state.

    Raises:
        RunError: it failed, or its process died.
    """
    from hydralora.errors import RunError
    from hydralora.runs.phases import run_progress

    try:
        recipe = run.recipe()
        with following() as view:
            state = jobs.follow(
                run, view.on_event, seen=seen, on_state=lambda state: view.on_progress(run_progress(state, recipe))
            )
    except KeyboardInterrupt:
        jobs.stop(run)
        say("Stopping; Ctrl-C again kills the run.")
        try:
            state = jobs.follow(run)
        except KeyboardInterrupt:
            jobs.kill(run)
            say(f"Killed. `hydralora resume {run.id}` resumes from its newest checkpoint.")
            raise
    if state.state not in ("finished", "stopped"):
        raise RunError(f"Run {run.id} {state.state}: {state.message.rstrip('.')}. Its log is {run.log}.")
    if state.state == "stopped":
        say(state.message)
    return state


def _about(run: "Run", state: "RunState") -> dict[str, object]:
    return {"run": run.id, "folder": str(run.folder), "state": state.state}


@command
def runs(as_json: Json = False, workspace: Workspace = None) -> Output:
    """List the runs, newest first."""
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    jobs = JobManager(RunStore(workspace))
    listed: dict[str, tuple[Mapping[str, object], str]] = {}
    for run, state in jobs.states().items():
        listed[run.id] = state.values(), state.line()
    for run, why in jobs.store.damaged().items():
        values = {"version": 1, "id": run.id, "state": "damaged", "step": None, "max_steps": None, "message": why}
        listed[run.id] = values, f"{run.id}  {'damaged':12} {why}"
    newest_first = [listed[run_id] for run_id in sorted(listed, reverse=True)]
    text = "\n".join(line for _, line in newest_first) or "No runs yet. Start one with `hydralora train RECIPE`."
    return Output({"runs": [values for values, _ in newest_first]}, text)


@command
def show(run: RunName, as_json: Json = False, workspace: Workspace = None) -> Output:
    """Show a run's state and results, and its phase while it is active."""
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.phases import run_progress
    from hydralora.runs.store import RunStore

    store = RunStore(workspace)
    stored = store.get(run)
    state = JobManager(store).refresh(stored)
    if not state.is_active:
        return Output(state.values())
    phase = run_progress(state, stored.recipe())
    say(f"{phase.sentence()}.")
    return Output(state.values() | {"phase": phase.values()})


@command
def stop(
    run: RunName,
    measure: Annotated[bool, typer.Option("--measure", help="Evaluate the adapter before the run ends.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Stop a run at once; the adapter of its last finished step is saved."""
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    jobs = JobManager(RunStore(workspace))
    stored = jobs.store.get(run)
    jobs.stop(stored, measure)
    state = jobs.refresh(stored)
    return Output(state.values() | _about(stored, state), f"{stored.id}  {state.state}")


@command
def resume(
    run: RunName,
    follow: Annotated[bool, typer.Option(help="Wait until the run ends, showing its progress.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Resume a run that was stopped, interrupted or failed, from its newest checkpoint."""
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    jobs = JobManager(RunStore(workspace))
    stored = jobs.store.get(run)
    step = jobs.resume(stored)
    past_events = sum(1 for _ in stored.each_event())
    say(f"Run {stored.id} resumes from step {step}.")
    state = followed(jobs, stored, past_events) if follow else jobs.refresh(stored)
    return Output(_about(stored, state) | {"step": step}, f"{stored.id}  {state.state}")


@command
def compare(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs' ids or folders.")],
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Compare runs: settings that differ, and results beside the base model's."""
    from hydralora.runs.comparison import compare
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    jobs = JobManager(RunStore(workspace))
    stored = [jobs.store.get(name) for name in run]
    compared = compare([(stored_run, jobs.refresh(stored_run)) for stored_run in stored])
    return Output(compared.model_dump(mode="json"), comparison_text(compared))


@command
def evaluate(
    run: RunName,
    data: Annotated[list[Path] | None, typer.Option(help="A file of rows with answers; may be repeated.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: which column holds what.")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Public benchmarks instead, by lm-evaluation-harness (the extra eval): gsm8k,mmlu."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Rows of each benchmark. Default: all.", min=1)] = None,
    task_definitions: Annotated[
        Path | None, typer.Option(help="A folder of further benchmarks, in the harness' YAML, which may run code.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Evaluate a run and its base model on the rows of a file (loss and exact match), or on public benchmarks."""
    from hydralora.data.mapping import load_mapping
    from hydralora.inference.benchmarks import evaluate_tasks
    from hydralora.inference.on_files import evaluate_run
    from hydralora.runs.store import RunStore

    stored = RunStore(workspace).get(run)
    if bool(data) == bool(tasks):
        raise ConfigError("evaluate: give either a file, --data FILE, or benchmarks, --tasks gsm8k.")
    if tasks:
        names = [name.strip() for name in tasks.split(",") if name.strip()]
        with progress("evaluating") as on_progress:
            found = evaluate_tasks(stored, names, limit, task_definitions, on_progress)
        return Output({"tasks": {name: scores.values() for name, scores in found.items()}}, tasks_text(found))
    with progress("evaluating") as on_progress:
        scores = evaluate_run(stored, data or [], load_mapping(mapping) if mapping else None, on_progress)
    return Output(scores.model_dump(mode="json"), scores_text(scores))


@command
def generate(
    run: RunName,
    file: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of rows with questions.")],
    out: Annotated[Path, typer.Option(help="Write the answers here, as JSONL.")],
    column: Annotated[
        str | None, typer.Option(help="The column with the questions, if the rows have no answers.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: which column holds what.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.", min=1)] = 256,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Answer every row of a file by greedy decoding."""
    from hydralora.data.mapping import load_mapping
    from hydralora.inference.on_files import answer_file
    from hydralora.runs.store import RunStore

    stored = RunStore(workspace).get(run)
    with progress("answering") as on_progress:
        columns = load_mapping(mapping) if mapping else None
        answered = answer_file(stored, file, out, column, columns, max_new_tokens, on_progress)
    right = "" if answered.exact_match is None else f", {answered.exact_match:.1%} equal to the file's"
    return Output(answered.values() | {"path": str(out.resolve())}, f"{answered.rows} answers in {out}{right}")


@command
def export(
    run: RunName,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="adapter; lora: a plain LoRA of the heads' mean gates; merged: the base model with that LoRA merged; "
            "official: the published code's format.",
        ),
    ] = "adapter",
    out: Annotated[
        Path | None, typer.Option(help="A .zip file, or a new folder. Default: RUN-FORMAT.zip in the current folder.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Export a run's adapter to a file or folder to share."""
    from hydralora.runs.store import RunStore
    from hydralora.transfer import export_run

    stored = RunStore(workspace).get(run)
    exported = export_run(stored, form, out or Path(f"{stored.id}-{form}.zip"))
    apart = "" if exported.kl is None else f"; {exported.kl:.4g} nats per token from the routed model"
    return Output(asdict(exported), f"{exported.path}, {exported.bytes / 1e6:.1f} MB{apart}. {exported.comparison}")


@command
def push(
    run: RunName,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A repository of the Hugging Face Hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public; the default is private.")
    ] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Upload a run's adapter to the Hugging Face Hub, with the token in the environment variable HF_TOKEN."""
    from hydralora.runs.store import RunStore
    from hydralora.transfer import push_run

    address = push_run(RunStore(workspace).get(run), repository, private=not public)
    return Output({"path": address}, address)


@command
def import_(
    file: Annotated[Path, typer.Argument(help="A zip file from `hydralora export`.")],
    model: Annotated[str | None, typer.Option(help="The base model, if it was a folder on another machine.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Import an exported adapter as a run. Nothing in the file is executed."""
    from hydralora.errors import MissingModelError
    from hydralora.runs.store import RunStore
    from hydralora.transfer import import_run

    try:
        run = import_run(RunStore(workspace), file, model)
    except MissingModelError as error:
        raise MissingModelError(f"{error} Give it as --model.") from error
    state = run.state()
    values = {"run": run.id, "state": state.state, "path": str(run.folder), "bytes": file.stat().st_size, "kl": None}
    return Output(values, state.line())

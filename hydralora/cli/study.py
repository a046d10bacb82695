"""Commands of the studies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydralora.cli.options import Json, Workspace, app
from hydralora.cli.output import Output, answering, say

if TYPE_CHECKING:
    from hydralora.experiments.studies.running import RunningStudy, Status

studies = typer.Typer(no_args_is_help=True, help="Questions that are answered by many runs: tables with intervals.")
app.add_typer(studies, name="study")
StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A study's name, or a file (YAML) of your own.")]
StudyId = Annotated[str, typer.Argument(metavar="ID", help="The id of a study that was begun.")]
QUICK = {"seeds": 1, "steps": 20, "rows": 40}


@studies.command("list")
@answering
def list_(as_json: Json = False, workspace: Workspace = None) -> Output:
    """List the studies that ship, each with its question."""
    from hydralora.experiments.studies.shipped import shipped_studies
    from hydralora.experiments.studies.study import declared_studies, read_study

    found = {name: read_study(path) for name, path in declared_studies().items()}
    values = [
        {"name": name, "question": study.question, "arms": list(study.arms), "seeded": True}
        for name, study in found.items()
    ]
    finished = [
        {"id": study.id, "name": study.file.name, "machine": study.machine} for study in shipped_studies().values()
    ]
    width = max(map(len, found))
    lines = [f"{name:{width}}  {study.question}" for name, study in found.items()]
    ids = ", ".join(shipped_studies())
    lines.append(f"Finished ones that ship, for `hydralora study report`: {ids}.")
    return Output({"studies": values, "finished": finished}, "\n".join(lines))


@studies.command("show")
@answering
def show(name: StudyName, as_json: Json = False, workspace: Workspace = None) -> Output:
    """Show a study's declaration: its arms, axes, measures, and what the paper found."""
    import yaml

    from hydralora.experiments.studies.study import find_study

    found, study = find_study(name)
    values = study.model_dump(mode="json", exclude_unset=True)
    return Output({"name": found} | values, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


@studies.command("run")
@answering
def run(
    name: StudyName,
    data: Annotated[str, typer.Option(help="A data file, or one that ships: demo, conflict, single.")] = "demo",
    heldout: Annotated[
        Path | None, typer.Option(help="A file of the rows to report on. Default: some of DATA's.")
    ] = None,
    model: Annotated[str, typer.Option(help="The base model; 'default' is the default one.")] = "default",
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1, max=100)] = 3,
    steps: Annotated[int | None, typer.Option(help="Steps of a run. Default: the recipe's.", min=1)] = None,
    arms: Annotated[list[str] | None, typer.Option(help="Only this arm; may be repeated.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting of all runs: section.name=value.")
    ] = None,
    axis: Annotated[
        list[str] | None, typer.Option(help="Values of an axis, the study's own or a new one: section.name=[a, b].")
    ] = None,
    executor: Annotated[str | None, typer.Option(help="local, or slurm to submit the runs as jobs.")] = None,
    quick: Annotated[bool, typer.Option(help="One seed, 20 steps and 40 rows, to see that everything runs.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only show the runs that are needed, and how long they take.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Run a study, or go on with it: the same command continues where it was. Ctrl-C stops its runs."""
    from hydralora.data.demo import shipped_data
    from hydralora.experiments.studies.cells import Settings
    from hydralora.experiments.studies.report import report
    from hydralora.experiments.studies.report_tables import report_table
    from hydralora.experiments.studies.running import begin_study
    from hydralora.experiments.studies.study import find_study
    from hydralora.models.catalogue import DEFAULT_MODEL
    from hydralora.recipe.reading import parse_overrides
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    found, study = find_study(name)
    if axis:
        study = study.with_axes({key: _listed(value) for key, value in parse_overrides(axis).items()})
    changes = parse_overrides([*(set_ or []), *([f"launch.executor={executor}"] if executor else [])])
    chosen = {"seeds": seeds, "steps": steps} | (QUICK if quick else {})
    file, own = shipped_data(data) or (Path(data).resolve(), None)
    reported = heldout.resolve() if heldout else own
    settings = Settings(
        data=str(file),
        heldout=str(reported) if reported else None,
        model=DEFAULT_MODEL if model == "default" else model,
        arms=tuple(arms or ()),
        recipe=changes,
        **chosen,
    )
    running = begin_study(JobManager(RunStore(workspace)), found, study, settings)
    if dry_run:
        return _planned(running)
    say(f"Study {running.id}: the same command goes on with it, `hydralora study report {running.id}` shows it so far.")
    try:
        running.follow(lambda status: say(status_line(status)))
    except KeyboardInterrupt:
        say(f"Stopping {running.stop()} runs; the same command goes on.")
        raise
    done = report(running)
    return Output(done.model_dump(mode="json"), report_table(done))


@studies.command("status")
@answering
def status(
    study: Annotated[str | None, typer.Argument(metavar="[ID]", help="A study that was begun. Default: all.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Show how far a study is, or all of them."""
    from hydralora.experiments.studies.running import all_studies
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    jobs = JobManager(RunStore(workspace))
    chosen = [_found(workspace, study)] if study else all_studies(jobs)
    states = {each.id: each.status() for each in chosen}
    values = [
        {"id": name, "phase": now.phase, "cells": now.cells, "failed": now.failed, "ended": now.ended}
        for name, now in states.items()
    ]
    lines = [f"{name}  {status_line(now)}" for name, now in states.items()]
    return Output({"studies": values}, "\n".join(lines) or "No study was begun yet. `hydralora study list` shows them.")


@studies.command("report")
@answering
def report_(
    study: StudyId,
    html: Annotated[Path | None, typer.Option(help="Write it as one page that needs no network here.")] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write a line for each reported run, and each arm's summary, here.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Show what a study has found so far; write it as a page, or as a table for other programs."""
    from hydralora.experiments.studies.report import report
    from hydralora.experiments.studies.report_files import write_csv, write_html, write_shipped
    from hydralora.experiments.studies.report_tables import report_table
    from hydralora.experiments.studies.shipped import shipped_studies

    shipped = shipped_studies().get(study)
    if shipped:
        found = shipped.report
        if html:
            write_shipped(html, shipped)
    else:
        running = _found(workspace, study)
        found = report(running)
        if html:
            write_html(html, running, found)
    if csv:
        write_csv(csv, found)
    told = [f"It ships with the package: made on {shipped.machine} by `{shipped.command}`."] if shipped else []
    told += [f"Written: {path}" for path in (html, csv) if path]
    return Output(found.model_dump(mode="json"), "\n".join([report_table(found), *told]))


def status_line(status: "Status") -> str:
    """How far a study is, in a line."""
    doing = "choosing each arm's setting" if status.phase == "choosing" else "running the arms"
    states = ", ".join(f"{count} {state}" for state, count in sorted(status.cells.items()))
    return f"{doing}: {status.cells.get('finished', 0)} of {status.total} done ({states})"


def _found(workspace: Path | None, study: str) -> "RunningStudy":
    from hydralora.experiments.studies.running import RunningStudy, studies_folder
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    store = RunStore(workspace)
    return RunningStudy(JobManager(store), studies_folder(store) / Path(study).name)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _planned(running: "RunningStudy") -> Output:
    """The runs that a study needs, and what they take on this machine."""
    from hydralora.experiments.studies.cost import planned

    plan = planned(running)
    lines = [f"{line.runs:4} x {line.name}" for line in plan.lines]
    return Output(plan.model_dump(mode="json"), "\n".join([*lines, plan.sentence()]))

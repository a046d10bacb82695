"""Commands of the demo, the bench and the experiments."""

from pathlib import Path
from typing import Annotated

import typer

from hydralora.cli.options import Json, Workspace, app, command
from hydralora.cli.output import Output, answering, print_event, say


@command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the run.")] = Path("demo-report"),
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps. Default: the recipe's, 100.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Run the main workflow on the demo dataset: components, fine-tuning, scores before and after. Minutes on a CPU."""
    from hydralora.experiments.demo import demo_table, run_demo

    report = run_demo(out.resolve(), print_event, steps)
    return Output(report.model_dump(mode="json"), demo_table(report))


@command
def bench(
    quick: Annotated[
        bool, typer.Option(help="A shortened model and few rounds, to check that everything runs, in a minute.")
    ] = False,
    data: Annotated[
        list[Path] | None, typer.Option(help="A further dataset for a whole training loop; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only this part: train_step, memory, decode or throughput; may be repeated."),
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Measure speed and memory relative to the published loop, PEFT's LoRA and the base model. Takes minutes."""
    from hydralora.bench.report import PARTS, bench_table, run_bench

    def on_round(what: str, done: int, total: int) -> None:
        say(f"{what}, round {done} of {total}")

    report = run_bench(quick, data or [], on_round, only or PARTS)
    return Output(report, bench_table(report))


experiments = typer.Typer(no_args_is_help=True, help="Reproducible experiments.")
app.add_typer(experiments, name="experiment")


@experiments.command("router-init")
@answering
def router_init(
    data: Annotated[Path, typer.Option(help="A data file.")],
    out: Annotated[Path, typer.Option(help="Folder for the report; an unfinished experiment is resumed.")] = Path(
        "router-init-report"
    ),
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 3,
    steps: Annotated[int, typer.Option(help="Training steps of a run.", min=1)] = 60,
    max_length: Annotated[int, typer.Option(help="Longest row in tokens.")] = 512,
    threads: Annotated[int, typer.Option(help="CPU threads. 0: all cores but one (both of two).")] = 0,
    model: Annotated[str, typer.Option(help="The base model; 'default' is the default one.")] = "default",
    only: Annotated[list[str] | None, typer.Option(help="Only this run; may be repeated.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Compare ways to initialise the router: from components, as published, and a LoRA of equal size. Takes hours."""
    from hydralora.experiments.router_init import router_init_table, run_router_init
    from hydralora.models.catalogue import DEFAULT_MODEL

    report = run_router_init(
        data.resolve(),
        out.resolve(),
        seeds,
        steps,
        DEFAULT_MODEL if model == "default" else model,
        only,
        print_event,
        {"max_length": max_length, "threads": threads},
    )
    return Output(report, router_init_table(report))

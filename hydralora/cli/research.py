"""Commands of the demo and the bench."""

from pathlib import Path
from typing import Annotated

import typer

from hydralora.cli.options import Json, Workspace, command
from hydralora.cli.output import Output, print_event, say


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

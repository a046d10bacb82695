"""Commands that inspect a run: its matrices, heads and gates."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydralora.cli.options import Json, RunName, Workspace, app, command
from hydralora.cli.output import Output, answering, parts_text, say
from hydralora.cli.runs import followed
from hydralora.errors import printable
from hydralora.projection import METHODS

if TYPE_CHECKING:
    from hydralora.data.examples import Message
    from hydralora.inference.generation import Sampling
    from hydralora.inference.model_cache import LoadedModel
    from hydralora.inference.traces import Trace
    from hydralora.tuner.steering import Steering


@command
def analyze(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs' ids or folders.")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "pca",
    dims: Annotated[int, typer.Option(help="2 or 3.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the projection.")] = 0,
    neighbours: Annotated[
        int | None, typer.Option(help="How many near points count, where the method has neighbours.", min=2)
    ] = None,
    products: Annotated[
        bool, typer.Option("--products", help="Project the products of A and heads instead of each alone.")
    ] = False,
    colour: Annotated[str, typer.Option(help="Colour of the points by head, kind, layer, module or run.")] = "head",
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page with the plots here.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Project every A and every head to points, and compare the heads. No base model is loaded."""
    from hydralora.analysis import head_similarity, matrices, project_matrices, read_weights
    from hydralora.figures import group_figure, how_to_read, write_page
    from hydralora.runs.store import RunStore

    store = RunStore(workspace)
    members, similarity = [], {}
    for name in run:
        stored = store.get(name)
        weights = read_weights(stored.adapter, model=stored.recipe().model)
        members += matrices(weights, stored.id, products=products)
        similarity[stored.id] = head_similarity(weights)
    groups = project_matrices(members, method, dims, seed, neighbours)  # type: ignore[arg-type]
    if html:
        pictures = [(group_figure(group, colour), how_to_read([group])) for group in groups]  # type: ignore[arg-type]
        write_page(html, f"A and heads of {', '.join(similarity)}", pictures)
    lines = [f"{len(group.points)} matrices of shape {group.shape}" for group in groups]
    for name, values in similarity.items():
        known = [value for value in values.values() if value is not None]
        if known:
            lines.append(f"{name}: mean cosine between heads {sum(known) / len(known):.3f}")
    output: dict[str, object] = {"groups": [group.describe() for group in groups], "similarity": similarity}
    return Output(output, "\n".join(lines))


@command
def breakdown(
    run: RunName,
    steps: Annotated[int, typer.Option(help="Steps of each LoRA.", min=1)] = 40,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Train a LoRA on each component of a run, and measure how far their A's and B's differ."""
    from hydralora.analysis.breakdown import break_down, component_names, start_breakdown
    from hydralora.runs.jobs import JobManager
    from hydralora.runs.store import RunStore

    jobs = JobManager(RunStore(workspace))
    of = jobs.store.get(run)
    runs = dict(zip(component_names(of), start_breakdown(jobs, of, steps), strict=True))
    for name, component_run in runs.items():
        if jobs.refresh(component_run).state != "finished":
            say(f"Run {component_run.id}, on {name}:")
            followed(jobs, component_run)
    result = break_down(runs)
    reading, difference = result.reading(), result.difference()
    values = {
        "runs": {name: component_run.id for name, component_run in runs.items()},
        "parts": [part.describe() for part in result.parts],
        "difference": asdict(difference) | {"verdict": difference.verdict} if difference else None,
        "reading": reading,
    }
    return Output(values, parts_text(result.parts, reading))


@command
def chat(
    run: RunName,
    prompt: Annotated[str, typer.Option(help="The question.")],
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Share of the probability that tokens are drawn from.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    pin: Annotated[int | None, typer.Option(help="Give this head, counted from 0, the whole weight.")] = None,
    mute: Annotated[
        list[int] | None, typer.Option(help="Give this head, counted from 0, no weight; may be repeated.")
    ] = None,
    uniform: Annotated[bool, typer.Option("--uniform", help="Give all heads the same weight.")] = False,
    top_k: Annotated[int | None, typer.Option(help="Keep only this many of each token's largest gates.")] = None,
    temperature_router: Annotated[
        float | None, typer.Option(help="Divide the router's logits by this; below 1 sharpens the gates.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Steer only these blocks: 3, or 0-11.")] = None,
    level: Annotated[
        list[float] | None,
        typer.Option(help="A factor on each head's gate, renormalised: repeat it for every head, in their order."),
    ] = None,
    alternatives: Annotated[int, typer.Option(help="Number of likeliest tokens to return with each token.", min=0)] = 5,
    save: Annotated[Path | None, typer.Option(help="Save the answer with its gates here, as a trace.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Ask a tuned model a question, optionally with steered gates; with --json, every token has its gates."""
    from hydralora.inference.generation import Sampling
    from hydralora.inference.model_cache import load_run
    from hydralora.inference.traces import save_trace
    from hydralora.runs.store import RunStore
    from hydralora.tuner.steering import block_range, steering_or_none

    steering = steering_or_none(
        pin=pin,
        mute=tuple(mute or ()),
        uniform=uniform,
        temperature=temperature_router,
        top_k=top_k,
        layers=block_range(layers) if layers else None,
        levels=tuple(level) if level else None,
    )
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    loaded = load_run(RunStore(workspace).get(run))
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    trace = _answer(loaded, messages, sampling, steering, alternatives, silent=as_json)
    if save:
        save_trace(trace, save)
    values = trace.model_dump(include={"modules", "tokens", "adapter_hash", "steering"})
    return Output(
        values | {"text": trace.text, "prompt_tokens": len(trace.prompt)}, ""
    )  # the text was streamed already


def _answer(
    loaded: "LoadedModel",
    messages: list["Message"],
    sampling: "Sampling",
    steering: "Steering | None",
    alternatives: int,
    silent: bool,
) -> "Trace":
    """Answer a conversation, printing each token when it is generated."""
    from hydralora.inference.generation import Token, gated_modules, generate
    from hydralora.inference.traces import make_trace

    prompt: list[Token] = []
    tokens: list[Token] = []
    answer = generate(
        loaded.model,
        loaded.tokenizer,
        messages,
        sampling,
        steering=steering,
        alternatives=alternatives,
        on_prompt=prompt.extend,
    )
    for token in answer:
        tokens.append(token)
        if not silent:
            print(printable(token.text), end="", flush=True)
    return make_trace(tokens, prompt, gated_modules(loaded.model), messages, sampling, loaded.source(steering))


trace_app = typer.Typer(no_args_is_help=True, help="Answers saved with their gates.")
app.add_typer(trace_app, name="trace")


@trace_app.command("replay")
@answering
def replay(
    file: Annotated[Path, typer.Argument(help="A trace that a chat saved.")],
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page that replays it here.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Show a saved answer, checked field by field. No model is loaded."""
    from hydralora.figures import write_replay
    from hydralora.inference.traces import load_trace

    trace = load_trace(file)
    if html:
        write_replay(html, [("Answer", trace.whose, trace.model_dump_json())])
    return Output(trace.model_dump(), trace.text)

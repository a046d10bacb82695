"""The `hydralora` command."""

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from hydralora.errors import HydraError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Workspace = Annotated[
    Path | None,
    typer.Option("--workspace", help="Where runs are kept. Default: HYDRALORA_HOME, else your data folder."),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder.")]


def main() -> None:
    """Entry point: exit 0 ok, 1 a HydraError, 2 wrong usage, 130 interrupted."""
    app()


def _command(function: Callable[..., dict[str, Any]]) -> None:
    """Register a command. It returns its JSON; `shown` in it, if any, is what a person sees instead."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        as_json = kwargs.get("as_json", False)
        try:
            result = function(*args, **kwargs)
        except HydraError as error:
            if as_json:
                print(json.dumps({"version": 1, "error": {"kind": error.kind, "message": str(error)}}))
            typer.echo(f"{error.kind} error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        shown = result.pop("shown", None)
        if as_json:
            print(json.dumps({"version": 1} | result))
        else:
            print(json.dumps(result, indent=2) if shown is None else shown)

    app.command(name=function.__name__.rstrip("_"))(run)


def _say(message: str) -> None:
    typer.echo(message, err=True)


@_command
def models(
    fetch: Annotated[
        str | None, typer.Option(help="Fetch this base model first; 'default' is the default one.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """The base models that are offered by name, and where each one lies."""
    from hydralora import models as base_models

    if fetch:
        name = base_models.DEFAULT_MODEL if fetch == "default" else fetch
        _say(f"Looking for {name}; the first time it is fetched and converted, which takes up to a minute.")
        base_models.find_model(name)
    rows = base_models.catalogue()
    lines = [
        f"{row['id']:40} {row['parameters'] / 1e6:6.0f}M  {row['licence']:11} "
        f"{'ready, from ' + row['source'] if row['ready'] else 'fetched on first use'}"
        for row in rows
    ]
    return {"models": rows, "shown": "\n".join(lines)}


@_command
def params(
    base: Annotated[str, typer.Argument(help="A model id, a model folder, or a folder with only a config.json.")],
    r: Annotated[int, typer.Option("--r", help="Rank.")] = 8,
    heads: Annotated[int, typer.Option(help="Number of heads.")] = 3,
    targets: Annotated[str, typer.Option(help="Layers to adapt, with commas between.")] = "gate_proj,up_proj,down_proj",
    router: Annotated[str, typer.Option(help="What the router reads: latent or hidden.")] = "latent",
    method: Annotated[str, typer.Option(help="hydralora or lora.")] = "hydralora",
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Count an adapter's parameters, with and without its router. Needs no weights."""
    from peft import LoraConfig, get_peft_model

    from hydralora.errors import ConfigError
    from hydralora.models import empty_model
    from hydralora.tuner.config import HydraLoraConfig
    from hydralora.tuner.model import count_parameters

    names = [name.strip() for name in targets.split(",") if name.strip()]
    if method == "hydralora":
        config: Any = HydraLoraConfig(r=r, num_heads=heads, router_input=router, target_modules=names)  # type: ignore[arg-type]
    elif method == "lora":
        config = LoraConfig(r=r, target_modules=names)
    else:
        raise ConfigError(f"--method is {method!r}. Choose hydralora or lora.")
    counts = count_parameters(get_peft_model(empty_model(base), config, low_cpu_mem_usage=True))
    text = (
        f"base {counts['base']:,}; adapter (A + heads) {counts['adapter']:,} = {counts['percent']:.4f} %; "
        f"with the router's {counts['router']:,}: {counts['percent_with_router']:.4f} %"
    )
    return counts | {"shown": text}


@_command
def clusters(
    file: Annotated[Path, typer.Argument(help="A data file.")],
    k: Annotated[int | None, typer.Option(help="Number of components; by default the elbow's.")] = None,
    features: Annotated[str, typer.Option(help="tfidf-svd, or tfidf (the paper's).")] = "tfidf-svd",
    seed: Annotated[int, typer.Option(help="Seed of k-means and SVD.")] = 0,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Find a dataset's components, and with them the number of heads."""
    from hydralora.clustering import cluster
    from hydralora.data.formats import read_file

    data = read_file(file)
    found = cluster(
        [example.question for example in data.examples],
        k,
        features,  # type: ignore[arg-type]
        seed,
        on_progress=lambda done, total: _say(f"k-means, k = {done} of {total}") if sys.stderr.isatty() else None,
    )
    lines = [f"{found.k} components in {len(data.examples)} rows"]
    lines += [f"{c.size:6} rows  {', '.join(c.terms)}" for c in found.components]
    return {
        "k": found.k,
        "method": "kmeans",
        "features": found.features,
        "labels": found.labels.tolist(),
        "sizes": found.sizes,
        "sse": [list(pair) for pair in found.sse],
        "silhouette": [list(pair) for pair in found.silhouette],
        "components": [{"id": c.id, "name": c.name, "size": c.size, "terms": c.terms} for c in found.components],
        "shown": "\n".join(lines),
    }


@_command
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.name=value.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait until the run ends, showing its progress.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Start a training run in a process of its own. Ctrl-C while following asks it to stop and keep what it learnt."""
    from hydralora.errors import RunError
    from hydralora.jobs import JobManager
    from hydralora.recipe import load_recipe
    from hydralora.runs import RunStore

    jobs = JobManager(RunStore(workspace))
    run = jobs.start(load_recipe(recipe, set_))
    _say(f"Run {run.id} started; `hydralora show {run.id}` tells how it is, `hydralora stop {run.id}` ends it.")
    state = jobs.refresh(run)
    if follow:
        try:
            state = jobs.follow(run, _print_event)
        except KeyboardInterrupt:
            jobs.stop(run)
            _say("Stopping after this step; Ctrl-C again to leave it to itself.")
            state = jobs.follow(run)
        if state["state"] not in ("finished", "stopped"):
            raise RunError(f"Run {run.id} {state['state']}: {state['message']}. Its log is {run.log}.")
    return {"run": run.id, "folder": str(run.folder), "state": state["state"], "shown": f"{run.id}  {state['state']}"}


@_command
def runs(as_json: Json = False, workspace: Workspace = None) -> dict[str, Any]:
    """List the runs, newest first."""
    from hydralora.jobs import JobManager
    from hydralora.runs import RunStore

    jobs = JobManager(RunStore(workspace))
    states = [jobs.refresh(run) for run in jobs.store.all()]
    lines = [f"{s['id']}  {s['state']:12} step {s['step']} of {s['max_steps']}  {s['message']}" for s in states]
    return {"runs": states, "shown": "\n".join(lines) or "No runs yet. Start one with `hydralora train RECIPE`."}


@_command
def show(run: RunName, as_json: Json = False, workspace: Workspace = None) -> dict[str, Any]:
    """A run's state and results."""
    from hydralora.jobs import JobManager
    from hydralora.runs import RunStore

    store = RunStore(workspace)
    return dict(JobManager(store).refresh(store.get(run)))


@_command
def stop(run: RunName, as_json: Json = False, workspace: Workspace = None) -> dict[str, Any]:
    """Ask a run to stop after its step; what it learnt is kept."""
    from hydralora.jobs import JobManager
    from hydralora.runs import RunStore

    jobs = JobManager(RunStore(workspace))
    found = jobs.store.get(run)
    jobs.stop(found)
    return {"run": found.id, "folder": str(found.folder), "state": "stopping", "shown": f"{found.id}  stopping"}


@_command
def analyze(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs' ids or folders.")],
    method: Annotated[str, typer.Option(help="pca, tsne or umap.")] = "pca",
    dims: Annotated[int, typer.Option(help="2 or 3.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the projection.")] = 0,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Project every A and every head to points, and compare the heads."""
    from hydralora.analysis import head_similarity, matrices, project_matrices
    from hydralora.runs import RunStore
    from hydralora.serving import load_run

    store = RunStore(workspace)
    found, similarity = [], {}
    for name in run:
        one = store.get(name)
        model = load_run(one).model
        found += matrices(model, one.id)
        similarity[one.id] = head_similarity(model)
    groups = project_matrices(found, method, dims, seed)  # type: ignore[arg-type]
    lines = [f"{len(group['points'])} matrices of shape {tuple(group['shape'])}" for group in groups]
    for name, values in similarity.items():
        known = [value for value in values.values() if value is not None]
        if known:
            lines.append(f"{name}: mean cosine between heads {sum(known) / len(known):.3f}")
    return {"groups": groups, "similarity": similarity, "shown": "\n".join(lines)}


@_command
def chat(
    run: RunName,
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Ask a tuned model; with --json, every token comes with its gates."""
    from hydralora.data.templates import encode_prompt
    from hydralora.generation import Sampling, gated_modules, generate
    from hydralora.runs import RunStore
    from hydralora.serving import load_run

    loaded = load_run(RunStore(workspace).get(run))
    messages = [{"role": "user", "content": prompt}]
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    tokens = []
    for token in generate(loaded.model, loaded.tokenizer, messages, sampling):
        tokens.append(token)
        if not as_json:
            print(token.text, end="", flush=True)
    return {
        "text": "".join(token.text for token in tokens),
        "modules": gated_modules(loaded.model),
        "prompt_tokens": len(encode_prompt(loaded.tokenizer, messages)),
        "tokens": [{"id": token.id, "text": token.text, "gates": token.gates} for token in tokens],
        "adapter_hash": loaded.adapter_hash,
        "steering": None,
        "shown": "",  # it was printed as it came
    }


@_command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the run.")] = Path("demo-report"),
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """The main job on the demo dataset: components, fine-tune, before and after. Minutes on a CPU."""
    from hydralora.experiments.demo import run_demo

    report = run_demo(out.resolve(), _print_event)
    return report | {"shown": _demo_table(report)}


def _demo_table(report: dict[str, Any]) -> str:
    base, tuned = report["base"], report["tuned"]
    lines = [f"{report['k']} components, adjusted Rand index against the tasks {report['ari']:.3f}", ""]
    lines += [f"{'':14}{'loss':>16}{'exact match':>18}", f"{'':14}{'base':>8}{'tuned':>8}{'base':>9}{'tuned':>9}"]
    for name, before in [*base["per_task"].items(), ("all", base)]:
        after = tuned if name == "all" else tuned["per_task"][name]
        lines.append(
            f"{name:14}{before['loss']:8.3f}{after['loss']:8.3f}{before['exact_match']:9.1%}{after['exact_match']:9.1%}"
        )
    heads = range(len(report["component_by_head"]))
    lines += [
        "",
        "mean gate of each head on each component's held-out rows",
        " " * 30 + "".join(f" head{j}" for j in heads),
    ]
    for component, gates in zip(report["components"], report["component_by_head"], strict=True):
        lines.append(f"{component['name'][:28]:30}" + "".join(f"{gate:6.2f}" for gate in gates))
    lines += ["", f"{sum(report['seconds'].values()):.0f} s in all; report, run and adapter: {report['adapter']}"]
    return "\n".join(lines)


def _print_event(event: dict[str, Any]) -> None:
    if "stage" in event:
        _say(f"{event['stage']} ...")
    elif event["kind"] == "train":
        _say(f"step {event['step']:5}  loss {event['loss']:.4f}  {event['tokens_per_second']:.0f} tokens/s")
    elif event["kind"] == "gates":
        _say(f"            gates {' '.join(f'{g:.2f}' for g in event['mean_gate'])}  entropy {event['entropy']:.2f}")
    elif event["kind"] == "eval":
        _say(f"held out ({event['split']}): loss {event['loss']:.4f}, exact match {event['exact_match']:.1%}")
    elif "message" in event:
        _say(event["message"])


if __name__ == "__main__":
    main()

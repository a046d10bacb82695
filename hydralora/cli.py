"""The `hydralora` command."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydralora.console import (
    answering,
    comparison,
    following,
    parts_text,
    print_event,
    progress,
    run_line,
    say,
    scores_text,
)
from hydralora.errors import ConfigError, HydraError, ModelError

if TYPE_CHECKING:
    from hydralora.clustering import Clusters
    from hydralora.data.dataset import Dataset
    from hydralora.data.problems import Problem
    from hydralora.data.statistics import TokenStatistics
    from hydralora.jobs import JobManager
    from hydralora.recipe import ComponentSettings
    from hydralora.runs import Run

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Workspace = Annotated[
    Path | None,
    typer.Option("--workspace", help="Where runs are kept. Default: HYDRALORA_HOME, else your data folder."),
]
SHOWN_PROBLEMS = 3  # of each kind
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or folder.")]


def main() -> None:
    """Entry point: exit 0 ok, 1 a HydraError, 2 wrong usage, 130 interrupted."""
    app()


def _command(function: Callable[..., dict[str, Any]]) -> None:
    app.command(name=function.__name__.rstrip("_"))(answering(function))


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
        say(f"Looking for {name}; the first time it is fetched and converted, which takes up to a minute.")
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
    method: Annotated[str, typer.Option(help="hydralora, lora, lora-split or uniform.")] = "hydralora",
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Count an adapter's parameters, with and without its router. Needs no weights."""
    from peft import LoraConfig, get_peft_model

    from hydralora.models import empty_model
    from hydralora.recipe import WITH_HEADS
    from hydralora.tuner.config import HydraLoraConfig
    from hydralora.tuner.model import count_parameters

    names = [name.strip() for name in targets.split(",") if name.strip()]
    if method in WITH_HEADS:
        own: dict[str, Any] = {"num_heads": heads, "router_input": router} | WITH_HEADS[method]
        config: Any = HydraLoraConfig(r=r, target_modules=names, **own)
    elif method == "lora":
        config = LoraConfig(r=r, target_modules=names)
    else:
        raise ConfigError(f"--method is {method!r}. Choose one of lora, {', '.join(WITH_HEADS)}.")
    empty = empty_model(base)
    try:
        counts = count_parameters(get_peft_model(empty, config, low_cpu_mem_usage=True))
    except HydraError:
        raise
    except ValueError as error:  # PEFT's own, for a plain LoRA
        fix = "Set --r to 1 or more, and --targets to layers of this model, such as q_proj,v_proj."
        raise ConfigError(f"params {base}: {error} {fix}") from error
    text = (
        f"base {counts['base']:,}; adapter (A + heads) {counts['adapter']:,} = {counts['percent']:.4f} %; "
        f"with the router's {counts['router']:,}: {counts['percent_with_router']:.4f} %"
    )
    return counts | {"shown": text}


@_command
def data(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Data files; several are one dataset.")],
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: which column holds what.")] = None,
    save_mapping: Annotated[Path | None, typer.Option(help="Write the mapping here, to be used again.")] = None,
    task_column: Annotated[str | None, typer.Option(help="The column with a row's task.")] = None,
    problems: Annotated[Path | None, typer.Option(help="Write the problems here, as CSV.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model whose tokens are counted. Default: the default.")
    ] = None,
    max_length: Annotated[int, typer.Option(help="Longest row in tokens.")] = 512,
    batch_size: Annotated[int, typer.Option(help="Rows in a batch, for the padding.")] = 8,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Read data files: what is in them, what can't be used and why, and how many tokens they have."""
    from hydralora.data import mapping as mappings
    from hydralora.data.dataset import read_dataset
    from hydralora.data.problems import write_problems
    from hydralora.data.statistics import token_statistics

    with progress("reading") as on_progress:
        given = mappings.load_mapping(mapping) if mapping else None
        found = read_dataset(files, given, task_column, on_progress)
    tokenizer = _tokenizer(model)
    tokens = token_statistics(tokenizer, found.examples, max_length, batch_size) if tokenizer else None
    listed = list(found.problems) + [found.problem(row, flaw) for row, flaw in (tokens.problems if tokens else [])]
    if save_mapping:
        mappings.save_mapping(found.mapping, save_mapping)
    if problems:
        with problems.open("w", encoding="utf-8", newline="") as file:
            write_problems(listed, file)
    return {
        "rows": found.rows,
        "usable": len(found.examples),
        "shape": found.shape,
        "mapping": found.mapping.model_dump(),
        "columns": list(found.columns),
        "encodings": dict(zip(found.files, found.encodings, strict=True)),
        "problems": [asdict(problem) for problem in listed],
        "by_kind": dict(Counter(problem.kind for problem in listed)),
        "tokens": tokens and tokens.describe(),
        "shown": _data_text(found, listed, tokens),
    }


def _tokenizer(model: str | None) -> Any:
    """The tokenizer of a base model; None where none is named and the default one is not on this machine."""
    from hydralora.models import DEFAULT_MODEL, find_model, load_tokenizer

    try:
        return load_tokenizer(find_model(model or DEFAULT_MODEL, download=model is not None))
    except ModelError:
        if model:
            raise
        say("The default base model is not on this machine, so tokens are not counted. Name another with --model.")
        return None


def _data_text(data: "Dataset", problems: list["Problem"], tokens: "TokenStatistics | None") -> str:
    columns = ", ".join(f"{name}: {column}" for name, column in data.mapping.model_dump(exclude_none=True).items())
    lines = [f"{len(data.examples)} of {data.rows} rows can be used", f"read as {data.shape} ({columns})"]
    lines += [f"{name} is not UTF-8; read as {found}" for name, found in zip(data.files, data.encodings, strict=True)
              if found and not found.startswith("utf-8")]  # fmt: skip
    if tokens:
        lines.append(
            f"tokens: {tokens.total} in {tokens.sampled} rows, median {tokens.median:.0f}, longest {tokens.longest}; "
            f"{tokens.answer_share:.0%} are answers; padding {tokens.padding:.0%} (random order "
            f"{tokens.padding_random:.0%})"
        )
    for kind, count in Counter(problem.kind for problem in problems).most_common():
        lines.append(f"{count} x {kind}")
        lines += [f"  {problem.sentence}" for problem in problems if problem.kind == kind][:SHOWN_PROBLEMS]
        if count > SHOWN_PROBLEMS:
            lines.append("  ... --problems FILE.csv writes all of them")
    return "\n".join(lines)


@_command
def clusters(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Data files; several are one dataset.")],
    k: Annotated[int | None, typer.Option(help="Number of components; with it the method is fixed.")] = None,
    method: Annotated[str, typer.Option(help="kmeans (finds the number), dbscan, or fixed (takes --k).")] = "kmeans",
    features: Annotated[
        str, typer.Option(help="tfidf-svd; tfidf (the paper's); model: a base model's states; sentence: embeddings.")
    ] = "tfidf-svd",
    model: Annotated[
        str | None, typer.Option(help="Base model, or sentence-transformers model, of --features.")
    ] = None,
    text: Annotated[str, typer.Option(help="What is clustered: question, or everything.")] = "question",
    language: Annotated[str | None, typer.Option(help="en leaves out English stop words.")] = None,
    trials: Annotated[int, typer.Option(help="Also find the number this often, by several methods.")] = 0,
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: which column holds what.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write rows and labels here: .csv or .parquet.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of k-means, SVD and trials.")] = 0,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Find a dataset's components, and with them the number of heads."""
    from hydralora.clustering import overlap
    from hydralora.clustering.export import write_rows
    from hydralora.components import find_components, number_trials
    from hydralora.data.dataset import read_dataset
    from hydralora.data.mapping import load_mapping
    from hydralora.models import DEFAULT_MODEL

    values: dict[str, Any] = {"features": features, "text": text, "language": language, "seed": seed}
    if model and features == "sentence":
        values["sentence_model"] = model
    settings = _component_settings(method, k, values)
    data = read_dataset(files, load_mapping(mapping) if mapping else None)
    with progress("clustering") as on_progress:
        found = find_components(data.examples, settings, model or DEFAULT_MODEL, on_progress)
    tried: list[tuple[Any, list[int]]] = []
    if trials:
        with progress("trials") as on_progress:
            tried = number_trials(data.examples, settings, found, trials, on_progress)
    labels: list[int | None] = [None] * data.rows
    for example, label in zip(data.examples, found.labels.tolist(), strict=True):
        labels[example.row - 1] = label
    if out:
        write_rows(out, list(data.examples), found)
    agreement = overlap(found.labels, data.tasks) if data.tasks else None
    return {
        "k": found.k,
        "method": "fixed" if k else method,
        "features": features,
        "labels": labels,
        "sizes": found.sizes,
        "noise": found.noise,
        "sse": [list(pair) for pair in found.sse],
        "silhouette": [list(pair) for pair in found.silhouette],
        "components": [asdict(component) for component in found.components],
        "choice": found.choice and asdict(found.choice) | {"grade": found.choice.grade},
        "overlap": agreement and {"ari": agreement.ari, "nmi": agreement.nmi},
        "trials": [[name, numbers] for name, numbers in tried],
        "shown": _clusters_text(found, tried),
    }


def _component_settings(method: str, k: int | None, values: dict[str, Any]) -> "ComponentSettings":
    from hydralora.recipe import parse_components

    if method not in ("kmeans", "dbscan", "fixed"):
        raise ConfigError(f"--method is {method!r}. Choose one of kmeans, dbscan, fixed.")
    if method == "fixed" and k is None:
        raise ConfigError("--method fixed takes the number from --k. Give it.")
    if method == "dbscan" and k is not None:
        raise ConfigError("--method dbscan finds the number itself. Leave out --k, or choose kmeans.")
    return parse_components(
        values | {"k": k, "method": "dbscan" if method == "dbscan" else "kmeans"}, "hydralora clusters"
    )


def _clusters_text(found: "Clusters", tried: list[tuple[str, list[int]]]) -> str:
    lines = [found.choice.sentence if found.choice else f"{found.k} components in {len(found.labels)} rows"]
    lines += [f"{c.size:6} rows  {', '.join(c.terms)}" for c in found.components]
    if found.noise:
        lines.append(f"{found.noise:6} rows  noise, in no component")
    lines += [f"trials, {name}: {', '.join(map(str, numbers))}" for name, numbers in tried]
    return "\n".join(lines)


@_command
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.name=value.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait until the run ends, showing its progress.")] = False,
    executor: Annotated[
        str | None, typer.Option(help="local, or slurm: submit it as a job; the same as --set launch.executor=.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Start a training run in a process of its own. Ctrl-C while following asks it to stop and keep what it learnt; a
    second one ends it at once."""
    from hydralora.jobs import JobManager
    from hydralora.recipe import load_recipe
    from hydralora.runs import RunStore

    jobs = JobManager(RunStore(workspace))
    chosen = [*(set_ or []), *([f"launch.executor={executor}"] if executor else [])]
    run = jobs.start(load_recipe(recipe, chosen))
    begun = f"queued, {jobs.ahead(run)} ahead" if jobs.is_waiting(run) else "started"
    say(f"Run {run.id} {begun}; `hydralora show {run.id}` tells how it is, `hydralora stop {run.id}` ends it.")
    state = _followed(jobs, run) if follow else jobs.refresh(run)
    return {"run": run.id, "folder": str(run.folder), "state": state["state"], "shown": f"{run.id}  {state['state']}"}


@_command
def estimate(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting: section.name=value.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Time, memory and disk that a run will take, by a trial of a few of its steps. Nothing is saved."""
    from hydralora.dry_run import dry_run, estimate_text
    from hydralora.recipe import load_recipe
    from hydralora.runs import RunStore

    with progress("trying") as on_progress:
        found = dry_run(RunStore(workspace).resolved(load_recipe(recipe, set_)), on_progress)
    return found | {"shown": f"{estimate_text(found)}."}


def _followed(jobs: "JobManager", run: "Run", seen: int = 0) -> dict[str, Any]:
    """The state in which a run ends, its events told meanwhile, but for the first `seen`.

    Raises:
        RunError: it failed, or its process died.
    """
    from hydralora.errors import RunError

    try:
        with following(run.state()["max_steps"]) as on_event:
            state = jobs.follow(run, on_event, seen=seen)
    except KeyboardInterrupt:
        jobs.stop(run)
        say("Stopping after this step; Ctrl-C again ends it at once.")
        try:
            state = jobs.follow(run)
        except KeyboardInterrupt:
            jobs.kill(run)
            say(f"Ended. `hydralora resume {run.id}` goes on from its newest checkpoint.")
            raise
    if state["state"] not in ("finished", "stopped"):
        raise RunError(f"Run {run.id} {state['state']}: {state['message']}. Its log is {run.log}.")
    return state


@_command
def runs(as_json: Json = False, workspace: Workspace = None) -> dict[str, Any]:
    """List the runs, newest first."""
    from hydralora.jobs import JobManager
    from hydralora.runs import RunStore

    jobs = JobManager(RunStore(workspace))
    states = [jobs.refresh(run) for run in jobs.store.all()]
    for run, why in jobs.store.damaged().items():
        states.append({"version": 1, "id": run.id, "state": "damaged", "step": None, "max_steps": None, "message": why})
    states.sort(key=lambda state: state["id"], reverse=True)
    lines = [run_line(state) for state in states]
    return {"runs": states, "shown": "\n".join(lines) or "No runs yet. Start one with `hydralora train RECIPE`."}


@_command
def show(run: RunName, as_json: Json = False, workspace: Workspace = None) -> dict[str, Any]:
    """A run's state and results."""
    from hydralora.jobs import JobManager
    from hydralora.runs import RunStore

    store = RunStore(workspace)
    return dict(JobManager(store).refresh(store.get(run)))


@_command
def stop(
    run: RunName,
    measure: Annotated[bool, typer.Option("--measure", help="Measure what it learnt before it ends.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Ask a run to stop after its step; what it learnt is kept."""
    from hydralora.jobs import JobManager
    from hydralora.runs import RunStore

    jobs = JobManager(RunStore(workspace))
    found = jobs.store.get(run)
    jobs.stop(found, measure)
    state = jobs.refresh(found)
    return state | {"run": found.id, "folder": str(found.folder), "shown": f"{found.id}  {state['state']}"}


@_command
def resume(
    run: RunName,
    follow: Annotated[bool, typer.Option(help="Wait until the run ends, showing its progress.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Go on with a run that was stopped, interrupted or failed, from its newest checkpoint."""
    from hydralora.jobs import JobManager
    from hydralora.runs import RunStore

    jobs = JobManager(RunStore(workspace))
    found = jobs.store.get(run)
    step = jobs.resume(found)
    seen = len(found.events())
    say(f"Run {found.id} goes on from step {step}.")
    state = _followed(jobs, found, seen) if follow else jobs.refresh(found)
    told = {"run": found.id, "folder": str(found.folder), "state": state["state"], "step": step}
    return told | {"shown": f"{found.id}  {state['state']}"}


@_command
def compare(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs' ids or folders.")],
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """What was set differently in runs, and what came of each, beside the base model."""
    from hydralora.comparing import compare
    from hydralora.jobs import JobManager
    from hydralora.runs import RunStore

    jobs = JobManager(RunStore(workspace))
    found = [jobs.store.get(name) for name in run]
    compared = compare([(one, jobs.refresh(one)) for one in found])
    return compared | {"shown": comparison(compared)}


@_command
def evaluate(
    run: RunName,
    data: Annotated[list[Path], typer.Option(help="A file of rows with answers; may be repeated.")],
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: which column holds what.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Loss and exact match of a run, and of its base model, on the rows of a file."""
    from hydralora.applying import evaluate_run
    from hydralora.data.mapping import load_mapping
    from hydralora.runs import RunStore

    found = RunStore(workspace).get(run)
    with progress("evaluating") as on_progress:
        scores = evaluate_run(found, data, load_mapping(mapping) if mapping else None, on_progress)
    return scores | {"shown": scores_text(scores)}


@_command
def generate(
    run: RunName,
    file: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files of rows with questions.")],
    out: Annotated[Path, typer.Option(help="Write the answers here, as JSONL.")],
    column: Annotated[
        str | None, typer.Option(help="The column with the questions, where rows have no answers.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: which column holds what.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.", min=1)] = 256,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Answer every row of a file, greedily."""
    from hydralora.applying import answer_file
    from hydralora.data.mapping import load_mapping
    from hydralora.runs import RunStore

    found = RunStore(workspace).get(run)
    with progress("answering") as on_progress:
        given = load_mapping(mapping) if mapping else None
        told = answer_file(found, file, out, column, given, max_new_tokens, on_progress)
    right = "" if told["exact_match"] is None else f", {told['exact_match']:.1%} as the file has them"
    return told | {"path": str(out.resolve()), "shown": f"{told['rows']} answers in {out}{right}"}


@_command
def export(
    run: RunName,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="adapter; lora: a plain LoRA of the heads' mean gates; merged: the base model with that LoRA in it; "
            "official: as the published code reads it.",
        ),
    ] = "adapter",
    out: Annotated[
        Path | None, typer.Option(help="A .zip file, or a new folder. Default: RUN-FORMAT.zip, here.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Write a run's adapter to a file or a folder that can be given to others."""
    from hydralora.runs import RunStore
    from hydralora.transfer import export_run

    found = RunStore(workspace).get(run)
    told = export_run(found, form, out or Path(f"{found.id}-{form}.zip"))
    apart = "" if told["kl"] is None else f"; {told['kl']:.4g} nats a token from the routed model"
    return told | {"shown": f"{told['path']}, {told['bytes'] / 1e6:.1f} MB{apart}"}


@_command
def push(
    run: RunName,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A repository of the Hugging Face Hub.")],
    public: Annotated[bool, typer.Option("--public", help="Of a repository that is made; else it is private.")] = False,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Upload a run's adapter to the Hugging Face Hub, with the token in the environment's HF_TOKEN."""
    from hydralora.runs import RunStore
    from hydralora.transfer import push_run

    address = push_run(RunStore(workspace).get(run), repository, private=not public)
    return {"path": address, "shown": address}


@_command
def import_(
    file: Annotated[Path, typer.Argument(help="A zip file of `hydralora export`.")],
    model: Annotated[str | None, typer.Option(help="The base model, where it was a folder elsewhere.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Make a run of an exported adapter. Nothing in the file is executed."""
    from hydralora.runs import RunStore
    from hydralora.transfer import import_run

    run = import_run(RunStore(workspace), file, model)
    told = {"run": run.id, "state": run.state()["state"], "path": str(run.folder), "bytes": file.stat().st_size}
    return told | {"kl": None, "shown": run_line(run.state())}


@_command
def analyze(
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs' ids or folders.")],
    method: Annotated[str, typer.Option(help="pca, tsne or umap.")] = "pca",
    dims: Annotated[int, typer.Option(help="2 or 3.")] = 2,
    seed: Annotated[int, typer.Option(help="Seed of the projection.")] = 0,
    neighbours: Annotated[
        int | None, typer.Option(help="t-SNE's perplexity, UMAP's n_neighbors. Default: 30 and 15.", min=2)
    ] = None,
    products: Annotated[bool, typer.Option("--products", help="The products of A and heads, not each alone.")] = False,
    colour: Annotated[str, typer.Option(help="Of the picture's points: head, kind, layer, module or run.")] = "head",
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures here; it needs no network.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Project every A and every head to points, and compare the heads. No base model is loaded."""
    from hydralora.analysis import head_similarity, matrices, project_matrices, read_weights
    from hydralora.figures import group_figure, how_to_read, write_page
    from hydralora.runs import RunStore

    store = RunStore(workspace)
    found, similarity = [], {}
    for name in run:
        one = store.get(name)
        weights = read_weights(one.adapter)
        found += matrices(weights, one.id, products=products)
        similarity[one.id] = head_similarity(weights)
    groups = project_matrices(found, method, dims, seed, neighbours)  # type: ignore[arg-type]
    if html:
        pictures = [(group_figure(group, colour), how_to_read([group])) for group in groups]  # type: ignore[arg-type]
        write_page(html, f"A and heads of {', '.join(similarity)}", pictures)
    lines = [f"{len(group['points'])} matrices of shape {tuple(group['shape'])}" for group in groups]
    for name, values in similarity.items():
        known = [value for value in values.values() if value is not None]
        if known:
            lines.append(f"{name}: mean cosine between heads {sum(known) / len(known):.3f}")
    return {"groups": groups, "similarity": similarity, "shown": "\n".join(lines)}


@_command
def breakdown(
    run: RunName,
    steps: Annotated[int, typer.Option(help="Steps of each LoRA.", min=1)] = 40,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Train a LoRA on each of a run's components alone, and measure what sets their A's and B's apart."""
    from hydralora.breakdown import break_down, component_names, start_breakdown
    from hydralora.jobs import JobManager
    from hydralora.runs import RunStore

    jobs = JobManager(RunStore(workspace))
    of = jobs.store.get(run)
    runs = dict(zip(component_names(of), start_breakdown(jobs, of, steps), strict=True))
    for name, one in runs.items():
        if jobs.refresh(one)["state"] != "finished":
            say(f"Run {one.id}, on {name}:")
            _followed(jobs, one)
    found = break_down(runs)
    parts, reading = [part.describe() for part in found.parts], found.reading()
    difference = found.difference()
    return {
        "runs": {name: one.id for name, one in runs.items()},
        "parts": parts,
        "difference": asdict(difference) | {"verdict": difference.verdict} if difference else None,
        "reading": reading,
        "shown": parts_text(parts, reading),
    }


@_command
def chat(
    run: RunName,
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Share of the probability that tokens are drawn from.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    pin: Annotated[int | None, typer.Option(help="Give this head, from 0, the whole weight.")] = None,
    mute: Annotated[list[int] | None, typer.Option(help="Give this head, from 0, none; may be repeated.")] = None,
    uniform: Annotated[bool, typer.Option("--uniform", help="Give all heads the same weight.")] = False,
    top_k: Annotated[int | None, typer.Option(help="Keep each token's largest gates alone.")] = None,
    temperature_router: Annotated[
        float | None, typer.Option(help="Divide the router's logits by this; below 1 sharpens the gates.")
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Steer these blocks alone: 3, or 0-11.")] = None,
    alternatives: Annotated[int, typer.Option(help="How many of the likeliest tokens come with each.", min=0)] = 5,
    save: Annotated[Path | None, typer.Option(help="Save the answer with its gates here, as a trace.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Ask a tuned model, its gates steered or not; with --json, every token comes with its gates."""
    from hydralora.generation import Sampling, Token, gated_modules, generate
    from hydralora.runs import RunStore
    from hydralora.serving import load_run
    from hydralora.steering import block_range, steering_or_none
    from hydralora.traces import make_trace, save_trace

    steering = steering_or_none(
        pin=pin,
        mute=tuple(mute or ()),
        uniform=uniform,
        temperature=temperature_router,
        top_k=top_k,
        layers=block_range(layers) if layers else None,
    )
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    loaded = load_run(RunStore(workspace).get(run))
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    tokens: list[Token] = []
    read: list[Token] = []
    for token in generate(
        loaded.model,
        loaded.tokenizer,
        messages,
        sampling,
        steering=steering,
        alternatives=alternatives,
        on_prompt=read.extend,
    ):
        tokens.append(token)
        if not as_json:
            print(token.text, end="", flush=True)
    about = loaded.files.describe()
    trace = make_trace(
        tokens,
        read,
        gated_modules(loaded.model),
        messages,
        sampling,
        base=about["id"],
        base_hash=about["hash"],
        run=loaded.run.id if loaded.run else None,
        adapter_hash=loaded.adapter_hash,
        steering=steering.describe() if steering else None,
    )
    if save:
        save_trace(trace, save)
    told = trace.model_dump(include={"modules", "tokens", "adapter_hash", "steering"})
    return told | {"text": trace.text, "prompt_tokens": len(read), "shown": ""}  # it was printed as it came


trace_app = typer.Typer(no_args_is_help=True, help="Answers that were saved with their gates.")
app.add_typer(trace_app, name="trace")


@trace_app.command("replay")
@answering
def replay(
    file: Annotated[Path, typer.Argument(help="A trace that a chat saved.")],
    html: Annotated[Path | None, typer.Option(help="Write a page that replays it here; it needs no network.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Show a saved answer, checked field by field. No model is loaded."""
    from hydralora.figures import write_replay
    from hydralora.traces import load_trace

    trace = load_trace(file)
    if html:
        write_replay(html, trace.model_dump_json(), trace.whose)
    return trace.model_dump() | {"shown": trace.text}


@_command
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the run.")] = Path("demo-report"),
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """The main job on the demo dataset: components, fine-tune, before and after. Minutes on a CPU."""
    from hydralora.experiments.demo import demo_table, run_demo

    report = run_demo(out.resolve(), print_event)
    return report | {"shown": demo_table(report)}


@_command
def bench(
    quick: Annotated[bool, typer.Option(help="A cut model and few rounds: shows that it runs, in a minute.")] = False,
    data: Annotated[
        list[Path] | None, typer.Option(help="A dataset for a whole training loop, beside the demo's; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="train_step, memory, decode or throughput alone; may be repeated.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """Speed and memory as ratios to the published loop, PEFT's LoRA and the bare base model. Minutes, on idle cores."""
    from hydralora.bench.report import PARTS, bench_table, run_bench

    def on_round(what: str, done: int, total: int) -> None:
        say(f"{what}, round {done} of {total}")

    report = run_bench(quick, data or [], on_round, only or PARTS)
    return report | {"shown": bench_table(report)}


experiments = typer.Typer(no_args_is_help=True, help="Experiments that anyone can run again.")
app.add_typer(experiments, name="experiment")


@experiments.command("router-init")
@answering
def router_init(
    data: Annotated[Path, typer.Option(help="A data file.")],
    out: Annotated[Path, typer.Option(help="Folder for the report; an unfinished one is gone on with.")] = Path(
        "router-init-report"
    ),
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=1)] = 3,
    steps: Annotated[int, typer.Option(help="Training steps of a run.", min=1)] = 60,
    max_length: Annotated[int, typer.Option(help="Longest row in tokens.")] = 512,
    threads: Annotated[int, typer.Option(help="CPU threads. 0: all but one, or all of two.")] = 0,
    model: Annotated[str, typer.Option(help="The base model; 'default' is the default one.")] = "default",
    only: Annotated[list[str] | None, typer.Option(help="Only this run; may be repeated.")] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> dict[str, Any]:
    """How to start a router: ways to do it from components, the published start, a LoRA of equal size. Hours."""
    from hydralora.experiments.router_init import router_init_table, run_router_init
    from hydralora.models import DEFAULT_MODEL

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
    return report | {"shown": router_init_table(report)}


if __name__ == "__main__":
    main()

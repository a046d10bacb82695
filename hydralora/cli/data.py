"""Commands on data files: checking them, and finding their components."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydralora.cli.options import Json, Workspace, command
from hydralora.cli.output import Output, progress, say
from hydralora.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from hydralora.components import Clusters
    from hydralora.data.dataset import Dataset
    from hydralora.data.problems import Problem
    from hydralora.data.statistics import TokenStatistics
    from hydralora.recipe.settings import ComponentSettings


SHOWN_PROBLEMS = 3  # of each kind


@command
def data(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Data files; several are one dataset.")],
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: which column holds what.")] = None,
    save_mapping: Annotated[Path | None, typer.Option(help="Write the mapping here, for reuse.")] = None,
    task_column: Annotated[str | None, typer.Option(help="The column with a row's task.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="The files' encoding, such as cp1251. Default: detected.")
    ] = None,
    problems: Annotated[Path | None, typer.Option(help="Write the problems here, as CSV.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Base model whose tokens are counted. Default: the default model.")
    ] = None,
    max_length: Annotated[int, typer.Option(help="Longest row in tokens.")] = 512,
    batch_size: Annotated[int, typer.Option(help="Rows in a batch, to compute the padding.")] = 8,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Check data files: their content, the rows that can't be used and why, and their numbers of tokens."""
    from hydralora.data import mapping as mappings
    from hydralora.data.dataset import read_dataset
    from hydralora.data.problems import write_problems
    from hydralora.data.statistics import token_statistics

    with progress("reading") as on_progress:
        columns = mappings.load_mapping(mapping) if mapping else None
        dataset = read_dataset(files, columns, task_column, on_progress, encoding)
    tokenizer = _tokenizer(model)
    tokens = token_statistics(tokenizer, dataset.examples, max_length, batch_size) if tokenizer else None
    listed = list(dataset.problems) + [dataset.problem(row, flaw) for row, flaw in (tokens.problems if tokens else [])]
    if save_mapping:
        mappings.save_mapping(dataset.mapping, save_mapping)
    if problems:
        with problems.open("w", encoding="utf-8", newline="") as file:
            write_problems(listed, file)
    values = {
        "rows": dataset.rows,
        "usable": len(dataset.examples),
        "shape": dataset.shape,
        "mapping": dataset.mapping.describe(),
        "columns": list(dataset.columns),
        "encodings": dict(zip(dataset.files, dataset.encodings, strict=True)),
        "problems": [asdict(problem) for problem in listed],
        "by_kind": dict(Counter(problem.kind for problem in listed)),
        "notes": {kind: asdict(note) for kind, note in dataset.notes.items()},
        "tokens": tokens and tokens.describe(),
    }
    return Output(values, _data_text(dataset, listed, tokens))


def _tokenizer(model: str | None) -> Any:
    """The tokenizer of a base model; None if no model is given and the default one is not on this machine."""
    from hydralora.models.catalogue import DEFAULT_MODEL, find_model
    from hydralora.models.loading import load_tokenizer

    try:
        return load_tokenizer(find_model(model or DEFAULT_MODEL, download=model is not None))
    except ModelError:
        if model:
            raise
        say("The default base model is not on this machine, so tokens are not counted. Choose another with --model.")
        return None


def _data_text(data: "Dataset", problems: list["Problem"], tokens: "TokenStatistics | None") -> str:
    columns = ", ".join(f"{name}: {column}" for name, column in data.mapping.model_dump(exclude_none=True).items())
    lines = [f"{len(data.examples)} of {data.rows} rows can be used", f"read as {data.shape} ({columns})"]
    encodings = zip(data.files, data.encodings, strict=True)
    others = [pair for pair in encodings if pair[1] and not pair[1].startswith("utf-8")]
    lines += [f"{name} is not UTF-8; read as {encoding}" for name, encoding in others]
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
    lines += [f"used, with a note: {kind}: {note.sentence}" for kind, note in data.notes.items()]
    return "\n".join(lines)


@command
def clusters(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Data files; several are one dataset.")],
    k: Annotated[int | None, typer.Option(help="Number of components; sets the method to fixed.")] = None,
    method: Annotated[str, typer.Option(help="kmeans (finds the number), dbscan, or fixed (uses --k).")] = "kmeans",
    features: Annotated[
        str,
        typer.Option(help="tfidf-svd; tfidf (the paper's); model: a base model's hidden states; sentence: embeddings."),
    ] = "tfidf-svd",
    model: Annotated[str | None, typer.Option(help="Base or sentence-transformers model of --features.")] = None,
    text: Annotated[str, typer.Option(help="The text that is clustered: question, or everything.")] = "question",
    language: Annotated[str | None, typer.Option(help="en leaves out English stop words.")] = None,
    trials: Annotated[
        int, typer.Option(help="Number of trials that also find the number of components, by several methods.")
    ] = 0,
    mapping: Annotated[Path | None, typer.Option(help="A mapping file: which column holds what.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write rows and labels here: .csv or .parquet.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of k-means, SVD and trials.")] = 0,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Find a dataset's components, and with them the number of heads."""
    from hydralora.components import overlap
    from hydralora.components.export import write_rows
    from hydralora.components.of_recipe import find_components, number_trials
    from hydralora.data.dataset import read_dataset
    from hydralora.data.mapping import load_mapping
    from hydralora.models.catalogue import DEFAULT_MODEL

    values: dict[str, Any] = {"features": features, "text": text, "language": language, "seed": seed}
    if model and features == "sentence":
        values["sentence_model"] = model
    settings = _component_settings(method, k, values)
    data = read_dataset(files, load_mapping(mapping) if mapping else None)
    with progress("clustering") as on_progress:
        result = find_components(data.examples, settings, model or DEFAULT_MODEL, on_progress)
    tried: list[tuple[Any, list[int]]] = []
    if trials:
        with progress("trials") as on_progress:
            tried = number_trials(data.examples, settings, result, trials, on_progress)
    if out:
        write_rows(out, list(data.examples), result)
    agreement = overlap(result.labels, data.tasks) if data.tasks else None
    values = {
        "k": result.k,
        "method": "fixed" if k else method,
        "features": features,
        "labels": _labels_by_row(data, result),
        "sizes": result.sizes,
        "noise": result.noise,
        "sse": [list(pair) for pair in result.sse],
        "silhouette": [list(pair) for pair in result.silhouette],
        "components": [asdict(component) for component in result.components],
        "choice": result.choice and asdict(result.choice) | {"grade": result.choice.grade},
        "overlap": agreement and {"ari": agreement.ari, "nmi": agreement.nmi},
        "trials": [[name, numbers] for name, numbers in tried],
        "scripts": result.scripts,
        "note": result.note,
    }
    return Output(values, _clusters_text(result, tried))


def _labels_by_row(data: "Dataset", result: "Clusters") -> list[int | None]:
    """The component of each row of the files; None where it can't be used."""
    labels: list[int | None] = [None] * data.rows
    for example, label in zip(data.examples, result.labels.tolist(), strict=True):
        labels[example.row - 1] = label
    return labels


def _component_settings(method: str, k: int | None, values: dict[str, Any]) -> "ComponentSettings":
    from hydralora.recipe.reading import parse_components

    if method not in ("kmeans", "dbscan", "fixed"):
        raise ConfigError(f"--method is {method!r}. Choose one of kmeans, dbscan, fixed.")
    if method == "fixed" and k is None:
        raise ConfigError("--method fixed needs the number of components. Give it with --k.")
    if method == "dbscan" and k is not None:
        raise ConfigError("--method dbscan finds the number itself. Leave out --k, or choose kmeans.")
    return parse_components(
        values | {"k": k, "method": "dbscan" if method == "dbscan" else "kmeans"}, "hydralora clusters"
    )


def _clusters_text(result: "Clusters", tried: list[tuple[str, list[int]]]) -> str:
    lines = [result.choice.sentence if result.choice else f"{result.k} components in {len(result.labels)} rows"]
    lines += [result.note] if result.note else []
    lines += [f"{c.size:6} rows  {', '.join(c.terms)}" for c in result.components]
    if result.noise:
        lines.append(f"{result.noise:6} rows  noise, in no component")
    lines += [f"trials, {name}: {', '.join(map(str, numbers))}" for name, numbers in tried]
    return "\n".join(lines)

"""Commands on base models."""

from dataclasses import asdict
from typing import Annotated

import typer

from hydralora.cli.options import Json, Workspace, app, command
from hydralora.cli.output import Output, answering, say
from hydralora.errors import ConfigError
from hydralora.recipe.methods import METHODS

models_app = typer.Typer(invoke_without_command=True, help="List the base models offered by name, or check one.")
app.add_typer(models_app, name="models")


@models_app.callback()
def models(
    context: typer.Context,
    fetch: Annotated[
        str | None, typer.Option(help="Download this base model first; 'default' is the default one.")
    ] = None,
    as_json: Json = False,
    workspace: Workspace = None,
) -> None:
    """List the base models offered by name, and whether they are downloaded; or check one."""
    if context.invoked_subcommand is None:
        answering(_list_models)(fetch=fetch, as_json=as_json)


def _list_models(fetch: str | None, as_json: bool) -> Output:
    from hydralora.models import catalogue as base_models

    if fetch:
        name = base_models.DEFAULT_MODEL if fetch == "default" else fetch
        say(f"Looking for {name}; the first time, downloading and converting it takes up to a minute.")
        base_models.find_model(name)
    rows = base_models.catalogue()
    lines = [
        f"{row.id:40} {row.parameters / 1e6:6.0f}M  {row.licence:11} "
        f"{'ready, from ' + row.source if row.ready else 'downloaded on first use'}"
        for row in rows
    ]
    return Output({"models": [asdict(row) for row in rows]}, "\n".join(lines))


@models_app.command("check")
@answering
def check(
    base: Annotated[str, typer.Argument(help="A model's id, or its folder.")],
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Check a base model's chat template: what is taught, what is awaited, and what the model has never learnt."""
    from hydralora.data.template_checks import check_base
    from hydralora.models.catalogue import find_model
    from hydralora.models.loading import load_tokenizer

    files = find_model(base)
    checks = check_base(files, load_tokenizer(files))
    lines = [f"{each.state:8}{each.name:18}{each.found} {each.fix}".rstrip() for each in checks]
    return Output({"checks": [asdict(each) for each in checks]}, "\n".join(lines))


@command
def params(
    base: Annotated[str, typer.Argument(help="A model's id, its folder, or a folder with only its config.json.")],
    r: Annotated[int, typer.Option("--r", help="Rank.")] = 8,
    heads: Annotated[int, typer.Option(help="Number of heads.")] = 3,
    targets: Annotated[
        str | None, typer.Option(help="Layers to adapt, separated by commas. Default: the method's own.")
    ] = None,
    router: Annotated[str, typer.Option(help="The router's input: latent or hidden.")] = "latent",
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "hydralora",
    tokens: Annotated[int, typer.Option(help="Virtual tokens, with prompt, P- or prefix tuning.")] = 20,
    as_json: Json = False,
    workspace: Workspace = None,
) -> Output:
    """Count what a method trains, with and without a router. Needs no weights."""
    from hydralora.recipe.reading import parse_recipe
    from hydralora.training.sizes import adapter_size

    names = [name.strip() for name in (targets or "").split(",") if name.strip()]
    if targets is not None and not names:
        raise ConfigError("--targets names no layer. Give --targets layers of this model, such as q_proj,v_proj.")
    tuner = {
        "r": r,
        "num_heads": heads,
        "router_input": router,
        "router_init": "random",
        "target_modules": names or None,
        "virtual_tokens": tokens,
    }
    values = {"model": base, "method": method, "data": {"train": "none"}, "tuner": tuner}
    counts = adapter_size(parse_recipe(values, f"params {base}"), heads).counts
    text = (
        f"base {counts.base:,}; trained, without a router, {counts.adapter:,} = {counts.percent:.4f} %; "
        f"with the router's {counts.router:,}: {counts.percent_with_router:.4f} %"
    )
    return Output(asdict(counts), text)

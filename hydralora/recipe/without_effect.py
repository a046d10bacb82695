"""Settings that a recipe gives and nothing reads, because another setting excludes them."""

from collections.abc import Callable, Iterator

from hydralora.recipe.settings import Recipe, default_value

OF_HEADS = (
    "tuner.num_heads",
    "tuner.router_input",
    "tuner.router_init",
    "tuner.router_entropy",
    "tuner.router_bias",
    "tuner.router",
    "tuner.router_norm",
    "tuner.router_scope",
    "tuner.train_router",
    "tuner.top_k",
    "tuner.balance_weight",
    "tuner.gate_information",
    "tuner.cores",
    "tuner.head_init",
    "tuner.head_dropout",
)
OF_A_ROUTER = OF_HEADS[1 : OF_HEADS.index("tuner.cores")]
OF_A_NEW_ADAPTER = (
    *OF_HEADS[1:],
    "tuner.target_modules",
    "tuner.exclude_modules",
    "tuner.layers_to_transform",
    "tuner.modules_to_save",
)

# When a recipe is so, these settings have no effect.
EXCLUDED: tuple[tuple[Callable[[Recipe], bool], tuple[str, ...], str], ...] = (
    (lambda recipe: not recipe.has_heads, OF_HEADS, "method"),
    (lambda recipe: recipe.has_heads and not recipe.has_router, OF_A_ROUTER, "method"),
    (lambda recipe: not recipe.heads_are_components, ("components.labels",), "tuner.router_init"),
    (lambda recipe: bool(recipe.start_from), OF_A_NEW_ADAPTER, "start_from"),
    (lambda recipe: not recipe.starts_from_components, ("tuner.router_entropy",), "tuner.router_init"),
    (lambda recipe: bool(recipe.data.eval), ("data.eval_fraction", "data.stratify"), "data.eval"),
    (lambda recipe: recipe.components.features != "sentence", ("components.sentence_model",), "components.features"),
    (lambda recipe: recipe.components.method == "dbscan", ("components.k",), "components.method"),
    (lambda recipe: recipe.launch.executor == "local", ("launch.slurm",), "launch.executor"),
    (lambda recipe: not recipe.launch.fsdp, ("launch.fsdp_config",), "launch.fsdp"),
)


def without_effect(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Settings that differ from their default and have no effect, each with the setting that excludes it."""
    values, seen = recipe.settings(), set[str]()
    for applies, names, excluding in EXCLUDED:
        for name in names if applies(recipe) else ():
            if name not in seen and values[name] != default_value(name):
                seen.add(name)
                yield name, excluding

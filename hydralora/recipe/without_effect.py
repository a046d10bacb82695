"""Settings that a recipe gives and nothing reads, because another setting excludes them."""

from collections.abc import Callable, Iterator

from hydralora.recipe.methods import HEADS, LAYERS, LORA
from hydralora.recipe.settings import Recipe, default_value
from hydralora.recipe.tuner_settings import TunerSettings

ONLY_NEW = (HEADS - LORA - {"num_heads"}) | LAYERS | {"layers_to_transform"}
OF_A_NEW_ADAPTER = tuple(f"tuner.{name}" for name in TunerSettings.model_fields if name in ONLY_NEW)

# When a recipe is so, these settings have no effect.
EXCLUDED: tuple[tuple[Callable[[Recipe], bool], tuple[str, ...], str], ...] = (
    (lambda recipe: not recipe.tuning.has_matrices, ("training.snapshots",), "method"),
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
    unread = tuple(f"tuner.{name}" for name in TunerSettings.model_fields if name not in recipe.tuning.reads)
    excluded = [(names, excluding) for applies, names, excluding in EXCLUDED if applies(recipe)]
    for names, excluding in [(unread, "method"), *excluded]:
        for name in names:
            if name not in seen and values[name] != default_value(name):
                seen.add(name)
                yield name, excluding

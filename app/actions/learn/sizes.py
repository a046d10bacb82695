"""The size of an adapter by its rank and number of heads, beside a plain LoRA of equal size."""

from typing import TypedDict

from hydralora.data.demo import demo_file
from hydralora.models.catalogue import DEFAULT_MODEL
from hydralora.recipe.methods import METHOD_NAMES
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.training.sizes import AdapterSize, adapter_size, equal_rank

from ...services import Services
from ...services.cache import ResultKind
from ..recipes import model_name

SIZE = ResultKind[AdapterSize]("adapter size", keep=512)
HEADS = 4  # of a run that leaves their number to the components and has not found them yet
MOST_R, MOST_HEADS = 64, 16


class Adapter(TypedDict):
    """An adapter: its name, its parts by name in parameters, and its size; memory as text."""

    name: str
    parts: list[tuple[str, int]]
    total: int
    percent: float
    weights: str
    optimiser: str


class Sizes(TypedDict):
    """A HydraLoRA and a plain LoRA of equal size, on the same layers of a base model."""

    base: str
    adapters: list[Adapter]


def start(services: Services, run_id: str | None) -> tuple[int, int]:
    """Rank and number of heads of a run, else of the defaults."""
    recipe, k = _recipe(services, run_id)
    return min(recipe.tuner.r, MOST_R), min(recipe.tuner.num_heads or k, MOST_HEADS)


def sizes(services: Services, run_id: str | None, r: int, heads: int) -> Sizes:
    """The sizes on the base model and the layers of a run, else of the defaults.

    Raises:
        HydraError: the base model's config is missing.
    """
    recipe, _ = _recipe(services, run_id)
    if not (recipe.has_heads and recipe.tuning.has_matrices):
        recipe = recipe.model_copy(update={"method": "hydralora"})
    hydra = _size(services, _with(recipe, recipe.method, r, heads))
    per_rank = _size(services, _with(recipe, "lora", 1, heads)).counts.total
    rank = equal_rank(hydra.counts.total, per_rank)
    lora = _size(services, _with(recipe, "lora", rank, heads))
    count = f"{heads} head{'s' if heads > 1 else ''}"
    router = [("router", hydra.counts.router)] if hydra.counts.router else []
    return {
        "base": f"{model_name(recipe.model)}, {hydra.counts.base:,} parameters",
        "adapters": [
            _adapter(
                f"{METHOD_NAMES[recipe.method]}, rank {r}, {count}",
                [("A", hydra.a), (f"B, {count}", hydra.heads), *router],
                hydra,
            ),
            _adapter(f"LoRA of at least that size, rank {rank}", [("A", lora.a), ("B", lora.heads)], lora),
        ],
    }


def _recipe(services: Services, run_id: str | None) -> tuple[Recipe, int]:
    """A run's recipe and the number of its components; without a run the defaults."""
    if run_id:
        run = services.run(run_id)
        return run.recipe(), run.state().k or HEADS
    return parse_recipe({"model": DEFAULT_MODEL, "data": {"train": str(demo_file("train"))}}, "Defaults"), HEADS


def _with(recipe: Recipe, method: str, r: int, heads: int) -> Recipe:
    tuner = recipe.tuner.model_copy(update={"r": r, "num_heads": heads, "top_k": None})
    return recipe.model_copy(update={"method": method, "tuner": tuner})


def _size(services: Services, recipe: Recipe) -> AdapterSize:
    def compute() -> AdapterSize:
        with services.building_models():
            return adapter_size(recipe, HEADS)

    key = recipe.model, recipe.method, recipe.tuner.model_dump_json()
    return services.cache.remember(SIZE, *key, compute=compute)


def _adapter(name: str, parts: list[tuple[str, int]], size: AdapterSize) -> Adapter:
    return {
        "name": name,
        "parts": parts,
        "total": size.counts.total,
        "percent": size.counts.percent_with_router,
        "weights": _memory(size.weight_bytes),
        "optimiser": _memory(size.optimiser_bytes),
    }


def _memory(size: int) -> str:
    """Bytes for people, in units of 1,000 as for files."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"

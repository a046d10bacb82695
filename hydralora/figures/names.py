"""Short names of adapted modules, and modules as a grid of layers."""

from collections.abc import Mapping, Sequence

from hydralora.figures.base import escaped
from hydralora.figures.palette import head_colour, head_name
from hydralora.tuner.model import block_index


def module_name(module: str) -> str:
    """A module's kind and layer, such as "o_proj, layer 3"; without a layer, its full name."""
    layer = block_index(module)
    return module if layer is None else f"{module.rpartition('.')[2]}, layer {layer}"


def module_names(modules: Sequence[str]) -> dict[str, str]:
    """The short name of each module, in their order; where several have the same, their full names."""
    names = [module_name(module) for module in modules]
    return {module: name if names.count(name) == 1 else module for module, name in zip(modules, names, strict=True)}


def layer_grid(
    cells: Mapping[tuple[str, int], float | None], heads: int
) -> tuple[list[str], list[str], list[list[float | None]]]:
    """Values by module and head as a grid: a column for each layer, a row for each head and kind of module.

    Args:
        cells: values by (module, head); absent ones are empty.

    Returns:
        The layers, the rows' labels with the heads' colours, and the values, a list for each row.
    """
    places = {module: (_kind(module), block_index(module)) for module, _ in cells}
    values = {(*places[module], head): value for (module, head), value in cells.items()}
    kinds = list(dict.fromkeys(kind for kind, _ in places.values()))
    layers = list(dict.fromkeys(layer for _, layer in places.values()))
    short = [kind.rpartition(".")[2] for kind in kinds]
    names = [name if short.count(name) == 1 else kind for name, kind in zip(short, kinds, strict=True)]
    rows = [[values.get((kind, layer, head)) for layer in layers] for head in range(heads) for kind in kinds]
    labels = [
        f"<span style='color:{head_colour(head)}'>■</span> {head_name(head)}, {escaped(name)}"
        for head in range(heads)
        for name in names
    ]
    return [str(layer) for layer in layers], labels, rows


def _kind(module: str) -> str:
    """A module's name without its layer: "model.layers.*.self_attn.o_proj"."""
    layer = block_index(module)
    parts = module.split(".")
    return module if layer is None else ".".join("*" if part == str(layer) else part for part in parts)

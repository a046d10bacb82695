"""A batch whose rows go through different adapters, as PEFT's `adapter_names` asks for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.structure import encoder_of, model_body, token_shape

BASE = "__base__"  # PEFT's name for rows without an adapter


@contextmanager
def rows_by_adapter(model: Any, names: Sequence[str], arguments: Mapping[str, Any]) -> Iterator[None]:
    """Inside the block, each row of the model's input goes through the adapter of its name.

    Args:
        model: the model with the adapted layers.
        names: an adapter for each row; "__base__" for none.
        arguments: those of `generate` or `forward`; generation makes copies of a row for beams and for several answers.

    Raises:
        ConfigError: the model is in training mode or lacks an adapter; in a forward pass, another number of rows.
    """
    _check(model, names)
    copied = [name for name in names for _ in range(_copies(arguments))]
    encoder = encoder_of(model)
    of_encoder = set() if encoder is None else set(encoder.modules())
    handles = [model_body(model).register_forward_pre_hook(partial(_check_rows, names=copied), with_kwargs=True)]
    for module in model.modules():
        if isinstance(module, (HydraLoraLayer, AuxiliaryTrainingWrapper)):
            of_rows = partial(_pass_names, names=list(names) if module in of_encoder else copied)
            handles.append(module.register_forward_pre_hook(of_rows, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(model: nn.Module, names: Sequence[str]) -> None:
    if model.training:
        raise ConfigError("adapter_names: the model is in training mode, where one adapter learns. Call model.eval().")
    known = {name for layer in model.modules() if isinstance(layer, HydraLoraLayer) for name in layer.adapters}
    unknown = sorted(set(names) - known - {BASE})
    if unknown:
        raise ConfigError(
            f"adapter_names: the model has no adapter {', '.join(map(repr, unknown))}. Its adapters are "
            f"{', '.join(sorted(known))}; {BASE!r} stands for none."
        )


def _check_rows(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    shape = token_shape(args, kwargs)
    if shape is not None and shape[0] != len(names):
        raise ConfigError(
            f"adapter_names has {len(names)} names, but the batch has {shape[0]} rows. Give one name for each row, "
            f"{BASE!r} for none."
        )
    return args, kwargs


def _pass_names(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, kwargs | {"adapter_names": names}


def _copies(arguments: Mapping[str, Any]) -> int:
    """How many rows generation makes of each."""
    config = arguments.get("generation_config")
    sources = [arguments, {} if config is None else config.to_dict()]
    return max(source.get(name) or 1 for source in sources for name in ("num_beams", "num_return_sequences"))

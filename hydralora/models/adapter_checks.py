"""Whether a saved adapter's weights are those that its config describes: names, shapes, dtypes, finite values.

PEFT itself loads what fits and leaves the rest at its first values, so that a model would answer as if it were trained.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModelForCausalLM, PeftType, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from hydralora.errors import ModelError, first_line, found, one_line
from hydralora.files import ADAPTER_CONFIG
from hydralora.models.loading import empty_model

DTYPES = ("F32", "F16", "BF16")  # as safetensors names them
PATTERNS = (  # settings that PEFT reads as regular expressions, some of which take for ever
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "feedforward_modules",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "target_parameters",
)
PLAIN_NAME = re.compile(r"[\w.-]{1,200}")
Shapes = dict[str, tuple[int, ...]]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter's file, on the CPU, in their own dtypes.

    Raises:
        ModelError: it can't be read, or holds a value that is not a finite floating-point number.
    """
    tensors: dict[str, torch.Tensor] = {}
    try:
        with safe_open(path, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118
                if (dtype := weights.get_slice(key).get_dtype()) not in DTYPES:
                    raise ModelError(
                        f"{path}: {found(key)} is of dtype {dtype}. An adapter's weights are {', '.join(DTYPES)}. "
                        "Save the adapter again."
                    )
                tensors[key] = weights.get_tensor(key)
                if not tensors[key].isfinite().all():
                    raise ModelError(
                        f"{path}: {found(key)} holds values that are not finite (NaN or infinite), so nothing can be "
                        "computed with it. Train again, with a lower learning rate."
                    )
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: the adapter's weights can't be read. {one_line(error)}") from error
    return tensors


def check_adapter(adapter: Path, weights: str, model: str | Path) -> dict[str, torch.Tensor]:
    """Read the file `weights` of a saved adapter, and check it without its base model's weights; returns its tensors.

    Args:
        model: the base model, of which the config is read.

    Raises:
        ModelError: the file is not the one that the adapter's config and this base model require.
    """
    path = adapter / weights
    tensors = read_tensors(path)
    actual = {key: tuple(value.shape) for key, value in tensors.items()}
    try:
        expected = expected_shapes(PeftConfig.from_pretrained(str(adapter)), model)
    except ModelError:
        raise
    except Exception as error:  # PEFT and torch raise many kinds for a config that fits no model
        raise ModelError(f"{adapter}: {ADAPTER_CONFIG} doesn't fit {model}. {first_line(error)}") from error
    if wrong := _difference(actual, expected):
        raise ModelError(
            f"{path}: it is not the adapter that {ADAPTER_CONFIG} describes on {model}: {wrong}. Copy both files "
            "again, or choose the base model that it was trained on."
        )
    return tensors


def expected_shapes(config: Any, model: str | Path) -> Shapes:
    """The shape of each weight that an adapter of this config has on this base model."""
    config.inference_mode = True  # so that nothing is computed from the base model's weights
    config.base_model_name_or_path = None  # PEFT would look on the Hub for what it names
    base = empty_model(str(model))
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted: Any = PeftModelForCausalLM(base, config)
        if config.peft_type == PeftType.ADALORA and config.rank_pattern:
            pattern = {name: torch.tensor(kept, device="cpu") for name, kept in config.rank_pattern.items()}
            adapted.base_model.resize_modules_by_rank_pattern(pattern, adapted.active_adapter)
        return {key: tuple(value.shape) for key, value in get_peft_model_state_dict(adapted).items()}


def pattern_setting(config: Mapping[str, object]) -> str:
    """The first setting of a PEFT config that is a regular expression and no plain names; "" if there is none."""
    for name in PATTERNS:
        value = config.get(name) or []
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | dict | str) or not all(
            isinstance(one, str) and PLAIN_NAME.fullmatch(one) for one in names
        ):
            return name
    return ""


def _difference(actual: Shapes, expected: Shapes) -> str:
    """How the weights differ from those expected, in a phrase; "" if they are the same."""
    missing, other = sorted(expected.keys() - actual.keys()), sorted(actual.keys() - expected.keys())
    if missing:
        return f"{len(missing)} of {len(expected)} weights are missing, such as {found(missing[0])}"
    if other:
        return f"{len(other)} weights belong to no layer of it, such as {found(other[0])}"
    for name in sorted(expected):
        if actual[name] != expected[name]:
            return f"{found(name)} has the shape {actual[name]} where {expected[name]} is expected"
    return ""

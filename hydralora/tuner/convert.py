"""Published checkpoints (github.com/Clin0212/HydraLoRA) into this tuner."""

import json
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn

from hydralora.errors import ModelError
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.model import active_adapter, active_router, hydra_layers

PREFIX = "base_model.model."


def load_official(model: nn.Module, folder: str | Path) -> PeftModel:
    """Put the published-format adapter in `folder` on `model`.

    The folder holds adapter_config.json with `lora_nums`, and adapter_model.safetensors or adapter_model.bin (read
    with weights_only, so nothing in it can run).

    Raises:
        ModelError: a file or a weight is missing, of another shape, or the folder isn't in that format.
    """
    folder = Path(folder)
    settings = _read_settings(folder)
    weights = _read_weights(folder)
    peft_model = get_peft_model(
        model,
        HydraLoraConfig(
            r=settings["r"],
            num_heads=settings["lora_nums"],
            lora_alpha=settings["lora_alpha"],
            lora_dropout=settings.get("lora_dropout", 0.0),
            target_modules=settings["target_modules"],
            router_input="hidden",
            task_type=settings.get("task_type"),
            inference_mode=True,
        ),
    )
    for name, layer in hydra_layers(peft_model).items():
        adapter = active_adapter(layer)
        _assign(layer.hydra_A[adapter].get_parameter("weight"), _take(weights, f"{name}.lora_A.weight"), name)
        for i, head in enumerate(layer.hydra_B[adapter]):  # (r, out) each
            _assign(head, _take(weights, f"{name}.lora_B{i}.weight").T, name)
        _assign(active_router(layer).get_parameter("weight"), _take(weights, f"{name}.lora_route.weight"), name)
    if weights:
        raise ModelError(f"{folder}: {len(weights)} weights fit no layer of the base model, such as {min(weights)!r}.")
    return peft_model.eval()


def _read_settings(folder: Path) -> dict:
    path = folder / "adapter_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON ({error}). Give the folder of a published adapter.") from error
    wanted = ("r", "lora_nums", "lora_alpha", "target_modules")
    missing = [key for key in wanted if not isinstance(settings, dict) or key not in settings]
    if missing:
        raise ModelError(f"{path}: no {', '.join(missing)}. It is not an adapter of the published HydraLoRA code.")
    return settings


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    safe, pickled = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    try:
        weights = load_file(safe) if safe.exists() else torch.load(pickled, map_location="cpu", weights_only=True)
        return {key.removeprefix(PREFIX): value.detach() for key, value in weights.items()}
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        path = safe if safe.exists() else pickled
        raise ModelError(f"{path}: can't be read as weights ({type(error).__name__}). Copy the file again.") from error


def _take(weights: dict[str, torch.Tensor], key: str) -> torch.Tensor:
    if key not in weights:
        raise ModelError(f"The adapter holds no {PREFIX}{key}, which its base model and config ask for.")
    return weights.pop(key)


def _assign(parameter: torch.Tensor, value: torch.Tensor, name: str) -> None:
    if parameter.shape != value.shape:
        raise ModelError(
            f"Layer {name}: the adapter's weight is {tuple(value.shape)}, the base model wants "
            f"{tuple(parameter.shape)}. It was trained on another base model."
        )
    with torch.no_grad():
        parameter.copy_(value)

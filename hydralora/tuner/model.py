"""HydraLoRA as a PEFT tuner: which layers are replaced, and how PEFT finds the method by name."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.mixed_batch import rows_by_adapter
from hydralora.tuner.router import Router
from hydralora.tuner.rows import knows_rows, pass_rows, prompts_of, reads_rows
from hydralora.tuner.structure import token_shape
from hydralora.tuner.targets import ADAPTABLE, default_targets, is_expert, nothing_to_adapt, refuse_experts

PREFIX = "base_model.model."  # of a PeftModel's names, and of a saved adapter's


class HydraLoraModel(BaseTuner):
    """The tuner that `peft.get_peft_model` makes from a `HydraLoraConfig`."""

    prefix: str = "hydra_"
    tuner_layer_cls = HydraLoraLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # default_targets inspects the model instead

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, torch.Tensor] | None = None,
    ) -> None:
        config = cast(HydraLoraConfig, self.peft_config[adapter_name])
        if config.target_modules is None:
            config.target_modules = set(default_targets(model))
        refuse_experts(model, config.target_modules)
        if state_dict is None:
            names = ("target_modules", "exclude_modules", "layers_to_transform")
            values = {name: getattr(config, name) for name in names}
            chosen = ", ".join(f"{k}={sorted(v) if isinstance(v, set) else v!r}" for k, v in values.items())
        else:  # a saved adapter's names begin as a PeftModel's do
            state_dict = {key.removeprefix(PREFIX): value for key, value in state_dict.items()}
            chosen = f"a state dict of {len(state_dict)} keys, such as {min(state_dict, default='')!r}"
        try:
            super().inject_adapter(model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage, state_dict)
        except ConfigError:
            raise
        except ValueError as error:
            raise nothing_to_adapt(model, chosen) from error

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        config = cast(HydraLoraConfig, peft_config)
        if is_expert(current_key):
            raise ConfigError(
                f"Layer {current_key!r} is an expert, which gets only the tokens routed to it. HydraLoRA doesn't "
                "adapt experts; name them in exclude_modules, or choose other target_modules."
            )
        if isinstance(target, HydraLoraLayer):
            target.update_layer(adapter_name, config, current_key)
            return
        if not isinstance(target, ADAPTABLE):
            raise ConfigError(
                f"Layer {current_key!r} is a {type(target).__name__}. HydraLoRA adapts Linear and Conv1D layers; "
                "remove it from target_modules."
            )
        new_module = HydraLoraLayer(target, adapter_name, config, current_key)
        if adapter_name not in self.active_adapters:
            new_module.requires_grad_(False)
        self._replace_module(parent, target_name, new_module, target)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self._whole_rows(args, kwargs):
            return super().forward(*args, **kwargs)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """PEFT enters this around `forward` and `generate`, with their arguments."""
        names = kwargs.get("adapter_names")
        if names is None:
            with self._whole_rows(args, kwargs):
                yield
            return
        with rows_by_adapter(self.model, list(names), kwargs):
            yield

    def _whole_rows(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AbstractContextManager[None]:
        """For routers that read whole rows: the prompts of these arguments' rows, what comes before a label.

        Raises:
            ConfigError: the rows' beginnings are in a cache, so their prompts can't be known.
        """
        shape = token_shape(args, kwargs) if reads_rows(self) else None
        if shape is None or knows_rows(self.model):
            return nullcontext()
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length():
            raise ConfigError(
                "The router reads whole rows, but their beginnings are in a cache. Wrap the passes of these rows in "
                "hydralora.tuner.rows.pass_rows, or call generate."
            )
        mask, labels = kwargs.get("attention_mask"), kwargs.get("labels")
        mask = torch.ones(shape) if mask is None else mask
        return pass_rows(self.model, mask.bool() if labels is None else prompts_of(mask, labels))

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """
        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "add_weighted_adapter: the routers of two HydraLoRA adapters can't be joined to one. Activate both with "
            "model.base_model.set_adapter([...]), which adds their outputs; each layer's set_scale(adapter, scale) "
            "weighs them."
        )


def hydra_layers(model: nn.Module) -> dict[str, HydraLoraLayer]:
    """The adapted layers by name, in the model's order; names don't carry PEFT's own prefix."""
    return {
        name.removeprefix(PREFIX): module
        for name, module in model.named_modules()
        if isinstance(module, HydraLoraLayer)
    }


def block_index(name: str) -> int | None:
    """The block's index in a module's name: 7 for model.layers.7.mlp.up_proj."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def active_adapter(layer: HydraLoraLayer) -> str:
    """The adapter whose gates and heads are read.

    Raises:
        ConfigError: none, or several, of the layer's adapters are active.
    """
    names = [name for name in layer.active_adapters if name in layer.adapters]
    if len(names) != 1:
        raise ConfigError(f"{len(names)} HydraLoRA adapters are active: {names}. Activate one with set_adapter.")
    return names[0]


def active_router(layer: HydraLoraLayer) -> Router:
    """The router of the active adapter.

    Raises:
        ConfigError: none, or several, of the layer's adapters are active.
    """
    return cast(Router, layer.hydra_router[active_adapter(layer)])


def head_matrices(layer: HydraLoraLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """A as (1, r, in), or each head's own as (N, r, in), and the heads as (N, out, r), of the active adapter.

    Where heads share one B, head i is its product with core i.

    Raises:
        ConfigError: heads are vectors, which have no A.
    """
    name = active_adapter(layer)
    if layer.adapters[name].vectors:
        raise ConfigError("Heads that are vectors (vectors=True) have no A and no B. Choose an adapter with matrices.")
    a = layer.hydra_A[name].get_parameter("weight").detach().unflatten(0, (-1, layer.adapters[name].r))
    heads = layer.hydra_B[name].detach()  # (N, r, out), or (1, r, out)
    if name in layer.hydra_core:
        heads = layer.hydra_core[name].get_parameter("weight").detach() @ heads
    return a, heads.transpose(1, 2)


def scale_factor(layer: HydraLoraLayer) -> float:
    """The active adapter's factor over the configured one; 1 unless `set_scale` or PEFT changed it."""
    name = active_adapter(layer)
    return layer.scaling[name] / layer.adapters[name].scaling


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model that is trained.

    Attributes:
        base: of the base model, which is frozen unless all of it is trained.
        adapter: that are trained but for the router, such as A and the heads, `percent` of the base's; `router`, of it.
        total: all that are trained, `percent_with_router` of the base's.
    """

    base: int
    adapter: int
    router: int
    total: int
    percent: float
    percent_with_router: float


def count_parameters(model: Any) -> ParameterCounts:
    """Parameters of a PEFT model with one active adapter, or of a model that is trained as a whole."""
    routers = [parameter for layer in hydra_layers(model).values() for parameter in layer.hydra_router.parameters()]
    router = sum(parameter.numel() for parameter in routers if parameter.requires_grad)
    everything = sum(_numbers(parameter) for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    base, adapter = everything - trainable or everything, trainable - router
    percent, with_router = 100 * adapter / base, 100 * trainable / base
    return ParameterCounts(base, adapter, router, trainable, percent, with_router)


def _numbers(parameter: Any) -> int:
    """A parameter's number of weights; bitsandbytes packs two into a byte."""
    packed = getattr(parameter, "quant_state", None)
    return math.prod(packed.shape) if packed else parameter.numel()

"""LoRA+: the heads learn faster than A (2402.12354)."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from hydralora.errors import ConfigError
from hydralora.tuner.model import hydra_layers


def loraplus_optimizer(
    model: nn.Module,
    optimizer_cls: type[Optimizer],
    *,
    lr: float,
    loraplus_lr_ratio: float,
    loraplus_weight_decay: float = 0.0,
    loraplus_lr_embedding: float = 0.0,
    **kwargs: Any,
) -> Optimizer:
    """PEFT's `create_loraplus_optimizer` for HydraLoRA, with its arguments.

    As there, biases learn at B's rate without weight decay; all else that is trained, the router among it, at A's.

    Args:
        lr: the learning rate of A.
        loraplus_lr_ratio: that of the heads, in multiples of `lr`; 1 or more.
        loraplus_weight_decay: of everything but biases.
        loraplus_lr_embedding: not used, since no embedding has an adapter.
        kwargs: further arguments of `optimizer_cls`.

    Raises:
        ConfigError: no head is trained.
    """
    heads = {id(parameter) for layer in hydra_layers(model).values() for parameter in layer.hydra_B.values()}
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not any(id(parameter) in heads for parameter in learnt):
        raise ConfigError(
            "loraplus_optimizer: the model has no HydraLoRA head that is trained. Load it with is_trainable=True, and "
            "activate the adapter with set_adapter."
        )
    a = [parameter for parameter in learnt if id(parameter) not in heads and parameter.dim() > 1]
    b = [parameter for parameter in learnt if id(parameter) in heads]
    biases = [parameter for parameter in learnt if parameter.dim() == 1]
    fast = lr * loraplus_lr_ratio
    groups: list[dict[str, Any]] = [
        {"params": a, "lr": lr, "weight_decay": loraplus_weight_decay},
        {"params": b, "lr": fast, "weight_decay": loraplus_weight_decay},
        {"params": biases, "lr": fast, "weight_decay": 0.0},
    ]
    return optimizer_cls([group for group in groups if group["params"]], lr=lr, **kwargs)  # type: ignore[call-arg]

"""AdaLoRA's part in a training: its schedule, its orthogonality loss, and the ranks after every step."""

from typing import cast

import torch
from peft import AdaLoraConfig, AdaLoraModel
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WARMING_UP, SETTLING = 0.1, 0.2  # shares of the steps before ranks are cut, and after; those of PEFT's example

SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of the weights, by which RankAllocator cuts the ranks


def adalora_of(model: object) -> AdaLoraModel | None:
    """A model's AdaLoRA tuner, if that is how it is trained."""
    tuner = getattr(model, "base_model", None)
    return tuner if isinstance(tuner, AdaLoraModel) else None


def freeze_rank_counters(model: nn.Module) -> None:
    """AdaLoRA divides by a counter of ranks that PEFT means to freeze, but not where it moves it to another device."""
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad = False


def orthogonality_loss(tuner: AdaLoraModel) -> torch.Tensor:
    """The weighted mean distance of all A A^T and B^T B from the identity.

    The same as in AdaLoraModel's forward pass, which adds it only to a loss that the model itself computes.
    """
    name = tuner.trainable_adapter_name
    products = [part @ part.T for part in _parts(tuner, f"lora_A.{name}")]  # (r, r) each
    products += [part.T @ part for part in _parts(tuner, f"lora_B.{name}")]
    distances = [torch.linalg.norm(product - torch.eye(len(product)).to(product)) for product in products]
    return _config(tuner).orth_reg_weight * torch.stack(distances).mean()


class AllocateRanks(TrainerCallback):
    """Cuts the ranks to their budget after every step of the optimiser, by the importance of each pair of vectors."""

    def __init__(self, tuner: AdaLoraModel) -> None:
        self.tuner = tuner

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        config, steps = _config(self.tuner), state.max_steps
        config.total_step, config.tinit, config.tfinal = steps, int(WARMING_UP * steps), int(SETTLING * steps)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **rest: object
    ) -> None:
        self.tuner.update_and_allocate(state.global_step + 1)  # the step isn't counted yet, gradients are still there


RankState = tuple[dict[str, list[bool]] | None, dict[str, dict[str, torch.Tensor]]]  # ranks kept, and the scores


def rank_state(tuner: AdaLoraModel) -> RankState:
    """What the next allocations depend on besides the weights; PEFT saves only the ranks."""
    return _config(tuner).rank_pattern, {name: getattr(tuner.rankallocator, name) for name in SCORES}


def restore_ranks(tuner: AdaLoraModel, state: RankState) -> None:
    """Go on with saved ranks and scores."""
    device = next(tuner.parameters()).device
    _config(tuner).rank_pattern, scores = state
    for name in SCORES:
        setattr(tuner.rankallocator, name, {key: value.to(device) for key, value in scores[name].items()})


def _config(tuner: AdaLoraModel) -> AdaLoraConfig:
    return cast(AdaLoraConfig, tuner.peft_config[tuner.trainable_adapter_name])


def _parts(tuner: AdaLoraModel, name: str) -> list[torch.Tensor]:
    return [parameter for key, parameter in tuner.model.named_parameters() if key.endswith(name)]

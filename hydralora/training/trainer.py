"""transformers' Trainer with our batches and the loss on the answers' tokens."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from hydralora.data.batches import LengthGroupedBatches, collate
from hydralora.data.encoding import Encoded
from hydralora.errors import ConfigError
from hydralora.inference.loss import summed_answer_loss
from hydralora.recipe.launch_settings import LaunchSettings
from hydralora.recipe.settings import Recipe, TrainingSettings
from hydralora.runs.checkpoints import PREFIX, building_place, put_in_place
from hydralora.training.adalora import AllocateRanks, adalora_of, orthogonality_loss
from hydralora.training.parallel import Processes
from hydralora.training.stopping import RandomState
from hydralora.training.trained_state import load_trained, save_trained
from hydralora.training.unlogged import Unlogged
from hydralora.tuner.gates import gate_information, live_gates, load_balance, mean_gates
from hydralora.tuner.model import hydra_layers
from hydralora.tuner.router import normalised_entropy

TOKENS = "tokens"  # of a batch: their number, padding not counted


@dataclass(frozen=True)
class GateLosses:
    """Weights of what is added to the loss for the gates; false where nothing is."""

    balance: float = 0.0
    information: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.balance or self.information)

    def of(self, gates: torch.Tensor, mask: torch.Tensor, processes: Processes) -> torch.Tensor:
        """The weighted load-balance loss less the weighted mutual information: this process's part of the batch's."""
        loss = gates.new_zeros(())
        if self.balance:
            loss = loss + self.balance * load_balance(gates, mask, processes.total)
        if self.information:
            information = gate_information(gates, mask, processes.total)  # the batch's, in each process
            others = information.detach() * (1 - 1 / processes.count)
            loss = loss - self.information * (information - others)
        return loss


class AnswerTrainer(Trainer):
    """transformers' Trainer with our batches and our loss on the answers' tokens."""

    def __init__(
        self,
        *args: Any,
        batches: LengthGroupedBatches,
        processes: Processes,
        gate_losses: GateLosses | None = None,
        keep_checkpoints: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.keep_checkpoints = keep_checkpoints
        self.model_accepts_loss_kwargs = True  # the loss below is already divided by the step's answer tokens
        self.batches = batches
        self.processes = processes
        self.tokens_seen = 0
        self.gate_means: torch.Tensor | None = None  # (N,), of the newest step that is logged
        self.gate_entropy = torch.zeros(())
        self.heldout_loss: float | None = None  # of the newest measurement
        self.gate_losses = gate_losses or GateLosses()
        self.unlogged, self._finished = Unlogged(), Unlogged()  # of all steps, and without one that is going on
        self._begun = -1  # how many steps were finished when the newest one began
        self._abandoned: list[RandomState] = []  # each process's, while this one alone saves a step

    def get_train_dataloader(self) -> "DataLoader[Any]":
        return _Loader(
            cast(Any, self.train_dataset),
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.device.type == "cuda",
        )

    def _prepare_input(self, data: object) -> object:
        """Move tensors to the device; from pinned memory, without waiting for what it is doing."""
        if isinstance(data, torch.Tensor) and self.args.device.type == "cuda":
            return data.to(self.args.device, non_blocking=True)
        return super()._prepare_input(data)

    def _get_num_items_in_batch(
        self, batch_samples: list[dict[str, torch.Tensor]], device: torch.device
    ) -> torch.Tensor | int | None:
        """The answers' tokens of a step; Trainer would count them again, and wait until the number is on the device."""
        if self.processes.count == 1:
            return sum(len(batch["answers"]) for batch in batch_samples)
        return super()._get_num_items_in_batch(batch_samples, device)

    def compute_loss(  # type: ignore[override]
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        bare_model: Any = self.model  # `model` may be a wrapper around it
        self._begin_step()
        due = (self.state.global_step + 1) % self.args.logging_steps == 0 or self.state.global_step == 0
        needs_gates = hydra_layers(bare_model) and (due or self.gate_losses)
        watch: AbstractContextManager[list[torch.Tensor]] = live_gates(bare_model) if needs_gates else nullcontext([])
        with watch as passes:
            summed, count = summed_answer_loss(
                bare_model if model is bare_model else _Wrapped(model, bare_model), inputs
            )
        loss = summed / (count if num_items_in_batch is None else num_items_in_batch)
        self.unlogged = replace(self.unlogged, answers=self.unlogged.answers + loss.detach())
        self.tokens_seen += inputs[TOKENS]
        if needs_gates:
            used = inputs["attention_mask"].bool() & bool(count)  # a batch without labels stands for no row
            loss = loss + self._gate_loss(passes[0], used)
        if tuner := adalora_of(bare_model):
            loss = loss + self._added(orthogonality_loss(tuner) / self.processes.count)
        return (
            loss * self.processes.count
        )  # DDP averages gradients; num_items_in_batch counts the tokens of all processes

    def _gate_loss(self, gates: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | float:
        """Record the gates (modules, batch, tokens, N) for the next event; returns the losses on gates."""
        detached = gates.detach()
        self.gate_means = mean_gates(detached, mask).mean((0, 1))
        self.gate_entropy = (normalised_entropy(detached) * mask).sum() / (mask.sum() * len(gates)).clamp_min(1)
        if not self.gate_losses:
            return 0.0
        return self._added(self.gate_losses.of(gates, mask, self.processes))

    def _added(self, loss: torch.Tensor) -> torch.Tensor:
        """A batch's share of a loss that is added to the answers', counted to be subtracted from what is reported."""
        loss = loss / self.current_gradient_accumulation_steps
        self.unlogged = replace(self.unlogged, added=self.unlogged.added + loss.detach())
        return loss

    def _begin_step(self) -> None:
        """Before the first batch of a step, know the sums of the steps before: the new one may be abandoned."""
        if self._begun != self.state.global_step:
            self._begun, self._finished = self.state.global_step, self.unlogged.of_all(self.processes)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint to a temporary folder first: the process may be killed or the disk full at any time."""
        folder, step = Path(str(self.args.output_dir)), self.state.global_step
        super()._save_checkpoint(model, trial)
        unlogged = self._finished if self._abandoned else self.unlogged.of_all(self.processes)
        if not self._abandoned:
            self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if self.args.should_save:
            building = building_place(folder, step) / f"{PREFIX}{step}"
            save_trained(cast(torch.nn.Module, self.model), building)
            unlogged.save(building)
            sound = all_finite(self.model)  # the loss is checked later
            put_in_place(folder, step, self.keep_checkpoints, self.heldout_loss if sound else None)

    def _get_output_dir(self, trial: Any) -> str:
        return str(building_place(Path(str(self.args.output_dir)), self.state.global_step))

    def save_abandoned(self, states: list[RandomState]) -> None:
        """Save the last finished step, though another one was begun: in one process, without word to the others.

        Args:
            states: of each process's random numbers when that step was finished.
        """
        self._abandoned = states
        states[0].restore()
        try:
            self._save_checkpoint(self.model_wrapped, None)
        finally:
            self._abandoned = []

    def store_flos(self) -> None:
        if not self._abandoned:  # it adds up those of all processes
            super().store_flos()

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        for rank, state in enumerate(self._abandoned[1:], 1):
            of_first = torch.load(Path(output_dir) / "rng_state_0.pth", weights_only=False)
            of_first["cpu"] = state.cpu
            if state.cuda is not None:
                of_first["cuda"][rank] = state.cuda
            torch.save(of_first, Path(output_dir) / f"rng_state_{rank}.pth")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not load_trained(cast(torch.nn.Module, self.model), Path(resume_from_checkpoint)):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def continue_from(self, checkpoint: Path) -> None:
        """Load a checkpoint, and train the remaining steps, if any."""
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        self.unlogged = Unlogged.of_checkpoint(checkpoint, self.processes, state.global_step)
        if state.global_step < state.max_steps:
            self.train(resume_from_checkpoint=str(checkpoint))
        else:
            self._load_from_checkpoint(str(checkpoint))
            self.state = state

    def take_losses(self) -> tuple[float, float]:
        """The mean loss on the answers, and the mean of what was added to it, of all steps since the last call."""
        sums, step = self.unlogged.of_all(self.processes), self.state.global_step
        self.unlogged = Unlogged(logged=step)
        return float(sums.answers) / (step - sums.logged), float(sums.added) / (step - sums.logged)

    def take_tokens(self) -> int:
        """Tokens that all processes have seen since the last call."""
        tokens = self.processes.total(torch.tensor(self.tokens_seen))
        self.tokens_seen = 0
        return int(tokens)


class _Loader(DataLoader[Any]):
    """A loader whose sampler selects this process's rows; Accelerate's loader would split them once more."""

    def set_epoch(self, epoch: int) -> None:
        cast(LengthGroupedBatches, self.batch_sampler).set_epoch(epoch)


class _Wrapped:
    """A model whose forward pass goes through the wrapper that averages gradients; its attributes are the model's."""

    def __init__(self, wrapper: nn.Module, model: object) -> None:
        self._wrapper = wrapper
        self._model = model

    def __call__(self, **inputs: object) -> Any:
        return self._wrapper(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _counted(rows: Sequence[Encoded], pad_token_id: int) -> dict[str, torch.Tensor | int]:
    """Rows as `collate` makes a batch of them, with their tokens' number."""
    return {**collate(rows, pad_token_id), TOKENS: sum(len(row.input_ids) for row in rows)}


def gate_losses(recipe: Recipe) -> GateLosses:
    """What a recipe adds to the loss for the gates."""
    tuner = recipe.tuner
    return GateLosses(tuner.balance_weight, tuner.gate_information) if recipe.has_router else GateLosses()


def answer_trainer(
    model: Any,
    rows: Sequence[Encoded],
    pad_token_id: int,
    arguments: TrainingArguments,
    processes: Processes,
    gate_losses: GateLosses,
    *callbacks: TrainerCallback,
    keep_checkpoints: int = 1,
) -> AnswerTrainer:
    """A trainer that prints nothing; this process takes its share of every batch."""
    trainer = AnswerTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=partial(_counted, pad_token_id=pad_token_id),
        batches=LengthGroupedBatches(
            [len(row.input_ids) for row in rows],
            arguments.per_device_train_batch_size,
            arguments.seed,
            processes.count,
            processes.rank,
        ),
        processes=processes,
        gate_losses=gate_losses,
        keep_checkpoints=keep_checkpoints,
        callbacks=[*callbacks, AllocateRanks(tuner)] if (tuner := adalora_of(model)) else list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def all_finite(model: Any) -> bool:
    """Whether all trainable parameters of a model are finite."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters() if parameter.requires_grad)


def check_reporting(wanted: Sequence[str] | None) -> None:
    """
    Raises:
        ConfigError: transformers can't report to one of these.
    """
    from transformers.integrations import get_available_reporting_integrations

    available = get_available_reporting_integrations()
    if unknown := [name for name in wanted or () if name not in (*available, "none", "all")]:
        raise ConfigError(
            f"training.report_to: {', '.join(unknown)} is not installed, or transformers doesn't know it. Install it, "
            f"or leave it out. Available: {', '.join(available) or 'none'}."
        )


def training_arguments(
    settings: TrainingSettings, output: Path, device: str, launch: LaunchSettings | None = None, save_every: int = 0
) -> TrainingArguments:
    """A recipe's settings as transformers' own; FSDP's and DeepSpeed's are passed unchanged.

    Args:
        output: folder of the checkpoints.
        save_every: steps between checkpoints; 0: none.
    """
    sharding = launch.model_dump(include={"fsdp", "fsdp_config", "deepspeed"}, exclude_none=True) if launch else {}
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=settings.max_steps or -1,
        num_train_epochs=settings.epochs or 1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_ratio,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        logging_steps=settings.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would report a mean of earlier losses in place of a NaN
        save_strategy="steps" if save_every else "no",
        save_steps=save_every or 1,
        report_to=settings.report_to or [],
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=device.startswith("cuda"),
        dataloader_pin_memory=device.startswith("cuda"),
        remove_unused_columns=False,
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        seed=settings.seed,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
        **sharding,
    )
    # On two GPUs Trainer would wrap the model in nn.DataParallel, whose replicas our hooks on the layers never see.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments

"""A few rows of each component, read by the model while what its modules see is watched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.layer import HydraLoraLayer

ROWS_PER_COMPONENT = 24
ROWS_PER_BATCH = 8

TokenRow = Mapping[str, Any]  # `input_ids` (tokens,), and optionally `positions`, the indices of the tokens to use
Use = Callable[[str, int, torch.Tensor], None]  # a module's name, the component, and float32 (tokens, features)


@dataclass(frozen=True)
class _Batch:
    """Rows of one component, of like length and padded on the right: (rows, width)."""

    component: int
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    tokens: torch.Tensor  # (tokens,), indices into rows * width: those to use


class ComponentRows:
    """Up to `per_component` rows of each component, which a model reads as often as is needed."""

    def __init__(
        self,
        purpose: str,
        model: Any,
        rows: Sequence[TokenRow],
        labels: Sequence[int],
        num_heads: int,
        per_component: int,
        passes: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        """
        Args:
            purpose: the function for which they are read, for messages.
            rows: tokenised.
            labels: the component of each row, 0 to num_heads - 1; others (noise) are left out.
            passes: how often the rows will be read.
            on_progress: called after each batch with the rows read and all rows to read.

        Raises:
            ConfigError: another number of labels than of rows, or a component without rows.
        """
        if len(rows) != len(labels):
            raise ConfigError(f"{purpose}: {len(rows)} rows but {len(labels)} labels. Give one label for each row.")
        chosen = _choose(purpose, labels, num_heads, per_component)
        self._model = model
        self._batches = _batches(rows, chosen, next(model.parameters()).device)
        self._on_progress = on_progress
        self._done = 0  # rows
        self._total = passes * sum(len(batch.input_ids) for batch in self._batches)

    def read_inputs(self, modules: Mapping[str, nn.Module], use: Use) -> None:
        """Run every batch; `use` gets what each of these modules reads."""

        def watch(name: str, module: nn.Module, inputs: tuple[torch.Tensor, object], output: object) -> None:
            self._pass_on(name, inputs[0], use)

        self._read(modules, watch)

    def read_outputs(self, modules: Mapping[str, nn.Module], use: Use) -> None:
        """Run every batch; `use` gets what each of these modules computes."""

        def watch(name: str, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            self._pass_on(name, output, use)

        self._read(modules, watch)

    def _pass_on(self, name: str, values: torch.Tensor, use: Use) -> None:
        flat = values.flatten(0, -2)  # (rows * width, features)
        use(name, self._batch.component, flat[self._batch.tokens.to(flat.device)].float())

    def _read(self, modules: Mapping[str, nn.Module], watch: Callable[..., None]) -> None:
        handles = [module.register_forward_hook(partial(watch, name)) for name, module in modules.items()]
        model = self._model
        last_logits = 0 if isinstance(model.get_output_embeddings(), HydraLoraLayer) else 1  # 0: of every token
        training = model.training
        model.eval()
        try:
            for batch in self._batches:
                self._batch = batch
                model(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask,
                    use_cache=False,
                    logits_to_keep=last_logits,
                )
                self._done += len(batch.input_ids)
                if self._on_progress:
                    self._on_progress(self._done, self._total)
        finally:
            model.train(training)
            for handle in handles:
                handle.remove()


def _choose(purpose: str, labels: Sequence[int], num_heads: int, count: int) -> list[list[int]]:
    """For every component, up to `count` row indices spread evenly over its rows."""
    chosen = []
    for component in range(num_heads):
        members = [i for i, label in enumerate(labels) if label == component]
        if not members:
            raise ConfigError(
                f"{purpose}: no row has component {component}, but the adapter has {num_heads} heads. "
                "Cluster the rows into as many components as heads."
            )
        step = max(1, len(members) // count)
        chosen.append(members[::step][:count])
    return chosen


def _batches(rows: Sequence[TokenRow], chosen: list[list[int]], device: torch.device) -> list[_Batch]:
    batches = []
    for component, indices in enumerate(chosen):
        members = sorted((rows[i] for i in indices), key=lambda row: len(row["input_ids"]))
        for start in range(0, len(members), ROWS_PER_BATCH):
            batches.append(_pad(component, members[start : start + ROWS_PER_BATCH], device))
    return batches


def _pad(component: int, rows: Sequence[TokenRow], device: torch.device) -> _Batch:
    shape = len(rows), max(len(row["input_ids"]) for row in rows)
    input_ids, attention_mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    chosen = torch.zeros(shape, dtype=torch.bool)
    for i, row in enumerate(rows):
        length = len(row["input_ids"])
        input_ids[i, :length] = torch.as_tensor(row["input_ids"])
        attention_mask[i, :length] = 1
        positions = row.get("positions")
        chosen[i, :length][slice(None) if positions is None else torch.as_tensor(positions)] = True
    tokens = chosen.flatten().nonzero().squeeze(1)
    return _Batch(component, input_ids.to(device), attention_mask.to(device), tokens.to(device))

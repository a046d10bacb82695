"""Steered gates: one head pinned, heads muted or at other levels, uniform gates, sharper or softer gates."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import JsonValue, TypeAdapter
from torch import nn

from hydralora.errors import ConfigError
from hydralora.tuner.model import active_router, block_index, hydra_layers
from hydralora.tuner.router import largest_only

HIGHEST_LEVEL = 100.0
SETTINGS = ("pin", "mute", "uniform", "temperature", "top_k", "levels")  # one of them at least
COLDEST = 1e-30  # a temperature that float32 still divides by; beyond it gates don't change any more


@dataclass(frozen=True)
class Steering:
    """Settings that replace the router's gates; pin and uniform stand alone, the others combine.

    Attributes:
        pin: the head that gets the whole weight.
        mute: heads that get none; the others share it in their proportions.
        uniform: every head 1/N.
        temperature: the router's logits are divided by it; below 1 sharpens, above 1 softens.
        top_k: keep each token's largest gates, renormalised.
        layers: indices of the blocks to steer; None steers all.
        levels: for each head a factor on its gate, from 0, which mutes it, to 100; the gates are renormalised.
    """

    pin: int | None = None
    mute: tuple[int, ...] = ()
    uniform: bool = False
    temperature: float | None = None
    top_k: int | None = None
    layers: tuple[int, ...] | None = None
    levels: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        settings = [name for name in SETTINGS if self._is_set(name)]
        if not settings:
            raise ConfigError(f"Steering: no setting is given. Set {', '.join(SETTINGS[:-1])} or {SETTINGS[-1]}.")
        if len(settings) > 1 and {"pin", "uniform"} & set(settings):
            raise ConfigError(f"Steering: {' and '.join(settings)} exclude each other. Set one of them.")
        if self.layers is not None and not self.layers:
            raise ConfigError("Steering: layers names no block. Name some, or leave it out to steer all.")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ConfigError(f"Steering: temperature is {self.temperature!r}. Set it above 0; 1 changes nothing.")
        for level in self.levels or ():
            if not 0 <= level <= HIGHEST_LEVEL:  # false for nan
                raise ConfigError(f"Steering: a level is {level!r}. Set levels from 0 to {HIGHEST_LEVEL:g}.")

    def _is_set(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and value is not False and value != ()  # 0 counts: it is a head, or a mistake

    def check(self, num_heads: int) -> None:
        """Check the settings against an adapter of `num_heads` heads.

        Raises:
            ConfigError: no such head, every head muted, or top_k outside 1 to the number of heads not muted,
                or another number of levels.
        """
        for name, heads in (("pin", () if self.pin is None else (self.pin,)), ("mute", self.mute)):
            for head in heads:
                if isinstance(head, bool) or not isinstance(head, int) or not 0 <= head < num_heads:
                    raise ConfigError(
                        f"Steering: {name} names head {head!r}; the adapter's heads are 0 to {num_heads - 1}."
                    )
        if self.levels is not None and len(self.levels) != num_heads:
            raise ConfigError(f"Steering: there are {len(self.levels)} levels; give one for each of {num_heads} heads.")
        remaining = num_heads - len(self._silent())
        if not remaining:
            raise ConfigError(f"Steering: all {num_heads} heads are muted, or at level 0. Leave at least one.")
        if self.top_k is not None and (type(self.top_k) is not int or not 1 <= self.top_k <= remaining):
            raise ConfigError(
                f"Steering: top_k is {self.top_k!r}. Set it to a whole number from 1 to {remaining}, "
                "the heads not muted."
            )

    def gates(self, logits: torch.Tensor) -> torch.Tensor:
        """The steered gates for a router's logits (..., N)."""
        if self.pin is not None:
            gates = torch.zeros_like(logits)
            gates[..., self.pin] = 1
            return gates
        if self.uniform:
            return torch.full_like(logits, 1 / logits.shape[-1])
        if self._silent():
            muted = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
            muted[list(self._silent())] = True
            # A router with its own top_k may have kept only muted heads; the others then share equally.
            logits = logits.clamp_min(torch.finfo(logits.dtype).min).masked_fill(muted, -math.inf)
        if self.temperature is not None:  # the largest logit at 0, so that no temperature overflows
            largest = logits.amax(-1, keepdim=True)
            logits = (logits - largest) / min(max(self.temperature, COLDEST), 1 / COLDEST)
        if self.levels is not None:  # softmax(l + log f) is f * softmax(l), renormalised
            factors = torch.tensor([level or 1.0 for level in self.levels], device=logits.device)
            logits = logits + factors.log()
        if self.top_k is not None:
            logits = largest_only(logits, self.top_k)
        return logits.softmax(-1)

    def _silent(self) -> set[int]:
        """The heads that get no weight: muted, or at level 0."""
        return {*self.mute, *(head for head, level in enumerate(self.levels or ()) if level == 0)}

    def describe(self) -> dict[str, JsonValue]:
        """The settings that are given, as plain values."""
        settings = {key: value for key, value in asdict(self).items() if self._is_set(key)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}

    def in_words(self) -> str:
        """The settings in words: heads are counted from 1, blocks from 0."""
        parts = []
        if self.pin is not None:
            parts.append(f"pinned to head {self.pin + 1}")
        if self.mute:
            parts.append(f"without head {', '.join(str(head + 1) for head in self.mute)}")
        if self.uniform:
            parts.append("uniform")
        if self.levels is not None:
            parts.append(f"at levels {', '.join(f'{level:g}' for level in self.levels)}")
        if self.temperature is not None:
            parts.append(f"at temperature {self.temperature:g}")
        if self.top_k is not None:
            parts.append(f"top {self.top_k}")
        if self.layers is not None:
            parts.append(f"in layers {_ranges(self.layers)}")
        return ", ".join(parts)


class _SteeredModel:
    """A reusable context manager that steers the model's gates."""

    def __init__(self, model: nn.Module, steering: Steering) -> None:
        layers = {
            name: layer
            for name, layer in hydra_layers(model).items()
            if any(adapter in layer.adapters for adapter in layer.active_adapters)
        }
        if not layers:
            raise ConfigError("Steering: no HydraLoRA adapter is active on the model.")
        blocks = sorted({index for name in layers if (index := block_index(name)) is not None})
        unknown = [index for index in steering.layers or () if index not in blocks]
        if unknown:
            raise ConfigError(f"Steering: layers {unknown} are not adapted; those that are: {blocks}.")
        steered_blocks = None if steering.layers is None else set(steering.layers)
        self.steering = steering
        self._routers = [
            active_router(layer)
            for name, layer in layers.items()
            if steered_blocks is None or block_index(name) in steered_blocks
        ]
        steering.check(self._routers[0].num_heads)

    def __enter__(self) -> Steering:
        if any(router.steering is not None for router in self._routers):
            raise ConfigError("The model's gates are steered already. Put everything into one steer_gates.")
        for router in self._routers:
            router.steering = self.steering.gates
        return self.steering

    def __exit__(self, *error: object) -> None:
        for router in self._routers:
            router.steering = None


def steer_gates(
    model: nn.Module,
    pin: int | None = None,
    mute: Collection[int] = (),
    uniform: bool = False,
    temperature: float | None = None,
    top_k: int | None = None,
    layers: Collection[int] | None = None,
    levels: Collection[float] | None = None,
) -> _SteeredModel:
    """Inside `with steer_gates(model, ...):` the active adapter's layers use these gates in place of the router's.

    The arguments are those of `Steering`; gates are float32 and sum to 1 for every token.

    Raises:
        ConfigError: no setting is given, settings exclude each other, there is no such head or block, several adapters
            are active, or, on entering, one of the blocks is steered already; other blocks may be.
    """
    blocks = None if layers is None else tuple(layers)
    factors = None if levels is None else tuple(levels)
    return steered(model, Steering(pin, tuple(mute), uniform, temperature, top_k, blocks, factors))


def steered(model: nn.Module, steering: Steering) -> _SteeredModel:
    """`steer_gates` with a `Steering`."""
    return _SteeredModel(model, steering)


def steering_or_none(**settings: Any) -> Steering | None:
    """A `Steering` from settings that may all be empty; None if none but `layers` is given.

    Raises:
        ConfigError: settings exclude each other, or are out of range.
    """
    if all(value is None or value is False or value == () for name, value in settings.items() if name != "layers"):
        return None
    return Steering(**settings)


def described_steering(asked: Mapping[str, object]) -> Steering:
    """The `Steering` whose `describe` returned these values.

    Raises:
        ValueError: they are not the values of a `Steering`.
    """
    return TypeAdapter(Steering).validate_python(asked)


def _ranges(blocks: Collection[int]) -> str:
    """As few ranges as possible: "0, 4-6"."""
    ranges: list[list[int]] = []
    for block in sorted(blocks):
        if ranges and block == ranges[-1][-1] + 1:
            ranges[-1].append(block)
        else:
            ranges.append([block])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ranges)


def block_range(text: str) -> tuple[int, ...]:
    """Blocks from "3", "0-11" or "0,4-6".

    Raises:
        ConfigError: it is none of these.
    """
    blocks: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) < int(first):
            raise ConfigError(
                f"Layers {text!r} are no blocks. Write a number, a range such as 0-11, or both with commas."
            )
        blocks += range(int(first), int(last or first) + 1)
    return tuple(blocks)

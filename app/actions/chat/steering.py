"""The mixer's settings as the engine's steering."""

from collections.abc import Mapping

from hydralora.errors import ConfigError
from hydralora.tuner.steering import Steering, block_range, steering_or_none

MOST_HEADS = 256


def steering_of(settings: Mapping[str, object] | None, heads: int) -> Steering | None:
    """The steering that the mixer's settings describe; None if all is as trained.

    Args:
        settings: `levels`, a factor for each head, 0 for a muted one; `solo`, the head that gets the whole weight, or
            None; `uniform`, equal weights; `top`, the strongest head only; `temperature` of the router; `layers`.

    Raises:
        ConfigError: they are no settings of the mixer, or do not fit the heads.
    """
    given = settings or {}
    solo, levels = given.get("solo"), _numbers(given.get("levels"))
    alone = solo is not None or bool(given.get("uniform"))
    temperature = _number(given.get("temperature", 1.0))
    layers = str(given.get("layers") or "").strip()
    steering = steering_or_none(
        pin=None if solo is None else int(_number(solo)),
        uniform=bool(given.get("uniform")) and solo is None,
        top_k=1 if given.get("top") and not alone else None,
        temperature=None if temperature == 1 or alone else temperature,
        levels=None if alone or all(level == 1 for level in levels) else tuple(levels),
        layers=block_range(layers) if layers else None,
    )
    if steering is not None:
        steering.check(heads)
    return steering


def _numbers(values: object) -> list[float]:
    if values is None:
        return []
    if not isinstance(values, list) or len(values) > MOST_HEADS:
        raise ConfigError("The mixer's levels are no list of numbers. Reload the page.")
    return [_number(value) for value in values]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"The mixer holds {str(value)[:40]!r} where a number belongs. Reload the page.")
    return float(value)

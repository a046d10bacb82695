"""Every error that a user can cause: what went wrong, where, what was found, how to fix it."""


class HydraError(Exception):
    """Base of all errors shown to users as one message, without a traceback."""

    kind = "error"


class ConfigError(HydraError, ValueError):
    """A setting of the adapter or of a recipe is wrong. Also a ValueError, as PEFT's users expect."""

    kind = "config"


class DatasetError(HydraError):
    """A data file can't be used as it is."""

    kind = "dataset"


class ModelError(HydraError):
    """A base model or an adapter can't be found, read or trusted."""

    kind = "model"


class MissingModelError(ConfigError):
    """A run's base model was a folder on another machine, so a model on this machine must be named."""


class RunError(HydraError):
    """A training run doesn't exist, or is in a state that doesn't allow the operation."""

    kind = "run"


def first_line(error: Exception) -> str:
    """An error's first line; library errors can be pages long."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

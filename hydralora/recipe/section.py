"""What all groups of settings have in common."""

from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings; unknown keys are refused, so that a misspelt one can't be ignored."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


def choices(section: type[Section], name: str) -> tuple[Any, ...]:
    """The values of a setting with fixed choices, including None if it may be unset; empty for other settings."""
    annotation = section.model_fields[name].annotation
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    values = tuple(value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind))
    return (*values, None) if values and NoneType in kinds else values

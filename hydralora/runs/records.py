"""Base of a run's records: frozen, and validated wherever they are read."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationInfo

LONGEST = "longest"  # in a validation's context: the largest number of characters of a name
FROM_ELSEWHERE = {LONGEST: 500}  # the context of a file from another machine; names in our own files are bounded by
# nothing but the rows that they come from


def _bounded(name: str, validation: ValidationInfo) -> str:
    longest = (validation.context or {}).get(LONGEST)
    if longest is not None and len(name) > longest:
        raise ValueError(f"it has {len(name)} characters, of at most {longest}")
    return name


Name = Annotated[str, AfterValidator(_bounded)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]  # seconds since 1970


class Record(BaseModel):
    """A record that is stored in a file of the run, or reported to its observers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def values(self) -> dict[str, JsonValue]:
        """As plain values, without fields that were not set."""
        return self.model_dump(mode="json", exclude_unset=True)

    def without(self, *names: str) -> Self:
        """A copy in which these fields are not set."""
        return type(self).model_validate(self.model_dump(exclude_unset=True, exclude=set(names)))

    def changed(self, **changes: object) -> Self:
        """A copy with other values."""
        return self.model_copy(update=changes)

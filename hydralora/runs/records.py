"""What the records of a run have in common: frozen, and checked wherever they are read."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationInfo

LONGEST = "longest"  # in a validation's context: how many characters a name may have
FROM_ELSEWHERE = {LONGEST: 500}  # the context of a file that somebody else may have made; our own names are bounded by
# nothing but the rows that they come from


def _bounded(name: str, validation: ValidationInfo) -> str:
    longest = (validation.context or {}).get(LONGEST)
    if longest is not None and len(name) > longest:
        raise ValueError(f"it has {len(name)} characters, of at most {longest}")
    return name


Name = Annotated[str, AfterValidator(_bounded)]
Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """A record that is kept in a file of the run, or told to whoever watches it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def values(self) -> dict[str, JsonValue]:
        """As plain values: what was set, nothing else."""
        return self.model_dump(mode="json", exclude_unset=True)

    def without(self, *names: str) -> Self:
        """A copy in which these were never set."""
        return type(self).model_validate(self.model_dump(exclude_unset=True, exclude=set(names)))

    def changed(self, **changes: object) -> Self:
        """A copy with other values."""
        return self.model_copy(update=changes)

"""Rows as table cells, counts in words, and the tokenizers that read rows."""

from hydralora.data.examples import Example
from hydralora.errors import ModelError
from hydralora.models.types import Tokenizer

from ..services import Services
from .recipes import resolve_model

Cell = str | int | float | None
ROW_COLUMNS = ["row", "question", "answer", "task"]
ROW_WIDTHS: list[str | int] = ["9%", "48%", "24%", "19%"]


def counted(count: int, noun: str) -> str:
    """A count with its noun: "1 row", "2,000 rows"."""
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def row_cells(example: Example) -> list[Cell]:
    """An example as a table row, in `ROW_COLUMNS` order."""
    question = example.question if example.prompt else ""
    return [example.row, question, example.answer, example.task or ""]


def tokenizer_of(services: Services, model: str) -> tuple[Tokenizer | None, str]:
    """A base model's tokenizer, None if it is not on this machine, and the model's name or folder.

    Raises:
        HydraError: the base model's name is wrong.
    """
    name = resolve_model(services, model)
    try:
        return services.tokenizer(name), name
    except ModelError:
        return None, name

"""The Data tab: what a base model reads of a dataset, and what is known of its chat template."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from hydralora import figures
from hydralora.data.batches import batch_order
from hydralora.data.dataset import read_dataset
from hydralora.data.encoding import IGNORED, Encoded, encode_all
from hydralora.data.examples import Example
from hydralora.data.mapping import Mapping
from hydralora.data.progress import OnProgress
from hydralora.data.statistics import TokenStatistics, token_statistics
from hydralora.data.template_checks import Check, check_base
from hydralora.data.templates import has_template
from hydralora.models.catalogue import find_model
from hydralora.models.loading import load_tokenizer
from hydralora.models.types import Tokenizer
from hydralora.recipe.settings import TrainingSettings

from ..services import Services
from ..services.cache import ResultKind
from ..services.processes import in_process
from ..services.reading import MEMORY
from .reading import Cell, tokenizer_of
from .recipes import model_name

CHECK_COLUMNS = ["check", "state", "found"]
MOST_TOKENS = 8  # of one character

CHECKS = ResultKind[list[Check]]("template checks")


class BatchRow(TypedDict):
    """A row for the batch view: tokens as [text, learnt, special]."""

    row: int
    tokens: list[list[str | bool]]


class Batch(TypedDict):
    """The batch view's value (widgets/batch.js): its rows, or a note why there are none."""

    rows: list[BatchRow]
    note: str


AS_READ = ResultKind[tuple[TokenStatistics, Batch]]("rows as a model reads them")


@dataclass(frozen=True)
class TokenView:
    """What the model will read of a dataset."""

    sentence: str
    lengths: str
    batch: Batch
    batch_sentence: str
    checks: list[list[Cell]]


def tokens(services: Services, dataset_id: str, model: str, max_length: int) -> TokenView:
    """Lengths in tokens, and a first batch, as a base model reads them.

    Raises:
        HydraError: the base model's name is wrong, or its template refuses every row.
    """
    tokenizer, name = tokenizer_of(services, model)
    if tokenizer is None:
        return nothing_read(f"{model_name(name)} is not on this machine yet; a run downloads it.")
    services.read_dataset(dataset_id)
    stored, batch_size = services.datasets.get(dataset_id), TrainingSettings().batch_size
    arguments = stored.files, stored.mapping, name, max_length, batch_size
    statistics, batch = services.cache.remember(
        AS_READ, dataset_id, name, max_length, compute=lambda: in_process(_as_read, *arguments, memory=MEMORY)
    )
    template = "its own chat template" if has_template(tokenizer) else "plain lines, User: and Assistant:"
    return TokenView(
        _token_sentence(statistics),
        figures.token_lengths(statistics.histogram, max_length),
        batch,
        f"A batch of {batch_size} rows of similar length as {model_name(name)} reads them, formatted by {template}. "
        "Coloured tokens are learnt: the answers with their end marks. Other tokens are only read. Framed tokens are "
        "special tokens.",
        _checks(services, tokenizer, name),
    )


def _as_read(
    files: Sequence[Path],
    mapping: Mapping | None,
    model: str,
    max_length: int,
    batch_size: int,
    on_progress: OnProgress,
) -> tuple[TokenStatistics, Batch]:
    tokenizer = load_tokenizer(find_model(model, download=False))
    examples = read_dataset(files, mapping).examples
    statistics = token_statistics(tokenizer, examples, max_length, batch_size)
    return statistics, _first_batch(tokenizer, examples, max_length, batch_size)


def _checks(services: Services, tokenizer: Tokenizer, model: str) -> list[list[Cell]]:
    """The checks of a base model's chat template, those with something to do first."""
    checks = services.cache.remember(
        CHECKS, model, compute=lambda: check_base(find_model(model, download=False), tokenizer)
    )
    worst_first = sorted(checks, key=lambda check: ("problem", "note", "ok").index(check.state))
    return [[check.name.replace("-", " "), check.state, f"{check.found} {check.fix}".strip()] for check in worst_first]


def nothing_read(why: str, lengths: str = "") -> TokenView:
    """The view without any row: it says why, also where the batch would be."""
    return TokenView(why, lengths, {"rows": [], "note": why}, "", [])


def _token_sentence(statistics: TokenStatistics) -> str:
    sampled = f" (of {statistics.sampled} rows, spread evenly)" if statistics.sampled < statistics.rows else ""
    long = statistics.by_kind.get("too-long", 0) + statistics.by_kind.get("answer-lost", 0)
    beyond = (
        f" {long} {'row is' if long == 1 else 'rows are'} longer than the limit of {statistics.max_length}: a run "
        f"drops or cuts {'it' if long == 1 else 'them'}."
        if long
        else ""
    )
    return (
        f"{statistics.total:,} tokens{sampled}; {statistics.answer_share:.0%} of them are in answers. A row has "
        f"{statistics.median:.0f} (median) and at most {statistics.longest}. Batches of similar length waste "
        f"{statistics.padding:.0%} on padding, random ones {statistics.padding_random:.0%}.{beyond}"
    )


def _first_batch(tokenizer: Tokenizer, examples: Sequence[Example], max_length: int, batch_size: int) -> Batch:
    some = examples[: batch_size * 16]
    rows = encode_all(tokenizer, some, max_length, "cut").rows
    first = batch_order([len(row.input_ids) for row in rows], batch_size, 0, 0)[0]
    return {"rows": [_row_tokens(tokenizer, rows[i]) for i in first], "note": ""}


def _row_tokens(tokenizer: Tokenizer, row: Encoded) -> BatchRow:
    special = set(tokenizer.all_special_ids)
    tokens: list[list[str | bool]] = []
    part: list[int] = []  # tokens of one character so far; its text comes with the last of them
    for token, label in zip(row.input_ids, row.labels, strict=True):
        part.append(token)
        text = str(tokenizer.decode(part))
        if "\ufffd" in text and len(part) < MOST_TOKENS:
            text = ""
        else:
            part = []
        tokens.append([text, label != IGNORED, token in special])
    return {"row": row.example.row, "tokens": tokens}

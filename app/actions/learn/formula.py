"""The formula with the numbers of a text's tokens, in one adapted layer of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

from hydralora import figures
from hydralora.analysis.layer_terms import LayerTerms, TokenTerms, layer_terms
from hydralora.data.encoding import IGNORED, encode, encode_prompt
from hydralora.data.examples import Example, Message
from hydralora.errors import HydraError
from hydralora.inference.generation import token_text
from hydralora.models.types import Tokenizer

from ...services import Services
from ...services.background import seconds_of
from ...services.cache import ResultKind
from ...services.components import digest
from ..adapters import adapter_hash, adapter_weights, why_no_adapter
from ..chat.columns import heads_of, leading_head
from ..chat.examples import ExamplePrompt
from ..run_choices import Choice

NO_HEADS = "This run has no heads and no router. Choose a run with heads."
NO_RUN = "Choose a run in the bar above to see its numbers."
NO_QUESTION = "Type a prompt, then press Compute."
LOADING = "Phase 1 of 2, loading the model"
READING = "Phase 2 of 2, reading the text"


@dataclass(frozen=True)
class Waiting:
    """What is being done, the part of the work before it, and the seconds that it has taken so far."""

    phase: str
    fraction: float
    seconds: float = 0


class TokenValue(TypedDict):
    """A token: its text, whether the answer has it, the head that leads (None in a tie), and its terms' norms.

    `heads` has (gate, norm of B_i A x, norm of what the head adds) for each head.
    """

    text: str
    of_answer: bool
    lead: int | None
    x: float
    base: float
    output: float
    latent: list[float]
    change: float
    heads: list[tuple[float, float, float]]


class FormulaValue(TypedDict):
    """A layer, and the tokens of a text.

    Attributes:
        layer: its short name.
        sizes: in, out, r and N.
        router: what the router reads, "x" or "A x"; "" if it reads nothing.
        names: the components that the heads have taken, "" for none.
        first: the place of the token that is shown first.
    """

    layer: str
    sizes: tuple[int, int, int, int]
    shared_A: bool
    scaling: float
    router: str
    names: list[str]
    first: int
    tokens: list[TokenValue]


FORMULA = ResultKind[FormulaValue]("formula", keep=24, of_adapter=True)


def why_not(services: Services, run_id: str | None) -> str:
    """Why a run has no formula to show, and what to do; "" if it has one."""
    if not run_id:
        return NO_RUN
    recipe = services.run(run_id).recipe()
    if not (recipe.has_heads and recipe.tuning.has_matrices):
        return NO_HEADS
    return why_no_adapter(services, run_id)


def layers(services: Services, run_id: str | None) -> list[Choice]:
    """(short name, name) of a run's adapted layers; none if it has no heads. No model is loaded."""
    if why_not(services, run_id) or not run_id:
        return []
    names = figures.module_names(list(adapter_weights(services, run_id)))
    return [(name, module) for module, name in names.items()]


def read(
    services: Services, run_id: str | None, question: str, rows: Sequence[ExamplePrompt], module: str | None
) -> Iterator[Waiting | FormulaValue]:
    """The formula's numbers for a question; before that, what is done.

    The model also reads the expected answer, if the question is an example's.

    Raises:
        HydraError: the run has no heads or no such layer, the question is empty or too long, or the model is missing.
    """
    if why := why_not(services, run_id):
        raise HydraError(why)
    if not question.strip():
        raise HydraError("The prompt is empty. Type something, or choose an example.")
    assert run_id
    if not module:
        raise HydraError("No layer is chosen. Choose one from the list.")
    expected = next((row["expected"] for row in rows if row["question"] == question), "")
    key = run_id, adapter_hash(services, run_id), digest(question, expected), module
    if not services.cache.has(FORMULA, *key):
        for seconds in seconds_of(lambda: services.loaded(run_id)):
            yield Waiting(LOADING, 0, seconds)
        yield Waiting(READING, 0.5)
    yield services.cache.remember(FORMULA, *key, compute=lambda: _read(services, run_id, question, expected, module))


def _read(services: Services, run_id: str, question: str, expected: str, module: str) -> FormulaValue:
    loaded = services.loaded(run_id)
    ids, answer = _encoded(loaded.tokenizer, question, expected)
    terms = layer_terms(loaded.model, module, ids, loaded.lock)
    recipe = services.run(run_id).recipe()
    reads = {"hidden": "x", "latent": "A x"}[recipe.tuner.router_input]
    return {
        "layer": figures.module_name(module),
        "sizes": (terms.in_features, terms.out_features, terms.r, terms.num_heads),
        "shared_A": terms.shared_A,
        "scaling": terms.scaling,
        "router": reads if recipe.has_router else "",
        "names": heads_of(services, run_id)["names"],
        "first": answer if answer < len(ids) else len(ids) - 1,
        "tokens": _tokens(loaded.tokenizer, ids, answer, terms),
    }


def _encoded(tokenizer: Tokenizer, question: str, expected: str) -> tuple[list[int], int]:
    """Token ids, and the place of the answer's first one; behind the end if there is no answer."""
    asked: Message = {"role": "user", "content": question}
    if not expected:
        ids = encode_prompt(tokenizer, [asked])
        return ids, len(ids)
    (row,) = encode(tokenizer, Example(1, (asked, {"role": "assistant", "content": expected})))
    return row.input_ids, next(i for i, label in enumerate(row.labels) if label != IGNORED)


def _tokens(tokenizer: Tokenizer, ids: Sequence[int], answer: int, terms: LayerTerms) -> list[TokenValue]:
    return [
        _token(token_text(tokenizer, token_id), place >= answer, token)
        for place, (token_id, token) in enumerate(zip(ids, terms.tokens, strict=True))
    ]


def _token(text: str, of_answer: bool, terms: TokenTerms) -> TokenValue:
    return {
        "text": text,
        "of_answer": of_answer,
        "lead": leading_head([head.gate for head in terms.heads]),
        "x": terms.x,
        "base": terms.base,
        "output": terms.output,
        "latent": list(terms.latent),
        "change": terms.change,
        "heads": [(head.gate, head.product, head.added) for head in terms.heads],
    }

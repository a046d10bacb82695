"""What a model forgets: its loss on a neutral text, before and after training."""

from hydralora.data.dataset import read_dataset
from hydralora.data.demo import shipped_folder
from hydralora.data.encoding import encode_rows
from hydralora.inference.base_scores import BaseScores
from hydralora.inference.evaluation import evaluate_rows, summary
from hydralora.recipe.settings import Recipe
from hydralora.runs.scores import RowScores
from hydralora.training.preparation import Prepared

FILE = "neutral.jsonl"  # short texts of the everyday kind, of our own


def neutral_loss(prepared: Prepared, recipe: Recipe, known: BaseScores | None = None) -> float | None:
    """The model's loss on the neutral text that ships, in nats per token; None for NaN.

    Args:
        known: gives the base model's, if it has been measured before.
    """
    examples = read_dataset(str(shipped_folder("sets") / FILE)).examples
    rows = encode_rows(prepared.tokenizer, examples, recipe, "cut").rows
    pad = prepared.tokenizer.pad_token_id

    def measure() -> RowScores:
        return evaluate_rows(prepared.model, rows, pad)

    return summary(known.of(rows, measure) if known else measure(), rows).loss

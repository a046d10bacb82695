"""Loss and exact match: one forward pass says what generating would."""

from typing import Any

import pytest
import torch

from hydralora.data.encoding import IGNORED, Encoded, encode
from hydralora.data.examples import Example
from hydralora.inference.evaluation import evaluate
from hydralora.inference.generation import Sampling, generate
from hydralora.inference.loss import answer_logits, answer_loss
from tests.tiny_model import tiny_llama

PAIRS = [("a", "oak"), ("b", "elm"), ("c", "ash"), ("d", "fir"), ("e", "yew"), ("f", "bay tree")]


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[Encoded]:
    examples = [
        Example(
            i,
            ({"role": "user", "content": ask}, {"role": "assistant", "content": answer}),
            "short" if i < 4 else "long",
        )
        for i, (ask, answer) in enumerate(PAIRS, 1)
    ]
    return [encode(tokenizer, example)[0] for example in examples]


@pytest.fixture(scope="module")
def overfitted(rows: list[Encoded], tokenizer: Any) -> Any:
    """A model that knows the answers of the first three rows by heart."""
    from hydralora.data.batches import collate

    torch.manual_seed(0)
    model = tiny_llama()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    batch = collate(rows[:3], tokenizer.pad_token_id)
    for _ in range(60):
        loss = answer_loss(*answer_logits(model, batch)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_exact_match_is_what_greedy_generation_gives(overfitted: Any, rows: list[Encoded], tokenizer: Any) -> None:
    matched = []
    for row in rows:
        told = evaluate(overfitted, [row], tokenizer.pad_token_id).exact_match
        tokens = list(generate(overfitted, tokenizer, row.example.prompt, Sampling(max_new_tokens=20)))
        assert told == ("".join(token.text for token in tokens) == row.example.answer)
        matched.append(told)
    assert 3 <= sum(matched) < len(rows)
    together = evaluate(overfitted, rows, tokenizer.pad_token_id)
    assert together.exact_match == sum(matched) / len(rows)


def test_loss_is_the_mean_over_answer_tokens(overfitted: Any, rows: list[Encoded], tokenizer: Any) -> None:
    total, tokens = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids, labels = torch.tensor([row.input_ids]), torch.tensor([row.labels])
            logits = overfitted(ids).logits[:, :-1]
            kept = labels[:, 1:] != IGNORED
            total += float(torch.nn.functional.cross_entropy(logits[kept], labels[:, 1:][kept], reduction="sum"))
            tokens += int(kept.sum())
    scores = evaluate(overfitted, rows, tokenizer.pad_token_id)
    assert scores.loss == pytest.approx(total / tokens, abs=1e-4)
    assert scores.rows == len(rows)


def test_tasks_are_measured_apart(overfitted: Any, rows: list[Encoded], tokenizer: Any) -> None:
    scores = evaluate(overfitted, rows, tokenizer.pad_token_id)
    assert set(scores.per_task) == {"short", "long"}
    for task, found in scores.per_task.items():
        alone = evaluate(overfitted, [row for row in rows if row.example.task == task], tokenizer.pad_token_id)
        assert found.rows == 3
        assert found.loss == pytest.approx(alone.loss, abs=1e-4)
        assert found.exact_match == alone.exact_match
    untold = [Encoded(row.input_ids, row.labels, Example(1, row.example.messages)) for row in rows]
    assert evaluate(overfitted, untold, tokenizer.pad_token_id).per_task == {}


def test_components_are_measured_apart(overfitted: Any, rows: list[Encoded], tokenizer: Any) -> None:
    labels = [1 if row.example.task == "long" else 0 for row in rows]
    scores = evaluate(overfitted, rows, tokenizer.pad_token_id, components=labels)
    assert list(scores.per_component) == ["0", "1"]
    assert scores.per_component["1"] == scores.per_task["long"]
    assert evaluate(overfitted, rows, tokenizer.pad_token_id).per_component == {}

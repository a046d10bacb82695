"""Loss and exact match: one forward pass says what generating would."""

from typing import Any

import pytest
import torch

from hydralora.data.examples import Example
from hydralora.data.templates import IGNORED, Encoded, encode
from hydralora.evaluation import HeadUse, evaluate, head_use
from hydralora.gates import record_gates
from hydralora.generation import Sampling, generate
from hydralora.loss import answer_logits, answer_loss
from tests.tiny_model import adapt, shake, tiny_llama

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
    return [encode(tokenizer, example) for example in examples]


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
        told = evaluate(overfitted, [row], tokenizer.pad_token_id)["exact_match"]
        tokens = list(generate(overfitted, tokenizer, row.example.prompt, Sampling(max_new_tokens=20)))
        assert told == ("".join(token.text for token in tokens) == row.example.answer)
        matched.append(told)
    assert 3 <= sum(matched) < len(rows)
    together = evaluate(overfitted, rows, tokenizer.pad_token_id)
    assert together["exact_match"] == sum(matched) / len(rows)


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
    assert scores["loss"] == pytest.approx(total / tokens, abs=1e-4)
    assert scores["rows"] == len(rows)


def test_tasks_are_measured_apart(overfitted: Any, rows: list[Encoded], tokenizer: Any) -> None:
    scores = evaluate(overfitted, rows, tokenizer.pad_token_id)
    assert set(scores["per_task"]) == {"short", "long"}
    for task, found in scores["per_task"].items():
        alone = evaluate(overfitted, [row for row in rows if row.example.task == task], tokenizer.pad_token_id)
        assert found["rows"] == 3
        assert found["loss"] == pytest.approx(alone["loss"], abs=1e-4)
        assert found["exact_match"] == alone["exact_match"]
    untold = [Encoded(row.input_ids, row.labels, Example(1, row.example.messages)) for row in rows]
    assert evaluate(overfitted, untold, tokenizer.pad_token_id)["per_task"] == {}


def test_components_are_measured_apart(overfitted: Any, rows: list[Encoded], tokenizer: Any) -> None:
    labels = [1 if row.example.task == "long" else 0 for row in rows]
    scores = evaluate(overfitted, rows, tokenizer.pad_token_id, components=labels)
    assert list(scores["per_component"]) == ["0", "1"]
    assert scores["per_component"]["1"] == scores["per_task"]["long"]
    assert evaluate(overfitted, rows, tokenizer.pad_token_id)["per_component"] == {}


@torch.no_grad()
def test_head_use_is_taken_where_answers_are_predicted(rows: list[Encoded], tokenizer: Any) -> None:
    model = shake(adapt(tiny_llama(), num_heads=4))
    labels = [0, 2, 2, 0, 0, 2]
    found = head_use(model, rows, labels, 3, tokenizer.pad_token_id)
    assert found.mean_gates[1] == []
    for label in (0, 2):
        means, strongest = [], torch.zeros(6, 4, dtype=torch.long)
        for row in (row for row, mine in zip(rows, labels, strict=True) if mine == label):
            with record_gates(model) as record:
                model(torch.tensor([row.input_ids]))
            gates = record.stacked()[:, 0, row.answer_start - 1 : -1]  # (modules, answer tokens, N)
            means.append(gates.mean((0, 1)))
            strongest += torch.nn.functional.one_hot(gates.argmax(-1), 4).sum(1)
        torch.testing.assert_close(torch.tensor(found.mean_gates[label]), torch.stack(means).mean(0), atol=1e-5, rtol=0)
        assert torch.equal(found.strongest[:, label], strongest)


@pytest.mark.parametrize(
    ("table", "wanted"),
    [([[5, 0], [0, 5]], 1.0), ([[3, 3], [3, 3]], 0.0), ([[8, 0], [8, 0]], 0.0), ([[4, 4], [0, 0]], 0.0)],
    ids=["tells the component", "tells nothing", "one head alone", "one component alone"],
)
def test_mutual_information_is_a_share_of_the_components_entropy(table: list[list[int]], wanted: float) -> None:
    use = HeadUse([], torch.tensor([table, table]))
    assert use.mutual_information == pytest.approx(wanted, abs=1e-9)

"""What the heads do on rows, against the gates themselves and against chance."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from hydralora.analysis.head_use import HeadUse, TokenGates, head_use, probe
from hydralora.data.encoding import Encoded, encode
from hydralora.data.examples import Example
from hydralora.tuner.gates import record_gates
from tests.tiny_model import adapt, shake, tiny_llama

PAIRS = [("a", "oak"), ("bb b", "elm"), ("c", "ash"), ("d dd", "fir"), ("e", "yew"), ("f", "bay tree")]
LABELS = [0, 2, 2, 0, 0, 2]


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[Encoded]:
    turns = ((({"role": "user", "content": ask}), {"role": "assistant", "content": answer}) for ask, answer in PAIRS)
    return [encode(tokenizer, Example(i, messages, None))[0] for i, messages in enumerate(turns, 1)]


@pytest.fixture(scope="module")
def model() -> Any:
    return shake(adapt(tiny_llama(), num_heads=4))


def gates_of(model: Any, row: Encoded) -> torch.Tensor:
    """(modules, tokens, N) of a row alone."""
    with torch.no_grad(), record_gates(model) as record:
        model(torch.tensor([row.input_ids]))
    return record.stacked()[:, 0]


def test_head_use_is_taken_where_answers_are_predicted(model: Any, rows: list[Encoded], tokenizer: Any) -> None:
    found = head_use(model, rows, tokenizer.pad_token_id)
    means = found.mean_gates(LABELS)
    assert list(means) == [0, 2]
    for label in means:
        own = [gates_of(model, row) for row, mine in zip(rows, LABELS, strict=True) if mine == label]
        starts = [row.answer_start for row, mine in zip(rows, LABELS, strict=True) if mine == label]
        answers = [gates[:, start - 1 : -1] for gates, start in zip(own, starts, strict=True)]
        wanted = torch.stack([gates.mean(1) for gates in answers]).mean(0)
        torch.testing.assert_close(torch.tensor(means[label]), wanted, atol=1e-5, rtol=0)
        strongest = torch.stack([torch.nn.functional.one_hot(gates.argmax(-1), 4).sum(1) for gates in answers]).sum(0)
        members = [i for i, mine in enumerate(LABELS) if mine == label]
        assert found.strongest[:, members].sum(1).tolist() == strongest.tolist()
    every = torch.cat([gates_of(model, row)[:, row.answer_start - 1 : -1] for row in rows], dim=1)  # (modules, n, N)
    assert found.entropy == pytest.approx(float(entropy(every.numpy(), axis=-1).mean()) / np.log(4), abs=1e-5)


@pytest.mark.parametrize(
    ("table", "wanted"),
    [([[5, 0], [0, 5]], 1.0), ([[3, 3], [3, 3]], 0.0), ([[8, 0], [8, 0]], 0.0), ([[4, 4], [0, 0]], 0.0)],
    ids=["tells the group", "tells nothing", "one head alone", "one group alone"],
)
def test_mutual_information_is_a_share_of_the_groups_entropy(table: list[list[int]], wanted: float) -> None:
    use = HeadUse([], np.zeros((2, 2, 2)), np.array([table, table]))
    assert use.mutual_information(["a", "b"]) == pytest.approx(wanted, abs=1e-9)


def test_mutual_information_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    strongest, groups = rng.integers(0, 9, size=(3, 40, 4)), list(rng.integers(0, 3, size=40))
    tables = np.stack([strongest[:, np.array(groups) == group].sum(1) for group in (0, 1, 2)], axis=1)
    shares = tables[0].sum(1) / tables[0].sum()
    wanted = np.mean([mutual_info_score(None, None, contingency=table) for table in tables]) / -(
        shares @ np.log(shares)
    )
    assert HeadUse([], strongest, strongest).mutual_information(groups) == pytest.approx(wanted)


def test_what_heads_know_of_groups_stands_out_from_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    groups = [i % 3 for i in range(60)]
    told = np.zeros((2, 60, 3), dtype=int)
    told[:, np.arange(60), groups] = 10
    chance = rng.multinomial(10, [1 / 3] * 3, size=(2, 60))
    for strongest, known in ((told, True), (chance, False)):
        use = HeadUse([], strongest, strongest)
        shuffled = use.shuffled_information(groups, 100, seed=1)
        assert (use.mutual_information(groups) > np.quantile(shuffled, 0.99)) == known
        assert np.array_equal(shuffled, use.shuffled_information(groups, 100, seed=1))


def test_rows_without_a_group_don_t_count() -> None:
    strongest = np.array([[[5, 0], [0, 5], [7, 7]]])
    use = HeadUse([], strongest, strongest)
    assert use.mutual_information(["a", "b", None]) == pytest.approx(1)
    assert set(use.mean_gates(["a", "b", None])) == {"a", "b"}
    assert use.shuffled_information(["a", "b", None], 5).tolist() == pytest.approx([1] * 5)  # the two change places


def test_the_tokens_a_head_takes_most_are_those_of_its_largest_gates(
    model: Any, rows: list[Encoded], tokenizer: Any
) -> None:
    told: list[tuple[int, int]] = []
    use, found = probe(model, rows, tokenizer.pad_token_id, lambda *far: told.append(far))
    assert told[-1] == (len(rows), len(rows))
    assert np.array_equal(use.mean, head_use(model, rows, tokenizer.pad_token_id).mean)
    for i, row in enumerate(rows):
        assert np.allclose(found.gates[i], gates_of(model, row).numpy(), atol=2e-3)
    module = found.modules[1]
    most = found.most(tokenizer, head=2, module=module, count=3)
    assert [one.gate for one in most] == sorted((one.gate for one in most), reverse=True)
    assert most[0].gate == pytest.approx(max(gates[1, :, 2].max() for gates in found.gates))
    assert len({one.text.strip().lower() for one in most}) == 3
    whole = tokenizer.decode(rows[most[0].row].input_ids, clean_up_tokenization_spaces=False)
    assert most[0].before + most[0].text + most[0].behind in whole


def test_parts_of_a_character_are_tokens_of_their_own(tokenizer: Any) -> None:
    messages = ({"role": "user", "content": "é"}, {"role": "assistant", "content": "ü"})
    row = encode(tokenizer, Example(1, messages, None))[0]
    count = len(row.input_ids)
    found = TokenGates(["up"], [row], [np.ones((1, count, 1), dtype=np.float16)]).most(tokenizer, 0, count=count)
    texts = {one.text for one in found}
    assert not any("\ufffd" in text for text in texts)
    assert {"Ã", "©", "¼"} <= texts  # the bytes of both, as the vocabulary writes them

"""Mixtures of heads: the formula, the search, and what it leaves behind."""

from typing import Any

import pytest
import torch

from hydralora.tuner.mixtures import BUDGET, LIMIT, mix_heads
from hydralora.tuner.model import hydra_layers
from tests.tiny_model import adapt, tiny_llama

N = 3


@pytest.fixture
def model() -> Any:
    """Each head with an A of its own, and random."""
    return adapt(tiny_llama(), num_heads=N, shared_A=False, router="oracle", init_weights=False)


def matrices(model: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each layer, A (N, r, in) and B (N, r, out)."""
    return [
        (
            layer.hydra_A["default"].get_parameter("weight").detach().unflatten(0, (N, -1)).clone(),
            layer.hydra_B["default"].detach().clone(),
        )
        for layer in hydra_layers(model).values()
    ]


def distance(model: Any, head: int, wanted: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    return sum(
        float((mine[head] - theirs).square().sum())
        for parts, others in zip(matrices(model), wanted, strict=True)
        for mine, theirs in zip(parts, others, strict=True)
    )


def test_a_mixture_that_is_better_than_every_head_is_found(model: Any) -> None:
    trained = matrices(model)
    true = torch.tensor([0.8, -0.5, 0.3])
    wanted = [(torch.einsum("n,nri->ri", true, a), torch.einsum("n,nro->ro", true, b)) for a, b in trained]
    scale = sum(float(part.square().sum()) for parts in wanted for part in parts)
    single = min(distance(model, head, wanted) for head in range(N))
    counts: list[tuple[int, int]] = []
    found = mix_heads(
        model, [1], lambda: [distance(model, 1, wanted) / scale], on_progress=lambda *count: counts.append(count)
    )
    assert distance(model, 1, wanted) < single
    assert counts[-1] == (BUDGET, BUDGET)
    assert max(map(abs, found[1])) <= LIMIT
    weights = torch.tensor(found[1])
    for (a, b), (was_a, was_b) in zip(matrices(model), trained, strict=True):
        torch.testing.assert_close(a[1], torch.einsum("n,nri->ri", weights, was_a))
        torch.testing.assert_close(b[1], torch.einsum("n,nro->ro", weights, was_b))
        assert torch.equal(a[[0, 2]], was_a[[0, 2]])
        assert torch.equal(b[[0, 2]], was_b[[0, 2]])


def test_each_head_is_mixed_of_what_was_trained_and_again_alike(model: Any) -> None:
    losses = iter(torch.rand(2 * BUDGET, 2, generator=torch.Generator().manual_seed(0)).tolist())
    first = matrices(model)
    found = mix_heads(model, [0, 2], lambda: next(losses), seed=5)
    mixed = matrices(model)
    assert found[0] != found[2]
    for (a, _), (was, _) in zip(mixed, first, strict=True):
        for head in (0, 2):
            torch.testing.assert_close(a[head], torch.einsum("n,nri->ri", torch.tensor(found[head]), was))
    for layer, (a, b) in zip(hydra_layers(model).values(), first, strict=True):
        layer.hydra_A["default"].get_parameter("weight").data.copy_(a.flatten(0, 1))
        layer.hydra_B["default"].data.copy_(b)
    losses = iter(torch.rand(2 * BUDGET, 2, generator=torch.Generator().manual_seed(0)).tolist())
    assert mix_heads(model, [0, 2], lambda: next(losses), seed=5) == found


def test_a_search_that_is_stopped_leaves_the_heads_as_they_were(model: Any) -> None:
    trained = matrices(model)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mix_heads(model, [0, 1], lambda: [1.0, 1.0], on_progress=stop)
    for now, before in zip(matrices(model), trained, strict=True):
        for mine, was in zip(now, before, strict=True):
            assert torch.equal(mine, was)

"""The router started from the components."""

import gc
from typing import Any

import pytest
import torch

from hydralora import ConfigError, init_router, record_gates
from hydralora.tuner.model import active_router, hydra_layers
from hydralora.tuner.router import normalised_entropy
from hydralora.tuner.router_init import SHRINKAGE, _Moments
from tests.tiny_model import adapt, shake, tiny_llama

ALPHABETS = ("abcdefgh", "12345678", "ABCDEFGH")  # rows of unlike components share no token


@pytest.fixture
def labels() -> list[int]:
    return [i % 3 for i in range(18)]


@pytest.fixture
def rows(tokenizer: Any, labels: list[int]) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    texts = ["".join(ALPHABETS[label][j] for j in torch.randint(0, 8, (12,), generator=generator)) for label in labels]
    return [{"input_ids": tokenizer(text)["input_ids"]} for text in texts]


@pytest.fixture
def model() -> Any:
    return adapt(tiny_llama(), num_heads=3, router_input="hidden", router_init="components")


@torch.no_grad()
def gates_of(model: Any, rows: list[dict[str, Any]]) -> list[torch.Tensor]:
    """Of each row: (modules, tokens, N)."""
    out = []
    with record_gates(model) as record:
        for row in rows:
            model(torch.tensor([row["input_ids"]]))
            out.append(record.stacked()[:, 0])
    return out


@pytest.mark.parametrize("router_input", ["latent", "hidden"])
@pytest.mark.parametrize("entropy", [0.3, 0.6, 0.9])
def test_the_entropy_asked_for_is_reached(
    router_input: str, entropy: float, rows: list[dict[str, Any]], labels: list[int]
) -> None:
    model = adapt(tiny_llama(), num_heads=3, router_input=router_input, router_init="components")
    told = init_router(model, rows, labels, entropy)
    measured = normalised_entropy(torch.cat(gates_of(model, rows), dim=1)).mean(1)  # (modules,)
    assert list(told) == list(hydra_layers(model))
    assert measured.tolist() == pytest.approx([entropy] * 6, abs=0.005)
    assert list(told.values()) == pytest.approx(measured.tolist(), abs=0.005)


def test_head_i_answers_to_component_i(model: Any, rows: list[dict[str, Any]], labels: list[int]) -> None:
    init_router(model, rows[:12], labels[:12])
    for gates, label in zip(gates_of(model, rows)[12:], labels[12:], strict=True):  # rows that it has not seen
        mean = gates.mean((0, 1))
        assert mean.argmax() == label
        assert mean[label] > 0.45


def test_a_point_midway_between_two_components_belongs_to_both(rows: list[dict[str, Any]], labels: list[int]) -> None:
    model = adapt(tiny_llama(), num_heads=2, router_input="hidden", router_init="components")
    pairs = [(row, label) for row, label in zip(rows, labels, strict=True) if label < 2]
    init_router(model, [row for row, _ in pairs], [label for _, label in pairs])
    router = active_router(hydra_layers(model)["model.layers.1.mlp.down_proj"])
    read: list[list[torch.Tensor]] = [[], []]
    for row, label in pairs:
        handle = router.register_forward_pre_hook(
            lambda module, args, label=label: read[label].append(args[0].flatten(0, -2))
        )
        model(torch.tensor([row["input_ids"]]))
        handle.remove()
    means = [torch.cat(features).mean(0) for features in read]
    torch.testing.assert_close(router((means[0] + means[1]) / 2), torch.tensor([0.5, 0.5]), atol=1e-3, rtol=0)
    assert [int(router(mean).argmax()) for mean in means] == [0, 1]


def test_rows_with_another_label_are_left_out(model: Any, rows: list[dict[str, Any]], labels: list[int]) -> None:
    init_router(model, rows, labels)
    first = active_router(hydra_layers(model)["model.layers.0.mlp.up_proj"]).get_parameter("weight").clone()
    noise = [{"input_ids": [9, 9, 9]}]
    init_router(model, rows + noise, [*labels, -1])
    assert torch.equal(first, active_router(hydra_layers(model)["model.layers.0.mlp.up_proj"]).get_parameter("weight"))


def test_only_the_chosen_positions_are_read(model: Any, rows: list[dict[str, Any]], labels: list[int]) -> None:
    cut = [{"input_ids": row["input_ids"][:5]} for row in rows]
    chosen = [row | {"positions": list(range(5))} for row in rows]
    weights = []
    for given in (cut, chosen, rows):
        init_router(model, given, labels)
        weights.append(
            active_router(hydra_layers(model)["model.layers.1.mlp.down_proj"]).get_parameter("weight").clone()
        )
    torch.testing.assert_close(weights[0], weights[1], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(weights[0], weights[2], atol=1e-2)


@torch.no_grad()
def test_the_output_stays_the_bases(
    model: Any, rows: list[dict[str, Any]], labels: list[int], ids: torch.Tensor
) -> None:
    init_router(model, rows, labels)
    assert torch.equal(model(ids).logits, tiny_llama()(ids).logits)


def test_the_router_stays_trainable_and_no_hook_stays(
    model: Any, rows: list[dict[str, Any]], labels: list[int]
) -> None:
    model.train()
    init_router(model, rows, labels)
    assert model.training
    for layer in hydra_layers(model).values():
        router = active_router(layer)
        assert all(parameter.requires_grad for parameter in router.parameters())
        assert not router._forward_hooks


def test_one_head_is_possible(rows: list[dict[str, Any]]) -> None:
    model = adapt(tiny_llama(), num_heads=1, router_init="components")
    init_router(model, rows, [0] * len(rows))
    assert all((gates == 1).all() for gates in gates_of(model, rows))


@pytest.mark.parametrize("entropy", [0.0, 1.0, -0.5, 2.0])
def test_an_impossible_entropy_is_refused(
    entropy: float, model: Any, rows: list[dict[str, Any]], labels: list[int]
) -> None:
    with pytest.raises(ConfigError, match="entropy"):
        init_router(model, rows, labels, entropy)


def test_a_component_without_rows_is_named(model: Any, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"component 2.*3 heads"):
        init_router(model, rows, [i % 2 for i in range(18)])


def test_without_a_bias_the_means_offset_is_left_out(rows: list[dict[str, Any]], labels: list[int]) -> None:
    weights = []
    for bias in (True, False):
        model = adapt(tiny_llama(), num_heads=3, router_init="components", router_bias=bias)
        reached = init_router(model, rows, labels)
        assert list(reached.values()) == pytest.approx([0.6] * 6, abs=0.005)
        weights.append(
            active_router(hydra_layers(model)["model.layers.0.mlp.up_proj"]).get_parameter("weight").detach()
        )
    directions = [weight / weight.norm() for weight in weights]
    torch.testing.assert_close(*directions, atol=1e-4, rtol=0)
    assert weights[0].norm() != pytest.approx(float(weights[1].norm()), rel=1e-3)


def test_uniform_gates_are_not_started(rows: list[dict[str, Any]], labels: list[int]) -> None:
    with pytest.raises(ConfigError, match="not learnt"):
        init_router(adapt(tiny_llama(), num_heads=3, router="uniform"), rows, labels)


def test_a_model_without_the_adapter_is_refused(rows: list[dict[str, Any]], labels: list[int]) -> None:
    with pytest.raises(ConfigError, match="no HydraLoRA layer"):
        init_router(tiny_llama(), rows, labels)


def test_one_label_a_row(model: Any, rows: list[dict[str, Any]], labels: list[int]) -> None:
    with pytest.raises(ConfigError, match="18 rows but 17 labels"):
        init_router(model, rows, labels[1:])


def many_rows(tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Rows of unlike lengths, component i % 3; every fifth names the positions to look at."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for i in range(count):
        letters = torch.randint(0, 8, (5 + 7 * i % 23,), generator=generator)
        rows.append({"input_ids": tokenizer("".join(ALPHABETS[i % 3][j] for j in letters))["input_ids"]})
        if i % 5 == 0:
            rows[-1]["positions"] = [0, 2, -1]
    return rows


@torch.no_grad()
def discriminant(
    model: Any, name: str, rows: list[dict[str, Any]], shrinkage: float = SHRINKAGE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weight, bias and scores of one router, by the formula: every row alone, every token kept."""
    router = active_router(hydra_layers(model)[name])
    read: list[list[torch.Tensor]] = [[], [], []]
    for i, row in enumerate(rows):
        handle = router.register_forward_pre_hook(lambda module, args, i=i: read[i % 3].append(args[0].flatten(0, -2)))
        model(torch.tensor([row["input_ids"]]))
        handle.remove()
        read[i % 3][-1] = read[i % 3][-1][row.get("positions", slice(None))]
    groups = [torch.cat(features).double() for features in read]
    means = torch.stack([group.mean(0) for group in groups])
    spread = torch.stack([group.var(0, correction=0) for group in groups]).mean(0)
    weight = (means - means.mean(0)) / (spread + shrinkage * spread.mean())
    bias = -(weight * (means + means.mean(0))).sum(1) / 2
    return weight, bias, torch.cat(groups) @ weight.T + bias


@pytest.mark.parametrize("shrinkage", [SHRINKAGE, 5.0])
@pytest.mark.parametrize("router_input", ["latent", "hidden"])
def test_batches_give_what_every_row_alone_gives(router_input: str, shrinkage: float, tokenizer: Any) -> None:
    rows = many_rows(tokenizer, 60)
    model = shake(adapt(tiny_llama(), num_heads=3, router_input=router_input, router_init="components"))
    wanted = {name: discriminant(model, name, rows, shrinkage) for name in hydra_layers(model)}
    init_router(model, rows, [i % 3 for i in range(60)], shrinkage=shrinkage)
    for name, (weight, bias, scores) in wanted.items():
        router = active_router(hydra_layers(model)[name])
        scale = float(router.get_parameter("weight").detach().norm() / weight.norm())
        torch.testing.assert_close(router.get_parameter("weight").double(), weight * scale, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(router.get_parameter("bias").double(), bias * scale, atol=1e-4, rtol=1e-4)
        assert normalised_entropy((scores * scale).softmax(-1)).mean() == pytest.approx(0.6, abs=1.1e-3)


def test_rows_are_read_in_batches(model: Any, tokenizer: Any) -> None:
    passes: list[int] = []
    model.register_forward_hook(lambda *args: passes.append(1))
    init_router(model, many_rows(tokenizer, 48), [i % 3 for i in range(48)])
    assert len(passes) == 2 * 48 / 8


@pytest.mark.slow
def test_memory_doesnt_grow_with_the_rows(tokenizer: Any) -> None:
    rows = many_rows(tokenizer, 24)

    def most_numbers(count: int) -> int:
        """The most numbers in tensors that are alive between two forward passes."""
        model = adapt(tiny_llama(), num_heads=3, router_input="hidden", router_init="components")
        alive: list[int] = []

        def count_numbers(*args: Any) -> None:
            tensors = {id(o.untyped_storage()): o.numel() for o in gc.get_objects() if type(o) is torch.Tensor}
            alive.append(sum(tensors.values()))

        model.register_forward_hook(count_numbers)
        init_router(model, rows * count, [0, 1, 2] * 8 * count, rows_per_component=8 * count)
        return max(alive)

    tokens = sum(len(row["input_ids"]) for row in rows)
    scores = 6 * 3  # numbers a token: of each layer, one for every head
    assert most_numbers(5) - most_numbers(1) < 4 * tokens * (scores + 10)  # what is read is 48 to 80 a layer


def test_moments_added_in_parts_are_those_of_the_whole() -> None:
    features = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)) + 1e4
    moments = _Moments()
    for part in features.split([1, 7, 0, 200, 92]):
        moments.add(part)
    torch.testing.assert_close(moments.mean.double(), features.double().mean(0), rtol=1e-6, atol=0)
    variance = (moments.squares / moments.count).double()
    torch.testing.assert_close(variance, features.double().var(0, correction=0), rtol=1e-3, atol=0)


@torch.no_grad()
def test_a_router_beside_the_output_embedding_reads_every_token(tokenizer: Any) -> None:
    rows = many_rows(tokenizer, 12)
    model = adapt(
        tiny_llama(), num_heads=3, router_input="hidden", router_init="components", target_modules=["lm_head"]
    )
    weight, _, _ = discriminant(model, "lm_head", rows)
    init_router(model, rows, [i % 3 for i in range(12)])
    found = active_router(hydra_layers(model)["lm_head"]).get_parameter("weight").double()
    torch.testing.assert_close(found / found.norm(), weight / weight.norm(), atol=1e-4, rtol=1e-4)

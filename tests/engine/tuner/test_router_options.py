"""What routers may do beside the published softmax of a linear map, and heads beside whole matrices."""

from typing import Any

import pytest
import torch
from torch import nn

from hydralora import ConfigError, HydraLoraConfig, init_router, record_gates
from hydralora.tuner.gates import gate_information
from hydralora.tuner.head_init import init_heads
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import count_parameters, head_matrices, hydra_layers
from hydralora.tuner.router import OracleRouter, Router
from hydralora.tuner.rows import pass_rows
from tests.tiny_model import adapt, shake, tiny_llama

NUM_HEADS = 3


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(1))


def one_layer(**settings: Any) -> HydraLoraLayer:
    torch.manual_seed(0)
    layer = HydraLoraLayer(nn.Linear(12, 20), "default", HydraLoraConfig(r=4, num_heads=NUM_HEADS, **settings)).eval()
    for parameter in layer.hydra_B.parameters():
        nn.init.normal_(parameter)
    return layer


class TestNormalised:
    def test_by_cosine_only_directions_count(self) -> None:
        router = Router(6, NUM_HEADS, bias=False, norm="cosine")
        x = torch.randn(5, 6)
        cosines = nn.functional.cosine_similarity(x.unsqueeze(1), router.weight.unsqueeze(0), dim=-1)
        torch.testing.assert_close(router.logits(x), 6**0.5 * cosines)
        gates = router(x)
        with torch.no_grad():
            router.weight.mul_(7)
        torch.testing.assert_close(router(3 * x), gates)

    def test_by_root_mean_square_the_size_of_what_is_read_does_not_count(self) -> None:
        router = Router(6, NUM_HEADS, bias=True, norm="rms")
        x = torch.randn(5, 6)
        torch.testing.assert_close(router(x), router(40 * x))
        assert not torch.allclose(Router(6, NUM_HEADS, bias=True)(x), Router(6, NUM_HEADS, bias=True)(40 * x))

    @pytest.mark.parametrize("settings", [{"router": "cosine"}, {"router_norm": True}])
    def test_its_factor_learns_and_it_starts_from_components(self, settings: dict[str, Any], ids: torch.Tensor) -> None:
        model = adapt(tiny_llama(), num_heads=2, router_init="components", **settings)
        rows = [{"input_ids": [5 + 20 * (i % 2) + (i + j) % 7 for j in range(8)]} for i in range(12)]
        reached = init_router(model, rows, [i % 2 for i in range(12)], entropy=0.5)
        assert all(value == pytest.approx(0.5, abs=0.02) for value in reached.values())
        with record_gates(model) as record:
            model(torch.tensor([row["input_ids"] for row in rows]))
        by_component = [record.stacked()[:, i::2].mean((0, 1, 2)) for i in range(2)]
        assert by_component[0][0] > 0.6
        assert by_component[1][1] > 0.6
        shake(model)(input_ids=ids, labels=ids).loss.backward()
        factors = [layer.hydra_router["default"].get_parameter("factor") for layer in hydra_layers(model).values()]
        assert all(factor.grad is not None and bool(factor.grad.any()) for factor in factors)


class TestWholeRows:
    def test_each_token_has_its_own_logits_and_its_prompts_mean(self) -> None:
        layer = one_layer(router_scope="row", router_input="hidden")
        router = layer.hydra_router["default"]
        x, prompts = torch.randn(2, 5, 12), torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0]]).bool()
        own = x @ router.get_parameter("weight").T  # (2, 5, N)
        means = torch.stack([own[0, :2].mean(0), own[1, 1:4].mean(0)])
        with pass_rows(layer, prompts):
            gates = router(x)
            torch.testing.assert_close(gates, (own + means.unsqueeze(1)).softmax(-1))
            later = router(x[:, -1:])  # with a cache, only new tokens come
        torch.testing.assert_close(later, gates[:, -1:])
        assert router.rows is None

    def test_an_answer_token_changes_no_gate_before_it(self, ids: torch.Tensor) -> None:
        model = shake(adapt(tiny_llama(), router_scope="row"))
        labels = ids.clone()
        labels[:, :5] = -100
        before = model(input_ids=ids, labels=labels).logits[:, :6]
        changed = ids.clone()
        changed[:, 6:] = 7
        torch.testing.assert_close(model(input_ids=changed, labels=labels).logits[:, :6], before)

    def test_generation_goes_on_with_the_prompts_gates(self, ids: torch.Tensor) -> None:
        model = shake(adapt(tiny_llama(), router_scope="row")).eval()
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
        labels = out.clone()
        labels[:, : ids.shape[1]] = -100
        logits = model(input_ids=out, labels=labels).logits
        assert torch.equal(logits[:, ids.shape[1] - 1 : -1].argmax(-1), out[:, ids.shape[1] :])

    def test_neighbours_and_padding_change_nothing(self, ids: torch.Tensor) -> None:
        model = shake(adapt(tiny_llama(), router_scope="row")).eval()
        mask = torch.ones_like(ids)
        mask[0, 6:] = 0
        together = model(input_ids=ids, attention_mask=mask).logits[0, :6]
        torch.testing.assert_close(together, model(input_ids=ids[:1, :6]).logits[0], atol=1e-5, rtol=1e-5)

    def test_a_cache_without_its_beginning_is_refused(self, ids: torch.Tensor) -> None:
        model = adapt(tiny_llama(), router_scope="row").eval()
        cache = model(input_ids=ids, use_cache=True).past_key_values
        with pytest.raises(ConfigError, match="pass_rows"):
            model(input_ids=ids[:, :1], past_key_values=cache)


class TestOracle:
    def test_a_named_head_is_alone_and_unnamed_heads_are_equal(self) -> None:
        router, x = OracleRouter(NUM_HEADS), torch.randn(2, 5, 12)
        layer = one_layer(router="oracle")
        assert torch.equal(router(x), torch.full((2, 5, NUM_HEADS), 1 / NUM_HEADS))
        with pass_rows(layer, torch.ones(2, 5).bool(), torch.tensor([2, 0])):
            gates = layer.hydra_router["default"](x)
        expected = nn.functional.one_hot(torch.tensor([2, 0]), NUM_HEADS).float()
        assert torch.equal(gates, expected.unsqueeze(1).expand(2, 5, NUM_HEADS))

    def test_it_has_no_parameters(self) -> None:
        assert count_parameters(adapt(tiny_llama(), router="oracle")).router == 0


def test_a_frozen_router_has_gates_and_no_gradient(ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama(), train_router=False))
    model.set_adapter("default")
    model(input_ids=ids, labels=ids).loss.backward()
    for layer in hydra_layers(model).values():
        assert layer.hydra_router["default"].get_parameter("weight").grad is None
        assert bool(layer.hydra_B["default"].grad.any())
    assert count_parameters(model).router == 0


class TestCores:
    def test_it_is_a_sum_over_heads_that_share_a_and_b(self) -> None:
        layer = one_layer(cores=True)
        x = torch.randn(2, 7, 12)
        a, heads = head_matrices(layer)  # (1, r, in), (N, out, r)
        cores = layer.hydra_core["default"].get_parameter("weight")
        b = layer.hydra_B["default"][0]  # (r, out)
        z = x @ a[0].T
        gates = layer.hydra_router["default"](z)
        expected = sum(gates[..., i, None] * (z @ cores[i] @ b) for i in range(NUM_HEADS))
        torch.testing.assert_close(layer(x) - layer.base_layer(x), layer.scaling["default"] * expected)
        torch.testing.assert_close(heads[1], (cores[1] @ b).T)

    def test_its_size_does_not_grow_with_the_heads_as_whole_heads_do(self) -> None:
        few, many = (count_parameters(adapt(tiny_llama(), r=2, num_heads=n, cores=True)).adapter for n in (2, 8))
        layers = len(hydra_layers(adapt(tiny_llama())))
        assert many - few == 6 * layers * 2 * 2

    def test_a_new_one_changes_nothing_and_all_of_it_learns(self, ids: torch.Tensor) -> None:
        model = adapt(tiny_llama(), cores=True)
        assert torch.equal(model(ids).logits, tiny_llama()(ids).logits)
        shake(model)(input_ids=ids, labels=ids).loss.backward()
        learnt = [parameter for name, parameter in model.named_parameters() if "hydra_" in name]
        assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in learnt)


class TestHeadsFromComponents:
    def test_heads_sum_to_zero_and_lie_along_their_components_outputs(self) -> None:
        model = adapt(tiny_llama(), num_heads=2, head_init="components")
        rows = [{"input_ids": [5 + 20 * (i % 2) + (i + j) % 7 for j in range(8)]} for i in range(12)]
        labels = [i % 2 for i in range(12)]
        name, layer = next(iter(hydra_layers(model).items()))
        outputs: dict[int, list[torch.Tensor]] = {0: [], 1: []}
        init_heads(model, rows, labels)
        handle = layer.base_layer.register_forward_hook(
            lambda module, inputs, output: seen.append(output.flatten(0, -2))
        )
        for row, label in zip(rows, labels, strict=True):
            seen: list[torch.Tensor] = []
            with model.disable_adapter():
                model(torch.tensor([row["input_ids"]]))
            outputs[label] += seen
        handle.remove()
        means = [torch.cat(outputs[label]).mean(0) for label in (0, 1)]
        heads = layer.hydra_B["default"].detach()  # (N, r, out)
        torch.testing.assert_close(heads.sum(0), torch.zeros_like(heads[0]), atol=1e-6, rtol=0)
        cosine = nn.functional.cosine_similarity(heads[0, 0], means[0] - means[1], dim=0)
        assert abs(float(cosine)) == pytest.approx(1, abs=1e-3), name

    def test_with_equal_gates_the_output_stays(self, ids: torch.Tensor) -> None:
        model = adapt(tiny_llama(), num_heads=2, head_init="components", router="uniform")
        rows = [{"input_ids": [5 + i, 9, 20 + i]} for i in range(8)]
        init_heads(model, rows, [i % 2 for i in range(8)])
        torch.testing.assert_close(model(ids).logits, tiny_llama()(ids).logits, atol=1e-5, rtol=1e-5)


class TestGateInformation:
    def test_it_is_the_mutual_information_of_token_and_head(self) -> None:
        mask = torch.ones(1, 6).bool()
        one_head_each = nn.functional.one_hot(torch.arange(6) % NUM_HEADS).float().view(1, 1, 6, NUM_HEADS)
        assert float(gate_information(one_head_each, mask)) == pytest.approx(torch.tensor(3.0).log().item(), abs=1e-6)
        alike = torch.rand(1, 1, 1, NUM_HEADS).softmax(-1).expand(1, 1, 6, NUM_HEADS)
        assert float(gate_information(alike, mask)) == pytest.approx(0, abs=1e-6)

    def test_padding_does_not_count(self) -> None:
        gates, mask = torch.rand(2, 1, 6, NUM_HEADS).softmax(-1), torch.tensor([[1, 1, 1, 0, 0, 0]]).bool()
        torch.testing.assert_close(gate_information(gates, mask), gate_information(gates[:, :, :3], mask[:, :3]))

    def test_parts_of_a_batch_have_the_whole_ones_value_and_together_its_gradient(self) -> None:
        logits, mask = torch.randn(2, 2, 4, NUM_HEADS, requires_grad=True), torch.ones(2, 4).bool()
        information = gate_information(logits.softmax(-1), mask)
        (whole,) = torch.autograd.grad(information, logits)
        sums: list[torch.Tensor] = []  # of each part, as it hands them to the others

        def first_pass(values: torch.Tensor) -> torch.Tensor:
            if values.dim():
                sums.append(values)
                return values
            return 2 * values  # both parts have as many tokens

        for i in range(2):
            gate_information(logits[:, i : i + 1].softmax(-1), mask[:1], first_pass)
        together = torch.zeros_like(whole)
        for i in range(2):
            part = gate_information(
                logits[:, i : i + 1].softmax(-1),
                mask[:1],
                lambda values, i=i: values + sums[1 - i] if values.dim() else 2 * values,  # type: ignore[misc]
            )
            torch.testing.assert_close(part, information)
            together += torch.autograd.grad(part, logits)[0]
        torch.testing.assert_close(together, whole)

"""The adapter's options: what each promises of the start, of the gates, of training, and of a saved adapter."""

import itertools
import json
import math
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn

from hydralora import ConfigError, HydraLoraConfig, record_gates
from hydralora.analysis import head_similarity, matrices, model_weights
from hydralora.tuner.layer import HydraLoraLayer
from hydralora.tuner.model import count_parameters, head_matrices, hydra_layers
from tests.known import known
from tests.tiny_model import adapt, shake, tiny_gemma2, tiny_gpt2, tiny_llama, tiny_opt

ROUTER_INPUTS = ["latent", "hidden"]
NON_DEFAULT: list[dict[str, Any]] = [
    {"head_init": "centred"},
    {"head_dropout": 0.3},
    {"top_k": 2},
    {"balance_weight": 0.01},
    {"router": "uniform"},
    {"shared_A": False},
    {"shared_A": False, "router_input": "hidden", "top_k": 1, "router_bias": True},
    {"shared_A": False, "router": "uniform", "head_init": "centred"},
    {"router": "cosine"},
    {"router_norm": True, "router_bias": True},
    {"router_scope": "row"},
    {"router": "oracle"},
    {"train_router": False},
    {"gate_information": 0.1},
    {"vectors": True, "router_input": "hidden"},
    {"cores": True, "router_scope": "row", "router": "cosine"},
]


def one_layer(in_features: int = 12, out_features: int = 20, **settings: Any) -> HydraLoraLayer:
    """An adapted linear layer with random heads, in eval mode."""
    torch.manual_seed(0)
    config = HydraLoraConfig(**{"r": 4, "num_heads": 5, "lora_alpha": 6} | settings)
    layer = HydraLoraLayer(nn.Linear(in_features, out_features), "default", config).eval()
    nn.init.normal_(layer.hydra_B["default"])
    return layer


def learnt(layer: HydraLoraLayer) -> list[nn.Parameter]:
    return [parameter for name, parameter in layer.named_parameters() if "hydra_" in name]


def dense_gates(layer: HydraLoraLayer, features: torch.Tensor) -> torch.Tensor:
    router = layer.hydra_router["default"]
    scores = features @ router.get_parameter("weight").T  # (..., N)
    weights = (scores if router.bias is None else scores + router.get_parameter("bias")).exp()
    return weights / weights.sum(-1, keepdim=True)


def gradients(model: Any, ids: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """The first step's gradients by module name: of A, of the router, of the heads (N, r, out)."""
    model(input_ids=ids, labels=ids).loss.backward()
    found = {}
    for name, layer in hydra_layers(model).items():
        parts = {"A": layer.hydra_A["default"], "router": layer.hydra_router["default"]}
        learnt = {part: module.get_parameter("weight") for part, module in parts.items()}
        learnt["heads"] = layer.hydra_B["default"]
        found[name] = {part: cast(torch.Tensor, parameter.grad) for part, parameter in learnt.items()}
    return found


class TestCentredStart:
    @pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_gemma2, tiny_opt])
    @pytest.mark.parametrize("router_input", ROUTER_INPUTS)
    @pytest.mark.parametrize("shared_A", [True, False])
    def test_it_equals_the_base_and_the_router_learns_at_once(
        self, make: Callable[[], Any], router_input: str, shared_A: bool, ids: torch.Tensor
    ) -> None:
        base, fresh = (
            make(),
            adapt(
                make(),
                head_init="centred",
                num_heads=4,
                target_modules=None,
                router_input=router_input,
                shared_A=shared_A,
            ),
        )
        torch.testing.assert_close(fresh(ids).logits, base(ids).logits, atol=1e-5, rtol=0)
        for layer in hydra_layers(fresh).values():
            heads = layer.hydra_B["default"].detach()
            torch.testing.assert_close(heads.sum(0), torch.zeros(heads.shape[1:]), atol=1e-6, rtol=0)
            pairs = itertools.combinations(heads, 2)
            assert min(float((one - other).norm()) for one, other in pairs) > 0.5 * float(heads[0].norm())
        for gradient in gradients(fresh, ids).values():
            assert gradient["router"].any(-1).all()
            assert gradient["router"].norm() > 1e-7

    def test_a_router_with_a_bias_starts_uniform(self, ids: torch.Tensor) -> None:
        model = adapt(tiny_llama(), head_init="centred", router_bias=True)
        with record_gates(model) as record:
            model(ids)
        assert torch.equal(record.stacked(), torch.full((6, 3, 10, 3), 1 / 3))

    @pytest.mark.parametrize("settings", [{}, {"shared_A": False}, {"router": "uniform"}, {"top_k": 1}], ids=str)
    def test_a_single_head_is_the_base(self, settings: dict[str, Any], ids: torch.Tensor) -> None:
        model = adapt(tiny_llama(), head_init="centred", num_heads=1, **settings)
        assert torch.equal(model(ids).logits, tiny_llama()(ids).logits)

    def test_every_module_has_heads_of_its_own(self) -> None:
        layers = hydra_layers(adapt(tiny_llama(), head_init="centred"))
        one, other = (layers[f"model.layers.{i}.mlp.up_proj"].hydra_B["default"] for i in (0, 1))
        assert not torch.allclose(one, other)

    def test_part_of_the_heads_is_refused_since_it_sums_to_something(self) -> None:
        with pytest.raises(ConfigError, match=r"head_init='centred'.*top_k=2 of 3"):
            HydraLoraConfig(head_init="centred", top_k=2)
        assert HydraLoraConfig(head_init="centred", top_k=3).top_k == 3


class TestZeroStart:
    @pytest.mark.parametrize("settings", [{}, {"router_input": "hidden"}, {"shared_A": False}, {"top_k": 2}], ids=str)
    @pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_opt])
    def test_no_bit_changes_and_only_the_heads_learn_at_first(
        self, make: Callable[[], Any], settings: dict[str, Any], ids: torch.Tensor
    ) -> None:
        model = adapt(make(), target_modules=None, **settings)
        assert torch.equal(model(ids).logits, make()(ids).logits)
        assert all(cosine is None for cosine in head_similarity(model_weights(model)).values())
        for gradient in gradients(model, ids).values():
            assert not gradient["A"].any()
            assert not gradient["router"].any()
            assert gradient["heads"].any()

    def test_router_weights_are_random(self) -> None:
        layer = one_layer()
        assert bool(layer.hydra_router["default"].get_parameter("weight").any(-1).all())


class TestHeadDropout:
    HEADS, RANK, TOKENS, SHARE = 4, 8, 2000, 0.3

    @pytest.fixture(params=[True, False], ids=["shared A", "own A"])
    def layer(self, request: pytest.FixtureRequest) -> HydraLoraLayer:
        """Its output is every head's latent side by side: (tokens, N * r)."""
        width = self.HEADS * self.RANK
        layer = one_layer(
            6,
            width,
            r=self.RANK,
            num_heads=self.HEADS,
            lora_alpha=self.RANK,
            head_dropout=self.SHARE,
            shared_A=request.param,
        )
        nn.init.zeros_(layer.base_layer.get_parameter("weight"))
        nn.init.zeros_(layer.base_layer.get_parameter("bias"))
        layer.hydra_B["default"].data = torch.eye(width).view(self.HEADS, self.RANK, width)
        return layer

    @torch.no_grad()
    def test_every_head_has_a_mask_of_its_own(self, layer: HydraLoraLayer) -> None:
        x = torch.randn(self.TOKENS, 6)
        whole = layer.eval()(x)
        dropped = layer.train()(x)
        kept = dropped != 0  # (tokens, N * r)
        torch.testing.assert_close(dropped, torch.where(kept, whole / (1 - self.SHARE), 0.0))
        masks = kept.view(self.TOKENS, self.HEADS, self.RANK)
        shares = masks.float().mean((0, 2))  # of each head
        torch.testing.assert_close(shares, torch.full((self.HEADS,), 1 - self.SHARE), atol=0.02, rtol=0)
        independent = self.SHARE**2 + (1 - self.SHARE) ** 2
        for one, other in itertools.combinations(range(self.HEADS), 2):
            agreement = float((masks[:, one] == masks[:, other]).float().mean())
            assert agreement == pytest.approx(independent, abs=0.02)

    @torch.no_grad()
    def test_the_expectation_is_that_without_dropout(self, layer: HydraLoraLayer) -> None:
        x = torch.randn(20, 6)
        mean = sum(layer.train()(x) for _ in range(2000)) / 2000
        torch.testing.assert_close(mean, layer.eval()(x), atol=0.05, rtol=0)

    @torch.no_grad()
    def test_it_works_in_training_only_and_anew_each_time(self, layer: HydraLoraLayer) -> None:
        x = torch.randn(20, 6)
        assert torch.equal(layer.eval()(x), layer(x))
        assert not torch.equal(layer.train()(x), layer(x))
        without = one_layer(head_dropout=0.0).train()
        wide = torch.randn(20, 12)
        assert torch.equal(without(wide), one_layer(head_dropout=0.5).eval()(wide))

    @pytest.mark.parametrize("router_input", ROUTER_INPUTS)
    @torch.no_grad()
    def test_gates_are_left_alone(self, router_input: str) -> None:
        layer = one_layer(head_dropout=0.5, router_input=router_input)
        x = torch.randn(2, 7, 12)
        with record_gates(layer) as record:
            layer.eval()(x)
            layer.train()(x)
        assert torch.equal(*record.passes)


class TestTopK:
    @pytest.mark.parametrize("k", [1, 2, 4])
    @pytest.mark.parametrize("router_input", ROUTER_INPUTS)
    def test_the_largest_gates_are_kept_in_proportion(self, router_input: str, k: int) -> None:
        layer = one_layer(router_input=router_input, top_k=k, router_bias=True)
        nn.init.normal_(layer.hydra_router["default"].get_parameter("weight"))
        nn.init.normal_(layer.hydra_router["default"].get_parameter("bias"))
        x, upstream = torch.randn(2, 7, 12), torch.randn(2, 7, 20)
        z = x @ layer.hydra_A["default"].get_parameter("weight").T
        dense = dense_gates(layer, x if router_input == "hidden" else z)
        cut = dense.sort(-1, descending=True).values[..., k - 1 : k]
        wanted = torch.where(dense >= cut, dense, 0.0)
        wanted = wanted / wanted.sum(-1, keepdim=True)
        with record_gates(layer) as record:
            ours = layer(x)
        gates = record.stacked().view(2, 7, 5)
        assert bool(((gates != 0).sum(-1) == k).all())
        torch.testing.assert_close(gates, wanted)
        theirs = layer.base_layer(x)
        for i, head in enumerate(layer.hydra_B["default"]):
            theirs = theirs + 6 / 4 * wanted[..., i : i + 1] * (z @ head)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        for mine, oracle in zip(
            torch.autograd.grad(ours, learnt(layer), upstream),
            torch.autograd.grad(theirs, learnt(layer), upstream),
            strict=True,
        ):
            torch.testing.assert_close(mine, oracle, atol=1e-5, rtol=1e-4)

    def test_all_of_them_is_the_dense_router(self, ids: torch.Tensor) -> None:
        models = [shake(adapt(tiny_llama(), num_heads=4, top_k=k)) for k in (4, None, 3)]
        all_of_them, dense, fewer = (model(ids).logits for model in models)
        assert torch.equal(all_of_them, dense)
        assert not torch.allclose(fewer, dense, atol=1e-4)

    @pytest.mark.parametrize("k", [1, 2])
    def test_every_module_keeps_so_many(self, k: int, ids: torch.Tensor) -> None:
        model = shake(adapt(tiny_llama(), num_heads=4, top_k=k))
        with record_gates(model) as record:
            model(ids)
        assert bool(((record.stacked() > 0).sum(-1) == k).all())
        torch.testing.assert_close(record.stacked().sum(-1), torch.ones(6, 3, 10))

    def test_gradients_reach_the_router(self, ids: torch.Tensor) -> None:
        model = shake(adapt(tiny_llama(), num_heads=4, top_k=2))
        for gradient in gradients(model, ids).values():
            assert all(bool(value.isfinite().all()) for value in gradient.values())
            assert gradient["router"].any()
            assert gradient["A"].any()


class TestUniformGates:
    @pytest.mark.parametrize("num_heads", [1, 3, 7])
    @pytest.mark.parametrize("router_input", ROUTER_INPUTS)
    def test_every_gate_is_exactly_its_share(self, router_input: str, num_heads: int, ids: torch.Tensor) -> None:
        model = shake(adapt(tiny_llama(), router="uniform", num_heads=num_heads, router_input=router_input))
        with record_gates(model) as record:
            logits = model(ids).logits
        assert torch.equal(record.stacked(), torch.full((6, 3, 10, num_heads), 1 / num_heads))
        assert not torch.allclose(logits, tiny_llama()(ids).logits, atol=1e-3)

    def test_it_is_a_router_with_zero_weights(self, ids: torch.Tensor) -> None:
        uniform, dense = (shake(adapt(tiny_llama(), router=router)) for router in ("uniform", "softmax"))
        with torch.no_grad():
            for mine, theirs in zip(hydra_layers(uniform).values(), hydra_layers(dense).values(), strict=True):
                a = mine.hydra_A["default"].get_parameter("weight")
                a.copy_(theirs.hydra_A["default"].get_parameter("weight"))
                mine.hydra_B["default"].copy_(theirs.hydra_B["default"])
                theirs.hydra_router["default"].get_parameter("weight").zero_()
        assert torch.equal(uniform(ids).logits, dense(ids).logits)

    def test_there_is_no_router_to_train_or_save(self, tmp_path: Path, ids: torch.Tensor) -> None:
        model = adapt(tiny_llama(), router="uniform")
        dense = count_parameters(adapt(tiny_llama()))
        assert count_parameters(model).router == 0
        assert count_parameters(model).total == dense.total - dense.router == dense.adapter
        assert not any("router" in name for name, _ in model.named_parameters())
        model.save_pretrained(tmp_path)
        assert not any("router" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
        model(input_ids=ids, labels=ids).loss.backward()
        assert all(bool(layer.hydra_B["default"].grad.any()) for layer in hydra_layers(model).values())

    @pytest.mark.parametrize(
        "other",
        [
            {"router_init": "components"},
            {"router_norm": True},
            {"router_scope": "row"},
            {"train_router": False},
            {"top_k": 1},
            {"top_k": 3},
            {"router_bias": True},
            {"balance_weight": 1},
            {"gate_information": 1},
        ],
    )
    @pytest.mark.parametrize("router", ["uniform", "oracle"])
    def test_settings_of_a_router_are_refused(self, other: dict[str, Any], router: Any) -> None:
        with pytest.raises(ConfigError, match=f"router='{router}'.*{next(iter(other))}={next(iter(other.values()))!r}"):
            HydraLoraConfig(router=router, **other)


class TestOwnA:
    @pytest.mark.parametrize("router", ["softmax", "uniform"])
    @pytest.mark.parametrize("router_input", ROUTER_INPUTS)
    def test_it_is_a_loop_over_complete_pairs(self, router_input: str, router: str) -> None:
        layer = one_layer(shared_A=False, router_input=router_input, router=router)
        x, upstream = torch.randn(2, 7, 12, requires_grad=True), torch.randn(2, 7, 20)
        pairs = list(
            zip(layer.hydra_A["default"].get_parameter("weight").split(4), layer.hydra_B["default"], strict=True)
        )
        latents = [x @ a.T for a, _ in pairs]
        gates = torch.full((2, 7, 5), 1 / 5)
        if router == "softmax":
            gates = dense_gates(layer, x if router_input == "hidden" else torch.cat(latents, -1))
        theirs = layer.base_layer(x)
        for i, (z, (_, b)) in enumerate(zip(latents, pairs, strict=True)):
            theirs = theirs + 6 / 4 * gates[..., i : i + 1] * (z @ b)
        ours = layer(x)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        wanted = [x, *learnt(layer)]
        for mine, oracle in zip(
            torch.autograd.grad(ours, wanted, upstream), torch.autograd.grad(theirs, wanted, upstream), strict=True
        ):
            torch.testing.assert_close(mine, oracle, atol=1e-5, rtol=1e-4)

    def test_each_pair_starts_different(self) -> None:
        a = one_layer(shared_A=False).hydra_A["default"].get_parameter("weight").view(5, 4, 12)
        assert all(not torch.allclose(one, other) for one, other in itertools.combinations(a, 2))

    @pytest.mark.parametrize("router_input", ROUTER_INPUTS)
    def test_every_a_is_counted(self, router_input: str) -> None:
        model = adapt(tiny_llama(), shared_A=False, num_heads=3, r=4, router_input=router_input)
        widths = [(48, 80), (48, 80), (80, 48)] * 2
        router = sum(3 * (wide if router_input == "hidden" else 3 * 4) for wide, _ in widths)
        adapter = sum(3 * 4 * (wide + out) for wide, out in widths)
        counted = count_parameters(model)
        assert (counted.adapter, counted.router, counted.total) == (adapter, router, adapter + router)

    def test_analysis_shows_every_a(self) -> None:
        model = shake(adapt(tiny_llama(), shared_A=False, num_heads=3))
        found = matrices(model_weights(model))
        for name, layer in hydra_layers(model).items():
            kinds = [(one.kind, one.head) for one in found if one.module == name]
            assert kinds == [*(("A", i) for i in range(3)), *(("head", i) for i in range(3))]
            a = layer.hydra_A["default"].get_parameter("weight").view(3, 4, -1)
            for one in (one for one in found if one.module == name and one.kind == "A"):
                assert one.shape == (4, layer.in_features)
                assert one.vector.tolist() == a[one.head].flatten().tolist()

    def test_a_shared_one_stays_one(self) -> None:
        found = matrices(model_weights(shake(adapt(tiny_llama()))))
        assert [one.head for one in found if one.kind == "A"] == [None] * 6


class TestVectors:
    """vectors=True: heads scale the output, and there is no A."""

    def test_the_output_is_scaled_by_each_tokens_mixture(self) -> None:
        layer = one_layer(vectors=True, router_input="hidden")
        x = torch.randn(2, 7, 12)
        base, gates = layer.base_layer(x), dense_gates(layer, x)
        vectors = layer.hydra_B["default"].squeeze(1)  # (N, out)
        torch.testing.assert_close(layer(x), base * (1 + torch.einsum("btn,no->bto", gates, vectors)))
        layer.set_scale("default", 0.5)
        torch.testing.assert_close(layer(x), base * (1 + torch.einsum("btn,no->bto", gates, vectors) / 2))

    def test_one_vector_is_peft_s_ia3(self) -> None:
        """One head on a layer whose output is scaled: the same as PEFT's own (IA)3 layer with the vector 1 + v."""
        layer = one_layer(vectors=True, router_input="hidden", num_heads=1)
        theirs: Any = get_peft_model(
            nn.Sequential(OrderedDict(linear=deepcopy(layer.base_layer))),
            IA3Config(target_modules=["linear"], feedforward_modules=[]),
        )
        scale = theirs.base_model.model.linear.ia3_l["default"]  # (out, 1)
        scale.data.copy_(1 + layer.hydra_B["default"].detach().view(-1, 1))
        x = torch.randn(3, 12)
        torch.testing.assert_close(layer(x), theirs(x))

    def test_a_new_one_changes_no_bit_and_learns(self, ids: torch.Tensor) -> None:
        base = tiny_llama()(ids).logits
        model = adapt(tiny_llama(), vectors=True, router_input="hidden")
        assert torch.equal(model(ids).logits, base)
        assert not any("hydra_A" in name for name, _ in model.named_parameters())
        model(ids).logits.square().sum().backward()
        for layer in hydra_layers(model).values():
            assert known(layer.hydra_B["default"].grad).abs().sum() > 0

    def test_it_has_no_matrices(self) -> None:
        model = shake(adapt(tiny_llama(), vectors=True, router_input="hidden"))
        assert model_weights(model) == {}
        with pytest.raises(ConfigError, match=r"vectors.* have no A"):
            head_matrices(next(iter(hydra_layers(model).values())))


@pytest.mark.parametrize("settings", NON_DEFAULT, ids=str)
@torch.no_grad()
def test_a_saved_adapter_comes_back_with_its_options(
    settings: dict[str, Any], tmp_path: Path, ids: torch.Tensor
) -> None:
    model = shake(adapt(tiny_llama(), num_heads=3, **settings))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).eval()
    assert {name: getattr(again.peft_config["default"], name) for name in settings} == settings
    assert torch.equal(again(ids).logits, model(ids).logits)
    plain = tiny_llama()
    plain.load_adapter(str(tmp_path))  # transformers' own
    if settings.get("router_scope") == "row":
        with pytest.raises(ConfigError, match="PeftModel"):  # nothing tells the router its rows
            plain.eval()(ids)
    else:
        assert torch.equal(plain.eval()(ids).logits, model(ids).logits)


def test_an_adapter_saved_before_there_were_options_loads(tmp_path: Path, ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for name in ("router", "top_k", "balance_weight", "head_init", "head_dropout", "shared_A"):
        del config[name]
    path.write_text(json.dumps(config), encoding="utf-8")
    again = PeftModel.from_pretrained(tiny_llama(), str(tmp_path)).eval()
    assert torch.equal(again(ids).logits, model(ids).logits)


@pytest.mark.parametrize("settings", NON_DEFAULT, ids=str)
@torch.no_grad()
def test_adapters_of_unlike_options_are_switched_and_deleted(settings: dict[str, Any], ids: torch.Tensor) -> None:
    model = shake(adapt(tiny_llama()))
    first = model(ids).logits
    targets = ["up_proj", "gate_proj", "down_proj"]
    model.add_adapter("second", HydraLoraConfig(r=2, num_heads=5, target_modules=targets, **settings))
    assert torch.equal(model(ids).logits, first)
    model.set_adapter("second")
    torch.testing.assert_close(model(ids).logits, tiny_llama()(ids).logits, atol=1e-5, rtol=0)
    model.set_adapter("default")
    model.delete_adapter("second")
    assert torch.equal(model(ids).logits, first)
    for layer in hydra_layers(model).values():
        kept = {name: getattr(layer, name) for name in (*layer.adapter_layer_names, *layer.other_param_names)}
        assert {name: list(value) for name, value in kept.items() if len(value)} == {
            name: ["default"] for name in kept if name != "hydra_core"
        }


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"head_dropout": 1.0}, "head_dropout is 1.0"),
        ({"head_dropout": -0.1}, "head_dropout is -0.1"),
        ({"head_dropout": math.nan}, "head_dropout is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 4}, "top_k is 4.*num_heads=3"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"top_k": True}, "top_k is True"),
        ({"balance_weight": -1.0}, "balance_weight is -1.0"),
        ({"balance_weight": math.nan}, "balance_weight is nan"),
        ({"balance_weight": math.inf}, "balance_weight is inf"),
        ({"head_init": "random"}, "head_init is 'random'.*zeros, centred"),
        ({"gate_information": -1.0}, "gate_information is -1.0"),
        ({"router": "cosine", "router_bias": True}, "router='cosine'.*router_bias=True"),
        ({"cores": True, "shared_A": False}, "cores=True.*shared_A=False"),
        ({"cores": True, "head_init": "centred"}, "cores=True.*head_init='centred'"),
        ({"head_init": "components", "shared_A": False}, "head_init='components'.*shared_A=False"),
        ({"head_init": "components", "init_weights": False}, "head_init='components'.*init_weights=False"),
        ({"vectors": True}, "vectors=True.*router_input='latent'"),
        ({"vectors": True, "router_input": "hidden", "cores": True}, "vectors=True.*cores=True"),
        ({"vectors": True, "router_input": "hidden", "shared_A": False}, "vectors=True.*shared_A=False"),
        ({"router": "none"}, "router is 'none'.*softmax, cosine, uniform"),
    ],
)
def test_wrong_options_are_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        HydraLoraConfig(**wrong)


@pytest.mark.parametrize("shape", [(12,), (7, 12), (2, 7, 12), (2, 3, 4, 12), (0, 12), (2, 0, 12)], ids=str)
@pytest.mark.parametrize("shared_A", [True, False])
def test_an_input_may_have_any_shape(shape: tuple[int, ...], shared_A: bool) -> None:
    layer = one_layer(shared_A=shared_A)
    x = torch.randn(*shape)
    rows = layer(x.reshape(-1, 12)) if x.numel() else torch.zeros(0, 20)
    assert layer(x).shape == (*shape[:-1], 20)
    torch.testing.assert_close(layer(x), rows.view(*shape[:-1], 20), atol=1e-6, rtol=0)


def test_an_input_may_lie_in_memory_in_any_order() -> None:
    layer, x = one_layer(), torch.randn(7, 2, 12)
    torch.testing.assert_close(layer(x.transpose(0, 1)), layer(x).transpose(0, 1), atol=1e-6, rtol=0)


def test_an_input_in_another_order_costs_a_fresh_layer_no_bit() -> None:
    torch.manual_seed(0)
    base = nn.Linear(96, 160).to(torch.bfloat16)
    x = torch.randn(33, 5, 96, dtype=torch.bfloat16).transpose(0, 1)
    assert torch.equal(HydraLoraLayer(base, "default", HydraLoraConfig(r=4))(x), base(x))


def test_hooks_on_the_base_layer_see_what_the_base_layer_gives() -> None:
    layer, x = one_layer(), torch.randn(2, 7, 12)
    alone, adapted = layer.base_layer(x), layer(x)
    seen: list[torch.Tensor] = []
    handle = layer.base_layer.register_forward_hook(lambda module, args, out: seen.append(out))
    torch.testing.assert_close(layer(x), adapted)
    handle.remove()
    torch.testing.assert_close(seen[0].view_as(alone), alone)


@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_backward_hooks_on_the_base_layer_work(kind: str) -> None:
    layer, x = one_layer(), torch.randn(2, 7, 12, requires_grad=True)
    plain = torch.autograd.grad(layer(x).square().sum(), x)[0]
    seen: list[Any] = []
    getattr(layer.base_layer, kind)(lambda *args: seen.append(args))
    torch.testing.assert_close(torch.autograd.grad(layer(x).square().sum(), x)[0], plain)
    assert seen

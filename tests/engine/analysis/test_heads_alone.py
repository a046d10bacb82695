"""Each head alone, against the router: the answers are the pinned ones, and the divergence is the formula's."""

from typing import Any

import pytest
import torch

from hydralora import ConfigError, steer_gates
from hydralora.analysis.heads_alone import heads_alone
from hydralora.data.encoding import encode_prompt
from hydralora.inference.generation import Sampling, generate
from hydralora.tuner.gates import record_gates
from hydralora.tuner.steering import Steering
from tests.tiny_model import adapt, shake, tiny_llama

ASK = [{"role": "user", "content": "name a fruit"}]
SAMPLING = Sampling(6)


@pytest.fixture(scope="module")
def model() -> Any:
    return shake(adapt(tiny_llama(), num_heads=3))


def test_each_head_is_measured_from_the_routed_model(model: Any, tokenizer: Any) -> None:
    told: list[tuple[int, int]] = []
    found = heads_alone(model, tokenizer, ASK, SAMPLING, on_progress=lambda *far: told.append(far))
    assert told == [(i, 4) for i in range(1, 5)]
    routed = list(generate(model, tokenizer, ASK, SAMPLING))
    assert found.text == "".join(token.text for token in routed)
    prompt = encode_prompt(tokenizer, ASK)
    chosen = [token.id for token in routed]
    assert len(chosen) == SAMPLING.max_new_tokens  # so that it was cut: behind its last token nothing was chosen
    ids = torch.tensor([prompt + chosen[:-1]])
    with torch.no_grad(), record_gates(model) as record:
        wanted = model(ids).logits[0, len(prompt) - 1 :].double().log_softmax(-1)
    gates = record.stacked()[:, 0, len(prompt) - 1 :].mean((0, 1))
    for one in found.heads:
        with torch.no_grad(), steer_gates(model, pin=one.head):
            alone = model(ids).logits[0, len(prompt) - 1 :].double().log_softmax(-1)
        assert one.kl == pytest.approx(float((wanted.exp() * (wanted - alone)).sum(-1).mean()), rel=1e-3)
        assert one.kl > 0
        assert one.gate == pytest.approx(float(gates[one.head]), abs=1e-5)
        pinned = generate(model, tokenizer, ASK, SAMPLING, steering=Steering(pin=one.head))
        assert one.text == "".join(token.text for token in pinned)
    assert sum(one.gate for one in found.heads) == pytest.approx(1, abs=1e-5)
    assert found.closest.kl == min(one.kl for one in found.heads)


def test_one_head_is_the_routed_model(tokenizer: Any) -> None:
    found = heads_alone(shake(adapt(tiny_llama(), num_heads=1)), tokenizer, ASK, SAMPLING)
    (one,) = found.heads
    assert one.kl == pytest.approx(0, abs=1e-6)
    assert one.text == found.text
    assert one.gate == pytest.approx(1)


def test_a_model_without_heads_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="no heads"):
        heads_alone(tiny_llama(), tokenizer, ASK, SAMPLING)

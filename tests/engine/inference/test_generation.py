"""Generation: what is written, by whom, and with which gates."""

import threading
from typing import Any

import pytest
import torch

from hydralora import ConfigError, record_gates
from hydralora.data.encoding import encode_prompt
from hydralora.inference.generation import Sampling, Token, end_tokens, gated_modules, generate
from tests.tiny_model import adapt, byte_tokenizer, shake, tiny_gpt2, tiny_llama

ASK = [{"role": "user", "content": "Say something, please."}]


def ids_of(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


@pytest.fixture(scope="module")
def model() -> Any:
    return shake(adapt(tiny_llama(), num_heads=4))


def answer(model: Any, tokenizer: Any, new: int = 12, **options: Any) -> list[Token]:
    sampling = Sampling(max_new_tokens=new, **options.pop("sampling", {}))
    return list(generate(model, tokenizer, ASK, sampling, **options))


def test_greedy_equals_transformers_own(model: Any, tokenizer: Any) -> None:
    prompt = torch.tensor([encode_prompt(tokenizer, ASK)])
    whole = model.generate(
        input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    theirs = whole[0, prompt.shape[1] :].tolist()
    if theirs[-1] in end_tokens(model, tokenizer):
        theirs.pop()
    assert ids_of(answer(model, tokenizer)) == theirs


def test_without_the_adapter_it_is_the_base(model: Any, tokenizer: Any, ids: torch.Tensor) -> None:
    never_adapted = tiny_llama()
    base = answer(never_adapted, tokenizer)
    assert ids_of(answer(model, tokenizer, adapter=False)) == ids_of(base)
    assert ids_of(answer(model, tokenizer)) != ids_of(base)
    assert all(token.gates == [] for token in base)
    assert all(token.gates == [] for token in answer(model, tokenizer, adapter=False))
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(ids).logits, never_adapted(ids).logits)


def test_each_token_has_the_gates_that_made_it(model: Any, tokenizer: Any) -> None:
    tokens = answer(model, tokenizer)
    prompt = encode_prompt(tokenizer, ASK)
    with torch.no_grad(), record_gates(model) as record:
        model(torch.tensor([prompt + ids_of(tokens)[:-1]]))
        wanted = record.stacked()[:, 0, len(prompt) - 1 :]  # (modules, tokens, N)
    assert gated_modules(model) == record.modules
    gates = torch.tensor([token.gates for token in tokens]).transpose(0, 1)
    assert gates.shape == (6, len(tokens), 4)
    torch.testing.assert_close(gates, wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(gates.sum(-1), torch.ones(gates.shape[:-1]))


def test_a_seed_gives_the_same_sample(model: Any, tokenizer: Any) -> None:
    def sampled(seed: int) -> list[int]:
        return ids_of(answer(model, tokenizer, sampling={"temperature": 1, "top_p": 0.9, "seed": seed}))

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_a_low_temperature_is_nearly_greedy(model: Any, tokenizer: Any) -> None:
    cold = answer(model, tokenizer, sampling={"temperature": 1e-4})
    assert ids_of(cold) == ids_of(answer(model, tokenizer))


def test_two_answers_on_one_model_dont_mix(model: Any, tokenizer: Any) -> None:
    lock = threading.Lock()
    adapted = generate(model, tokenizer, ASK, Sampling(max_new_tokens=10), lock=lock)
    base = generate(model, tokenizer, ASK, Sampling(max_new_tokens=10), adapter=False, lock=lock)
    pairs = list(zip(adapted, base, strict=False))
    assert len(pairs) > 5
    assert [mine.id for mine, _ in pairs] == ids_of(answer(model, tokenizer, 10))[: len(pairs)]
    assert [other.id for _, other in pairs] == ids_of(answer(tiny_llama(), tokenizer, 10))[: len(pairs)]
    assert not lock.locked()


class Scripted(torch.nn.Module):
    """A model whose next token is the next byte of a text, whatever it is asked."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.ids = ids
        self.config = tiny_llama().config
        self.generation_config = tiny_llama().generation_config
        self.asked = 0

    def forward(self, **kwargs: Any) -> Any:
        logits = torch.zeros(1, 1, 261)
        logits[0, 0, self.ids[self.asked]] = 1
        self.asked += 1
        return type("Output", (), {"logits": logits, "past_key_values": None})()


@pytest.mark.parametrize("text", ["naïve 日本 👍🏽 é", "plain", " spaced  out \n\n"])
def test_characters_of_several_bytes_come_whole(text: str, tokenizer: Any) -> None:
    script = tokenizer(text)["input_ids"]
    tokens = answer(Scripted([*script, tokenizer.eos_token_id]), tokenizer, new=100)
    assert ids_of(tokens) == script
    assert "".join(token.text for token in tokens) == text
    assert all("�" not in token.text for token in tokens)


def test_it_stops_at_the_end_mark_and_at_the_limit(tokenizer: Any) -> None:
    script = tokenizer("abc")["input_ids"]
    assert len(answer(Scripted([*script, tokenizer.eos_token_id, 9]), tokenizer)) == 3
    assert len(answer(Scripted([9] * 50), tokenizer, new=7)) == 7


def test_it_stops_where_the_models_context_ends() -> None:
    tokenizer, model = byte_tokenizer(chat=False), tiny_gpt2()  # 64 positions, which are learned
    prompt = encode_prompt(tokenizer, ASK)
    assert len(prompt) < 64
    tokens = list(generate(model, tokenizer, ASK, Sampling(max_new_tokens=100, temperature=1.0)))
    assert len(prompt) + len(tokens) <= 64


def test_a_conversation_without_room_is_refused() -> None:
    ask = [{"role": "user", "content": "x" * 60}]
    with pytest.raises(ConfigError, match=r"\d+ tokens, the model reads at most 64"):
        next(generate(tiny_gpt2(), byte_tokenizer(chat=False), ask))


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_wrong_sampling_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)

"""Streaming generation with a KV cache: every token comes with the gates that produced it."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from hydralora.data.templates import encode_prompt
from hydralora.errors import ConfigError
from hydralora.gates import record_gates
from hydralora.tuner.model import hydra_layers


@dataclass(frozen=True)
class Token:
    """A generated token. `gates` is (modules, N), float, each row summing to 1; empty without an adapter.

    A token that is only a part of a character has an empty text; the character comes with its last part.
    """

    id: int
    text: str
    gates: list[list[float]]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}. Ask for at least 1 token.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"temperature {self.temperature} and top_p {self.top_p}: set temperature to at least 0 and top_p "
                "above 0, at most 1."
            )


def generate(
    model: Any,
    tokenizer: Any,
    messages: Sequence[dict[str, str]],
    sampling: Sampling | None = None,
    adapter: bool = True,
    lock: AbstractContextManager | None = None,
) -> Iterator[Token]:
    """Answer a conversation token by token, until the end-of-turn mark, max_new_tokens or the end of the context.

    Args:
        model: a causal language model, with or without a PEFT adapter.
        messages: the conversation, as {role, content}, ending with the user's turn.
        adapter: False answers as the base model, the adapter switched off.
        lock: held during each forward pass, so that several generations, adapted or not, can share one model.

    Raises:
        ConfigError: the prompt leaves no room in the model's context.
    """
    sampling = sampling or Sampling()
    prompt = encode_prompt(tokenizer, list(messages))
    room = _room(model, len(prompt))
    generator = torch.Generator().manual_seed(sampling.seed)
    warpers = _warpers(sampling)
    ends = end_tokens(model, tokenizer)
    text = _TextPieces(tokenizer)
    ids = torch.tensor([prompt], device=next(model.parameters()).device)
    everything, cache = ids, None
    for _ in range(min(sampling.max_new_tokens, room)):
        with lock or nullcontext(), torch.inference_mode(), _adapter_state(model, adapter):
            logits, gates, cache = _forward(model, ids, cache, adapter)
        next_id = _choose(warpers(cast(torch.LongTensor, everything.cpu()), logits.float().cpu()), sampling, generator)
        if next_id in ends:
            break
        yield Token(next_id, text.add(next_id), gates)
        ids = torch.tensor([[next_id]], device=everything.device)
        everything = torch.cat([everything, ids], dim=1)


def gated_modules(model: Any) -> list[str]:
    """Names of the adapted modules, in the order of a token's gates."""
    return list(hydra_layers(model))


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Ids that end a turn: the tokenizer's, and those of the model's generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return {i for i in [*ids, tokenizer.eos_token_id] if i is not None}


def _room(model: Any, prompt_tokens: int) -> int:
    """How many tokens fit behind the prompt."""
    limit = getattr(model.config, "max_position_embeddings", None) or sys.maxsize
    if prompt_tokens >= limit:
        raise ConfigError(
            f"The conversation has {prompt_tokens} tokens, the model reads at most {limit}. Shorten it, or clear it."
        )
    return limit - prompt_tokens


def _forward(model: Any, ids: torch.Tensor, cache: Any, adapter: bool) -> tuple[torch.Tensor, list, Any]:
    """Logits (1, vocabulary) of the next token, the last position's gates, and the KV cache."""
    if not (adapter and hydra_layers(model)):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[:, -1], [], output.past_key_values
    with record_gates(model) as record:
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    gates = torch.stack([value[0, -1] for value in record.gates.values()])  # (modules, N)
    return output.logits[:, -1], gates.cpu().tolist(), output.past_key_values


@contextmanager
def _adapter_state(model: Any, adapter: bool) -> Iterator[None]:
    """The adapter on or off. Off as by PEFT's `disable_adapter`, but without its check of the whole model: that takes
    as long as a token, and here it would come with every one."""
    layers = [] if adapter else [m for m in model.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    before = [layer._disable_adapters for layer in layers]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer, disabled in zip(layers, before, strict=True):
            layer._disable_adapters = disabled


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    chosen = LogitsProcessorList()
    if sampling.temperature > 0:
        chosen.append(TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_p < 1:
            chosen.append(TopPLogitsWarper(sampling.top_p))
    return chosen


def _choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax(-1))
    return int(torch.multinomial(logits.softmax(-1), 1, generator=generator))


class _TextPieces:
    """Decodes ids one by one; bytes of an unfinished character are held back."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.written = ""

    def add(self, token_id: int) -> str:
        self.ids.append(token_id)
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if text.endswith("\ufffd"):
            return ""
        piece, self.written = text[len(self.written) :], text
        return piece

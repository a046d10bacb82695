"""Streaming generation with a KV cache; every token has the gates that produced it."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from hydralora.data.encoding import encode_prompt
from hydralora.data.examples import Message
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.data.templates import end_ids
from hydralora.errors import ConfigError
from hydralora.models.adapters import virtual_tokens
from hydralora.models.types import Tokenizer
from hydralora.tuner.gates import record_gates, recorded_layers
from hydralora.tuner.rows import pass_rows, reads_rows
from hydralora.tuner.steering import Steering, steered


@dataclass(frozen=True)
class Alternative:
    """An alternative to a token, with its probability before temperature and top_p."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class Token:
    """A generated token, or one of the prompt.

    A token that is only a part of a character has an empty text; the character is the text of its last part.

    Attributes:
        gates: (modules, N), float, each row summing to 1; empty without an adapter. Those that produced a
            generated token, or those with which a token of the prompt was read.
        alternatives: the likeliest tokens at its place, the likeliest first; none for a token of the prompt.
    """

    id: int
    text: str
    gates: list[list[float]]
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}. Set it to at least 1.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"temperature {self.temperature} and top_p {self.top_p}: set temperature to at least 0 and top_p "
                "above 0, at most 1."
            )


def generate(
    model: Any,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    sampling: Sampling | None = None,
    adapter: bool = True,
    lock: AbstractContextManager[Any] | None = None,
    steering: Steering | None = None,
    alternatives: int = 0,
    on_prompt: Callable[[list[Token]], None] | None = None,
) -> Iterator[Token]:
    """Answer a conversation token by token, until the end-of-turn mark, max_new_tokens or the end of the context.

    Args:
        model: a causal language model, with or without a PEFT adapter.
        messages: the conversation, as {role, content}, ending with the user's turn.
        adapter: False switches the adapter off, so that the base model answers.
        lock: held during each forward pass, so that several generations, adapted or not, can share one model.
        steering: settings that replace the router's gates; without effect if the adapter is switched off.
        alternatives: number of likeliest tokens to return with each token.
        on_prompt: called with the prompt's tokens, special ones too, before the first token is yielded.

    Raises:
        ConfigError: the prompt leaves no room in the model's context, the steering doesn't fit the adapter, or there
            are no gates to steer.
    """
    sampling = sampling or Sampling()
    prompt = encode_prompt(tokenizer, list(messages))
    virtual, base = virtual_tokens(model), model.get_base_model() if isinstance(model, PeftModel) else model
    room = room_for(model.config, len(prompt) + virtual)
    generator = torch.Generator().manual_seed(sampling.seed)
    warpers = _warpers(sampling)
    ends = end_tokens(model, tokenizer)
    text = _TextPieces(tokenizer)
    ids = torch.tensor([prompt], device=next(model.parameters()).device)
    everything, cache = ids, None
    record = record_gates(model, max_tokens=1) if adapter and recorded_layers(model) else None
    adapter_state = record or (nullcontext() if adapter else _AdapterOff(model))
    if steering and adapter and not record:
        raise ConfigError("There are no gates to steer: the model has no HydraLoRA adapter. Generate without steering.")
    steered_gates = steered(model, steering) if steering and record else nullcontext()
    rows = pass_rows(model, torch.ones_like(ids, dtype=torch.bool)) if record and reads_rows(model) else nullcontext()
    for _ in range(min(sampling.max_new_tokens, room)):
        with lock or nullcontext(), torch.inference_mode(), steered_gates, adapter_state, rows:
            # Virtual tokens come before the prompt alone; later, they are in the cache.
            reader = base if virtual and not (adapter and ids is everything) else model
            output = reader(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = output.past_key_values, output.logits[:, -1]
        logits = logits.float().cpu()
        gates = record.stacked()[:, 0, -1].tolist() if record else []
        if on_prompt and ids is everything:
            on_prompt(_read(tokenizer, prompt, record.stacked()[:, 0].transpose(0, 1).tolist() if record else []))
        next_id = _choose(warpers(cast(torch.LongTensor, everything.cpu()), logits), sampling, generator)
        if next_id in ends:
            break
        yield Token(next_id, text.add(next_id), gates, _likeliest(tokenizer, logits[0], alternatives))
        ids = torch.tensor([[next_id]], device=everything.device)
        everything = torch.cat([everything, ids], dim=1)


def _read(tokenizer: Tokenizer, prompt: Sequence[int], gates: Sequence[list[list[float]]]) -> list[Token]:
    """The prompt's tokens with the gates (tokens, modules, N) with which they were read; none without an adapter."""
    text = _TextPieces(tokenizer, special=True)
    return [Token(token_id, text.add(token_id), gates[i] if gates else []) for i, token_id in enumerate(prompt)]


def _likeliest(tokenizer: Tokenizer, logits: torch.Tensor, count: int) -> tuple[Alternative, ...]:
    if not count:
        return ()
    values, ids = logits.softmax(-1).topk(min(count, len(logits)))
    return tuple(
        Alternative(token_id, token_text(tokenizer, token_id), value)
        for token_id, value in zip(ids.tolist(), values.tolist(), strict=True)
    )


def token_text(tokenizer: Tokenizer, token_id: int) -> str:
    """The text of a single token; for a part of a character, its form in the vocabulary."""
    text = str(tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return str(tokenizer.convert_ids_to_tokens(token_id)) if "\ufffd" in text else text


def gated_modules(model: Any) -> list[str]:
    """Names of the adapted modules, in the order of a token's gates."""
    return list(recorded_layers(model))


@torch.inference_mode()
def answer_batch(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    on_progress: OnProgress = ignore_progress,
) -> list[str]:
    """Greedy answers to several prompts at once, given as token ids and padded on the left.

    Padding would separate virtual tokens from the prompt that they were trained to precede, so with such an adapter
    only prompts of one length are answered at once.

    `on_progress` is called after every token with the tokens of each answer so far, and the most that there may be.
    """
    groups: dict[int, list[int]] = {}
    for i, ids in enumerate(prompts):
        groups.setdefault(len(ids) if virtual_tokens(model) else 0, []).append(i)
    answers = [""] * len(prompts)
    for done, group in enumerate(groups.values()):
        before, most = done * max_new_tokens, len(groups) * max_new_tokens
        counted = partial(_count_from, on_progress, before, most)
        texts = _answer_padded(model, tokenizer, [prompts[i] for i in group], max_new_tokens, counted)
        for i, text in zip(group, texts, strict=True):
            answers[i] = text
    return answers


def _count_from(on_progress: OnProgress, before: int, most: int, tokens: int) -> None:
    on_progress(before + tokens, most)


def _answer_padded(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    on_token: Callable[[int], None],
) -> list[str]:
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id
    padded = torch.tensor([[pad] * (width - len(ids)) + list(ids) for ids in prompts])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    device = next(model.parameters()).device
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=sorted(end_tokens(model, tokenizer)) or None,
    )

    def count(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        on_token(ids.shape[1] - width)
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    with warnings.catch_warnings():
        # Virtual tokens shift all positions, so PEFT drops those that transformers gives; unpadded rows need none.
        warnings.filterwarnings("ignore", message="Position ids are not supported", category=UserWarning)
        out = model.generate(
            input_ids=padded.to(device),
            attention_mask=mask.to(device),
            generation_config=greedy,
            stopping_criteria=StoppingCriteriaList([count]),
        )
    return tokenizer.batch_decode(out[:, width:], skip_special_tokens=True, clean_up_tokenization_spaces=False)


def end_tokens(model: Any, tokenizer: Tokenizer) -> set[int]:
    """Ids that end a turn: what was taught (`end_ids`), and those of the model's generation config."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return end_ids(tokenizer) | {i for i in ids if i is not None}


def room_for(config: Any, prompt_tokens: int) -> int:
    """The number of tokens that fit after a prompt in the context of a model with this configuration.

    Args:
        prompt_tokens: virtual tokens included.

    Raises:
        ConfigError: none.
    """
    limit = getattr(config, "max_position_embeddings", None) or sys.maxsize
    if prompt_tokens >= limit:
        raise ConfigError(
            f"The conversation has {prompt_tokens} tokens, the model reads at most {limit}. Shorten it, or clear it."
        )
    return limit - prompt_tokens


class _AdapterOff:
    """A reusable context manager that switches the adapter off.

    Like PEFT's `disable_adapter`, but without its check of the whole model, which takes as long as a token and would
    run for every token.
    """

    def __init__(self, model: Any) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before = [layer._disable_adapters for layer in self._layers]
        for layer in self._layers:
            layer._disable_adapters = True

    def __exit__(self, *error: object) -> None:
        for layer, disabled in zip(self._layers, self._before, strict=True):
            layer._disable_adapters = disabled


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    chosen = LogitsProcessorList()
    if sampling.temperature > 0:
        chosen.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_p < 1:
            chosen.append(TopPLogitsWarper(float(sampling.top_p)))
    return chosen


def _choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits.argmax(-1))
    return int(torch.multinomial(logits.softmax(-1), 1, generator=generator))


class _TextPieces:
    """Decodes ids one by one; bytes of an unfinished character are held back.

    A piece is decoded together with the previous one, since tokens may decode differently at the start of a text.
    """

    def __init__(self, tokenizer: Tokenizer, special: bool = False) -> None:
        self.tokenizer = tokenizer
        self.special = special  # whether special tokens are included
        self.before: list[int] = []  # ids of the previous piece, which is returned already
        self.ids: list[int] = []

    def add(self, token_id: int) -> str:
        self.ids.append(token_id)
        written, text = self._decode(self.before), self._decode(self.before + self.ids)
        if text.endswith("\ufffd"):
            return ""
        self.before, self.ids = self.ids, []
        return text[len(written) :]

    def _decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=not self.special, clean_up_tokenization_spaces=False)
        return str(text)

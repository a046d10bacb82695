"""Each head answers a prompt alone, and is compared with the routed model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from hydralora.data.encoding import encode_prompt
from hydralora.data.examples import Message
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.errors import ConfigError
from hydralora.inference.generation import Sampling, Token, generate
from hydralora.inference.loss import summed_divergence
from hydralora.models.types import Tokenizer
from hydralora.tuner.gates import record_gates
from hydralora.tuner.model import active_router, hydra_layers
from hydralora.tuner.steering import Steering, steered


@dataclass(frozen=True)
class HeadAlone:
    """One head with a gate of 1 for every token.

    Attributes:
        kl: mean KL divergence from the routed model in nats per token, over the routed answer's positions: 0 if this
            head alone predicts the same distributions.
        gate: the router's mean gate of it over those positions and the modules.
        text: its answer alone.
    """

    head: int
    kl: float
    gate: float
    text: str


@dataclass(frozen=True)
class HeadsAlone:
    """The routed answer, and each head's."""

    text: str
    heads: list[HeadAlone]

    @property
    def closest(self) -> HeadAlone:
        """The head whose answers alone are closest to the routed model's."""
        return min(self.heads, key=lambda head: head.kl)


def heads_alone(
    model: Any,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    sampling: Sampling | None = None,
    lock: AbstractContextManager[Any] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> HeadsAlone:
    """Answer a conversation by the router's gates, then by each head alone.

    Args:
        lock: held during each forward pass.
        on_progress: called with the number of finished answers, and of all answers.

    Raises:
        ConfigError: no HydraLoRA adapter is active, or the prompt fills the context.
    """
    layers = hydra_layers(model)
    if not layers:
        raise ConfigError("This model has no heads. Choose a run with method hydralora.")
    count = active_router(next(iter(layers.values()))).num_heads

    def answer(steering: Steering | None) -> list[Token]:
        return list(generate(model, tokenizer, messages, sampling, lock=lock, steering=steering))

    routed = answer(None)
    on_progress(1, count + 1)
    prompt = encode_prompt(tokenizer, list(messages))
    cut = len(routed) == (sampling or Sampling()).max_new_tokens
    read = routed[:-1] if cut else routed  # nothing was chosen after the last token of a truncated answer
    ids = torch.tensor([prompt + [token.id for token in read]], device=next(model.parameters()).device)
    places = len(read) + 1  # where each token was chosen, and where the answer ended

    def logits(state: AbstractContextManager[Any]) -> torch.Tensor:
        with lock or nullcontext(), torch.inference_mode(), state:  # others share the model: the lock comes first
            return model(input_ids=ids, use_cache=False, logits_to_keep=places).logits[0]

    record = record_gates(model)
    routed_logits = logits(record)
    gates = record.stacked()[:, 0, -places:].float().mean((0, 1))  # (N,)
    heads = []
    for head in range(count):
        alone = Steering(pin=head)
        text = "".join(token.text for token in answer(alone))
        kl = summed_divergence(routed_logits, logits(steered(model, alone))) / places
        heads.append(HeadAlone(head, kl, float(gates[head]), text))
        on_progress(head + 2, count + 1)
    return HeadsAlone("".join(token.text for token in routed), heads)

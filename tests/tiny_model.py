"""Tiny random models and a byte-level tokenizer: real in every part but size, so that tests need no network."""

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from hydralora import HydraLoraConfig
from hydralora.tuner.model import hydra_layers

SPECIALS = ("<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 256 + len(SPECIALS)
MLP = ["gate_proj", "up_proj", "down_proj"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(chat: bool = True) -> Any:
    """One token for each byte. Without `chat` it has no chat template, and its end mark is </s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|im_end|>" if chat else "</s>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE if chat else None
    return fast


def tiny_llama(seed: int = 0, **changes: Any) -> Any:
    """A random Llama of 2 layers, in eval mode."""
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "bos_token_id": SPECIALS.index("<s>"),
        "eos_token_id": SPECIALS.index("<|im_end|>"),
        "pad_token_id": SPECIALS.index("<pad>"),
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


def tiny_gpt2(seed: int = 0) -> Any:
    """A random GPT-2 of 2 layers: its linear layers are Conv1D, its positions are learned."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
    )
    return GPT2LMHeadModel(config).eval()


def tiny_gemma2(seed: int = 0) -> Any:
    """A random Gemma 2 of 2 layers: it caps its logits softly."""
    torch.manual_seed(seed)
    config = Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        final_logit_softcapping=2.0,
    )
    return Gemma2ForCausalLM(config).eval()


def tiny_opt(seed: int = 0) -> Any:
    """A random OPT of 2 layers: it flattens batch and tokens before its MLP."""
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        word_embed_proj_dim=48,
        ffn_dim=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    return OPTForCausalLM(config).eval()


def adapt(model: Any, **settings: Any) -> Any:
    """A HydraLoRA adapter on the MLP layers (or on target_modules), its heads still zero, in eval mode."""
    defaults: dict[str, Any] = {"r": 4, "target_modules": MLP, "task_type": "CAUSAL_LM"}
    return get_peft_model(model, HydraLoraConfig(**defaults | settings)).eval()


@torch.no_grad()
def shake(model: Any, seed: int = 1) -> Any:
    """Give every head and router random weights, so that the adapter changes outputs and gates differ."""
    generator = torch.Generator().manual_seed(seed)
    for layer in hydra_layers(model).values():
        for name, head in layer.hydra_B.items():
            head.copy_(torch.randn(head.shape, generator=generator) * 0.2)
            for parameter in layer.hydra_router[name].parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def write_tiny_model(folder: Path, chat: bool = True, seed: int = 0, sharpness: float = 1.0, **changes: Any) -> Path:
    """Save a tiny Llama and its tokenizer as a base model's folder.

    A random output embedding gives logits so small that no adapter can make an answer likely; `sharpness` scales it.
    """
    model = tiny_llama(seed, **changes)
    with torch.no_grad():
        model.lm_head.weight.mul_(sharpness)
    model.save_pretrained(folder)
    byte_tokenizer(chat).save_pretrained(folder)
    return folder

"""Tiny random models of many architectures, with the layers that HydraLoRA adapts in each where nobody says."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny_model import SPECIALS, VOCABULARY

GATED_MLP = ("gate_proj", "up_proj", "down_proj")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Architecture:
    """How a tiny model of a family is made.

    Attributes:
        block: the name of what holds the adapted layers, a star for the block's index.
        targets: last parts of the names of the layers that are adapted by default.
        settings: of the family's config, beside or in place of the common ones.
    """

    model_type: str
    block: str
    targets: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self, seed: int = 0, **changes: Any) -> Any:
        """The same random model for the same seed, in eval mode."""
        names = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
        common = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": SPECIALS.index("<|im_end|>")}
        config = AutoConfig.for_model(self.model_type, **common | {"pad_token_id": 0} | names | self.settings | changes)
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # they start at zero, where no rounding shows
                nn.init.normal_(parameter, std=0.1)
        return model

    def adapted(self) -> list[str]:
        """Full names of the layers that are adapted by default."""
        return [f"{self.block.replace('*', str(i))}.{target}" for i in range(2) for target in self.targets]


LLAMA_LIKE = {"intermediate_size": 80, "num_key_value_heads": 2}
OF_16 = LLAMA_LIKE | {"head_dim": 16}
EXPERTS = LLAMA_LIKE | {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
MLP = "model.layers.*.mlp"

ARCHITECTURES = {
    "llama": Architecture("llama", MLP, GATED_MLP, LLAMA_LIKE),
    "mistral": Architecture("mistral", MLP, GATED_MLP, LLAMA_LIKE | {"sliding_window": 4}),
    "qwen2": Architecture("qwen2", MLP, GATED_MLP, LLAMA_LIKE),
    "qwen3": Architecture("qwen3", MLP, GATED_MLP, OF_16),
    "gemma2": Architecture("gemma2", MLP, GATED_MLP, OF_16 | {"final_logit_softcapping": 2.0}),
    "gemma3": Architecture("gemma3_text", MLP, GATED_MLP, OF_16 | {"sliding_window": 4}),
    "phi3": Architecture("phi3", MLP, ("gate_up_proj", "down_proj"), LLAMA_LIKE),
    "gpt2": Architecture("gpt2", "transformer.h.*.mlp", ("c_fc", "c_proj")),
    "opt": Architecture("opt", "model.decoder.layers.*", ("fc1", "fc2"), {"ffn_dim": 80, "word_embed_proj_dim": 48}),
    "falcon": Architecture("falcon", "transformer.h.*.mlp", ("dense_h_to_4h", "dense_4h_to_h")),
    "gpt_neox": Architecture(
        "gpt_neox", "gpt_neox.layers.*.mlp", ("dense_h_to_4h", "dense_4h_to_h"), {"intermediate_size": 80}
    ),
    "stablelm": Architecture("stablelm", MLP, GATED_MLP, LLAMA_LIKE | {"hidden_size": 64, "use_qkv_bias": True}),
    "bloom": Architecture("bloom", "transformer.h.*.mlp", ("dense_h_to_4h", "dense_4h_to_h")),
    "mpt": Architecture("mpt", "transformer.blocks.*.ffn", ("up_proj", "down_proj")),
    "gptj": Architecture("gptj", "transformer.h.*.mlp", ("fc_in", "fc_out"), {"rotary_dim": 4}),
    "phi": Architecture("phi", MLP, ("fc1", "fc2"), {"intermediate_size": 80, "hidden_size": 64}),
    "starcoder2": Architecture("starcoder2", MLP, ("c_fc", "c_proj"), LLAMA_LIKE),
    "gpt_bigcode": Architecture("gpt_bigcode", "transformer.h.*.mlp", ("c_fc", "c_proj")),
    "glm": Architecture("glm", MLP, ("gate_up_proj", "down_proj"), OF_16),
    "olmo2": Architecture("olmo2", MLP, GATED_MLP, LLAMA_LIKE),
    "cohere": Architecture("cohere", MLP, GATED_MLP, LLAMA_LIKE),
    "granite": Architecture("granite", MLP, GATED_MLP, LLAMA_LIKE | {"logits_scaling": 4.0}),
    "mixtral": Architecture("mixtral", "model.layers.*.self_attn", ATTENTION, LLAMA_LIKE | {"num_local_experts": 4}),
    "qwen2_moe": Architecture(
        "qwen2_moe",
        "model.layers.*.mlp.shared_expert",
        GATED_MLP,
        EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 80},
    ),
    "qwen3_moe": Architecture("qwen3_moe", "model.layers.*.self_attn", ATTENTION, EXPERTS | {"num_experts": 4}),
}

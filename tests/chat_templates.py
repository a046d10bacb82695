"""Chat templates of every kind, and a base model's tokenizer, whose eos is not the mark that they write."""

from copy import deepcopy
from typing import Any

from tests.tiny_model import CHAT_TEMPLATE, byte_tokenizer

QWEN = (  # keeps the reasoning of the last answer only, as Qwen3's does
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last and m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_MARK = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXT_MARK = (
    "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n### End\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant\n{% endif %}"
)
THINKS = (  # asks for a reasoning, and writes none into the conversation, as DeepSeek R1's does
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant <think>\n{% endif %}"
)
MARKS = {
    CHAT_TEMPLATE: "<|im_end|>",
    QWEN: "<|im_end|>",
    ZEPHYR: "</s>",
    NO_MARK: "</s>",
    TEXT_MARK: "</s>",
    THINKS: "<|im_end|>",
}
NAMES = ["ChatML", "drops reasoning", "eos", "no mark", "mark in words", "asks to think"]


def base_model_tokenizer(template: str | None = None) -> Any:
    """A base model's tokenizer: it has ChatML's marks, and ends a text with </s>."""
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def with_template(tokenizer: Any, template: str | None) -> Any:
    other = deepcopy(tokenizer)
    other.chat_template = template
    return other

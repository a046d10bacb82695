"""What models and tokenizers are called in signatures."""

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

Tokenizer = PreTrainedTokenizerBase
CausalModel = PreTrainedModel | PeftModel  # a base model, or one with adapters

"""Types of models and tokenizers for signatures."""

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

Tokenizer = PreTrainedTokenizerBase
CausalModel = PreTrainedModel | PeftModel  # a base model, or one with adapters

"""Encoders and encoder-decoders: their default layers, as LoRA has some for them too; training, saving, gates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hydralora import ConfigError, record_gates
from hydralora.tuner.model import hydra_layers
from hydralora.tuner.structure import model_body
from hydralora.tuner.targets import default_targets
from tests.tiny_model import adapt, shake

SIZES = {
    "vocab_size": 80,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "num_labels": 3,
}
BERT_LIKE = ["Bert", "Roberta", "Deberta", "DebertaV2", "Electra"]
LABELS = torch.tensor([0, 2, 1])


def classifier(family: str) -> Any:
    """A tiny random model with a head for three classes."""
    torch.manual_seed(0)
    sizes = SIZES | ({"n_layers": 2, "dim": 32, "hidden_dim": 48, "n_heads": 4} if family == "DistilBert" else {})
    config = getattr(transformers, f"{family}Config")(**sizes)
    return getattr(transformers, f"{family}ForSequenceClassification")(config).eval()


def translator(gated: bool) -> Any:
    """A tiny random T5."""
    torch.manual_seed(0)
    kind = "gated-gelu" if gated else "relu"
    config = transformers.T5Config(
        vocab_size=80, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj=kind, eos_token_id=1
    )
    model: Any = transformers.T5ForConditionalGeneration(config).eval()
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 0
    return model


@pytest.fixture
def words() -> torch.Tensor:
    return torch.randint(5, 80, (3, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", [*BERT_LIKE, "DistilBert"])
def test_an_encoders_mlp_is_adapted_trained_and_saved(family: str, tmp_path: Path, words: torch.Tensor) -> None:
    base, model = classifier(family), adapt(classifier(family), target_modules=None, task_type="SEQ_CLS")
    layers = hydra_layers(model)
    ends = ("lin1", "lin2") if family == "DistilBert" else ("intermediate.dense", "output.dense")
    assert len(layers) == 4
    assert all(name.endswith(ends) and "attention" not in name for name in layers)
    assert torch.equal(model(words).logits, base(words).logits)
    shake(model)(input_ids=words, labels=LABELS).loss.backward()
    learnt = {name: parameter for name, parameter in model.named_parameters() if "hydra_" in name}
    assert len(learnt) == 12
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in learnt.values())
    with torch.no_grad():
        tuned = model(words).logits
        assert not torch.allclose(tuned, base(words).logits, atol=1e-4)
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(classifier(family), str(tmp_path)).eval()
        assert torch.equal(again(words).logits, tuned)


@pytest.mark.parametrize("family", [*BERT_LIKE, "DistilBert"])
@torch.no_grad()
def test_gates_of_an_encoder_are_recorded_by_token(family: str, words: torch.Tensor) -> None:
    model = shake(adapt(classifier(family), target_modules=None, task_type="SEQ_CLS"))
    with record_gates(model) as record:
        model(words)
        whole = record.stacked()
        model(words[1:2])
    assert whole.shape == (4, 3, 9, 3)
    torch.testing.assert_close(whole.sum(-1), torch.ones(4, 3, 9))
    torch.testing.assert_close(whole[:, 1:2], record.stacked(), atol=1e-5, rtol=0)
    assert set(hydra_layers(model).values()) < set(model_body(model).modules())


@pytest.mark.parametrize("gated", [False, True])
def test_t5s_mlps_are_adapted_trained_and_saved(gated: bool, tmp_path: Path, words: torch.Tensor) -> None:
    base, model = translator(gated), adapt(translator(gated), target_modules=None, task_type="SEQ_2_SEQ_LM")
    names = {name.rpartition(".")[2] for name in hydra_layers(model)}
    assert names == ({"wi_0", "wi_1", "wo"} if gated else {"wi", "wo"})
    assert len(hydra_layers(model)) == 4 * len(names)  # of two blocks in each of encoder and decoder
    with torch.no_grad():  # with gradients, torch picks another kernel for a base that isn't frozen
        assert torch.equal(model(words, labels=words).logits, base(words, labels=words).logits)
    shake(model)(input_ids=words, labels=words).loss.backward()
    assert all(layer.hydra_B["default"].grad.any() for layer in hydra_layers(model).values())
    with torch.no_grad():
        tuned = model(words, labels=words).logits
        assert not torch.allclose(tuned, base(words, labels=words).logits, atol=1e-4)
        model.save_pretrained(tmp_path)
        again = PeftModel.from_pretrained(translator(gated), str(tmp_path)).eval()
        assert torch.equal(again(words, labels=words).logits, tuned)
    assert model.generate(input_ids=words, max_new_tokens=4).shape[0] == 3


def test_gates_of_an_encoder_and_a_decoder_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder-decoder can't be recorded.*different tokens"):
        record_gates(adapt(translator(False), target_modules=None, task_type="SEQ_2_SEQ_LM"))


@pytest.mark.parametrize("make", [lambda: classifier("Bert"), lambda: translator(True)], ids=["bert", "t5"])
def test_blocks_are_chosen_among_the_default_layers(make: Callable[[], Any]) -> None:
    layers = hydra_layers(adapt(make(), target_modules=None, task_type=None, layers_to_transform=[1]))
    assert layers
    assert all(".1." in name for name in layers)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(LORA_TARGETS.keys() & CONFIG_MAPPING.keys()))
def test_every_architecture_with_default_layers_in_lora_has_some(kind: str) -> None:
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(CONFIG_MAPPING[kind]())
    assert default_targets(model)

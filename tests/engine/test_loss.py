"""The loss on the answers alone equals the one over all logits."""

from typing import Any

import pytest
import torch

from hydralora.data.templates import IGNORED
from hydralora.loss import answer_logits, answer_loss
from tests.tiny_model import adapt, shake, tiny_gemma2, tiny_gpt2, tiny_llama


@pytest.fixture
def batch(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :4] = IGNORED
    labels[1, 7:], mask[1, 7:] = IGNORED, 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize(
    ("make", "targets"),
    [(tiny_llama, ["up_proj"]), (tiny_gemma2, ["up_proj"]), (tiny_gpt2, ["c_fc"])],
    ids=["llama", "gemma2", "gpt2"],
)
def test_equals_the_loss_over_all_logits(make: Any, targets: list[str], batch: dict[str, torch.Tensor]) -> None:
    model = shake(adapt(make(), target_modules=targets))
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    logits, known = answer_logits(model, batch)
    ours = answer_loss(logits, known).mean()
    everything = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    wanted = torch.nn.functional.cross_entropy(
        everything[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED
    )
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=0)
    for mine, whole in zip(torch.autograd.grad(ours, learnt), torch.autograd.grad(wanted, learnt), strict=True):
        torch.testing.assert_close(mine, whole, atol=1e-5, rtol=0)


def test_logits_are_computed_at_the_answers_only(batch: dict[str, torch.Tensor]) -> None:
    model = tiny_llama()
    widths: list[int] = []
    model.lm_head.register_forward_hook(lambda module, args, output: widths.append(output.shape[:-1].numel()))
    logits, targets = answer_logits(model, batch)
    answer_tokens = int((batch["labels"] != IGNORED).sum())
    assert len(logits) == len(targets) == answer_tokens
    assert widths == [answer_tokens]


def test_the_model_is_left_as_it_was(batch: dict[str, torch.Tensor]) -> None:
    model = tiny_llama()
    answer_logits(model, batch)
    assert model(batch["input_ids"]).logits.shape == (3, 10, 261)

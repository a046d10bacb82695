"""The loss on the answers alone equals the one over all logits, whatever the model's head is like."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from hydralora.data.batches import answers_in
from hydralora.data.encoding import IGNORED
from hydralora.inference.loss import answer_logits, answer_loss, summed_answer_loss
from tests.tiny_architectures import ARCHITECTURES, Architecture
from tests.tiny_model import MLP, adapt, shake, tiny_gemma2, tiny_gpt2, tiny_llama


@pytest.fixture(params=["anybody's", "as collated"])
def batch(request: pytest.FixtureRequest, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :4] = IGNORED
    labels[1, 7:], mask[1, 7:] = IGNORED, 0
    known = answers_in(labels) if request.param == "as collated" else {}
    return {"input_ids": ids, "attention_mask": mask, "labels": labels} | known


def check_loss_and_gradients(model: Any, batch: dict[str, torch.Tensor]) -> None:
    """Against all logits, from a forward pass without any hook of ours."""
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
        assert whole.abs().max() > 0


def widths_seen(head: nn.Module) -> list[int]:
    """On how many positions the head computes, in each of its calls from now on."""
    widths: list[int] = []
    head.register_forward_hook(lambda module, args, output: widths.append(output.shape[:-1].numel()))
    return widths


@pytest.mark.parametrize("family", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_equals_the_loss_over_all_logits(family: Architecture, batch: dict[str, torch.Tensor]) -> None:
    model = shake(adapt(family.make(), target_modules=None))
    widths = widths_seen(model.get_output_embeddings())
    check_loss_and_gradients(model, batch)
    assert widths == [int((batch["labels"] != IGNORED).sum()), 30]


@pytest.mark.parametrize("settings", [{"modules_to_save": ["lm_head"]}, {"target_modules": [*MLP, "lm_head"]}])
def test_a_head_inside_a_wrapper_is_given_the_answers_only(
    settings: dict[str, Any], batch: dict[str, torch.Tensor]
) -> None:
    model = shake(adapt(tiny_llama(), **settings))
    widths = widths_seen(model.get_output_embeddings())
    check_loss_and_gradients(model, batch)
    assert widths == [int((batch["labels"] != IGNORED).sum()), 30]
    with model.disable_adapter():
        logits, _ = answer_logits(model, batch)
    torch.testing.assert_close(logits, answer_logits(tiny_llama(), batch)[0])


class OddHead(LlamaForCausalLM):
    """A Llama that makes its logits in another way; a subclass says how."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> CausalLMOutputWithPast:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return CausalLMOutputWithPast(logits=self.logits(hidden))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, hidden) -> (batch, tokens, vocabulary)."""
        raise NotImplementedError


class NoHead(OddHead):
    def get_output_embeddings(self) -> Any:
        return None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.lm_head(hidden)


class HeadNotCalled(OddHead):
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.lm_head.weight.T


class HeadCalledTwice(OddHead):
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return (self.lm_head(hidden) + self.lm_head(hidden.tanh())) / 2


class HeadOfOtherTokensToo(OddHead):
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        self.lm_head(hidden[:, :1])
        return self.lm_head(hidden)


class HeadOnFlatRows(OddHead):
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.lm_head(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])


class HeadByKeyword(OddHead):
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.lm_head(input=hidden)


class HeadTokensFirst(OddHead):
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.lm_head(hidden.transpose(0, 1)).transpose(0, 1)


class HeadForSomethingElse(OddHead):
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        self.lm_head(hidden)
        return hidden.tanh() @ self.lm_head.weight.T


class ScaledByPosition(OddHead):
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.lm_head(hidden) * torch.arange(1, hidden.shape[1] + 1)[:, None] / 10


@pytest.mark.parametrize("kind", OddHead.__subclasses__(), ids=lambda kind: kind.__name__)
def test_an_unusual_head_gives_the_same_loss(kind: type[OddHead], batch: dict[str, torch.Tensor]) -> None:
    base = kind(tiny_llama().config)
    base.load_state_dict(tiny_llama().state_dict())
    model = shake(adapt(base))
    check_loss_and_gradients(model, batch)
    check_loss_and_gradients(model, batch)  # now that the head is known to be unusual


def test_an_unusual_head_costs_a_second_pass_only_once(batch: dict[str, torch.Tensor]) -> None:
    model = HeadCalledTwice(tiny_llama().config)
    calls = widths_seen(model.model.norm)
    for _ in range(3):
        answer_logits(model, batch)
    assert len(calls) == 1 + 3


def test_an_error_in_the_model_is_not_hidden(batch: dict[str, torch.Tensor]) -> None:
    model = tiny_llama()
    model.lm_head.weight.data = model.lm_head.weight.data[:, 1:]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        answer_logits(model, batch)


def test_a_batch_without_labels_has_no_loss(batch: dict[str, torch.Tensor]) -> None:
    labels = torch.full_like(batch["labels"], IGNORED)
    none = {"labels": labels} | (answers_in(labels) if "answers" in batch else {})
    logits, targets = answer_logits(tiny_llama(), batch | none)
    assert (logits.shape, targets.shape) == ((0, 261), (0,))


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


def reference(
    weight: torch.Tensor, hidden: torch.Tensor, targets: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """What a fused kernel computes, in plain torch."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")


@pytest.mark.parametrize(
    ("make", "targets", "fuses"),
    [(tiny_llama, ["up_proj"], True), (tiny_gpt2, ["c_fc"], True), (tiny_gemma2, ["up_proj"], False)],
    ids=["llama", "gpt2", "gemma2 caps its logits"],
)
def test_a_fused_loss_is_the_same_or_is_not_used(
    make: Any, targets: list[str], fuses: bool, batch: dict[str, torch.Tensor]
) -> None:
    model = shake(adapt(make(), target_modules=targets))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)  # or a cap far off would hardly show
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    calls: list[int] = []

    def kernel(*args: Any) -> torch.Tensor:
        calls.append(1)
        return reference(*args)

    plain, count = summed_answer_loss(model, batch)
    wanted = torch.autograd.grad(plain, learnt)
    for _ in range(3):
        loss, counted = summed_answer_loss(model, batch, kernel)
        assert counted == count
        torch.testing.assert_close(loss, plain, atol=1e-3, rtol=1e-5)
        for mine, whole in zip(torch.autograd.grad(loss, learnt), wanted, strict=True):
            torch.testing.assert_close(mine, whole, atol=1e-3, rtol=1e-4)
    assert len(calls) == (3 if fuses else 1)


def test_a_trained_head_is_not_fused(batch: dict[str, torch.Tensor]) -> None:
    model = adapt(tiny_llama(), modules_to_save=["lm_head"])

    def kernel(*args: Any) -> torch.Tensor:
        raise AssertionError

    loss, _ = summed_answer_loss(model, batch, kernel)
    assert loss.isfinite()

"""The methods that HydraLoRA is compared with: each one trains, is kept, goes on and answers like any other run."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraModel
from safetensors.torch import load_file

from hydralora import ConfigError, HydraError, RunStore
from hydralora.analysis import read_weights
from hydralora.components.rows import read_used
from hydralora.data.dataset import read_dataset
from hydralora.data.encoding import encode_prompt, encode_rows
from hydralora.errors import ModelError
from hydralora.files import weight_files
from hydralora.inference.evaluation import evaluate
from hydralora.inference.generation import Sampling, answer_batch, generate
from hydralora.inference.loss import summed_answer_loss
from hydralora.inference.model_cache import LoadedModel, ModelCache, load_run
from hydralora.inference.on_files import evaluate_run
from hydralora.models.adapters import hash_adapter
from hydralora.models.loading import empty_model
from hydralora.recipe.methods import METHODS
from hydralora.recipe.reading import parse_recipe
from hydralora.recipe.settings import Recipe
from hydralora.runs.checkpoints import saved_checkpoints
from hydralora.runs.events import Event, TrainEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.training.adalora import adalora_of, orthogonality_loss
from hydralora.training.adapter_config import ia3_layers
from hydralora.training.monitor import Monitor
from hydralora.training.preparation import adapt
from hydralora.training.run import OutputFolders, Resume, train
from hydralora.training.sizes import adapter_size
from hydralora.training.trial import run_trial
from hydralora.transfer import export_run, import_run
from tests.known import known, loss_of
from tests.tiny_model import tiny_gpt2, tiny_llama, write_tiny_model

RATES = {
    "full": 3e-3,
    "prompt-tuning": 0.1,
    "p-tuning": 1e-2,
    "prefix-tuning": 0.1,
    "ia3": 0.1,
    "ia3-heads": 0.1,
    "adalora": 0.05,
}
VIRTUAL = [name for name, method in METHODS.items() if method.has_virtual_tokens]
STEPS = 12
Method = Callable[..., Recipe]


@pytest.fixture(scope="module")
def method_recipe(make_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Method:
    """A recipe of a method, on a base model whose logits are not all alike."""
    base = write_tiny_model(tmp_path_factory.mktemp("base") / "sharp", sharpness=5)

    def make(method: str, tuner: dict[str, Any] | None = None, **training: Any) -> Recipe:
        settings = {"max_steps": STEPS, "save_every": 4, "learning_rate": RATES.get(method, 1e-2)}
        recipe = make_recipe(method, tuner, **settings | training)
        return recipe.model_copy(update={"model": str(base)})

    return make


@pytest.fixture(scope="module", params=RATES)
def run(request: pytest.FixtureRequest, method_recipe: Method, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of each method, by its worker."""
    jobs = JobManager(RunStore(tmp_path_factory.mktemp("methods")))
    started = jobs.start(method_recipe(request.param))
    state = jobs.follow(started)
    assert state.state == "finished", (state.message, started.log.read_text(encoding="utf-8"))
    return started


def heldout_loss(run: Run, loaded: LoadedModel) -> float:
    """On the rows that the run measured itself."""
    rows = encode_rows(loaded.tokenizer, read_used(run.recipe()).heldout, run.recipe()).rows
    return loss_of(evaluate(loaded.model, rows, loaded.tokenizer.pad_token_id))


@pytest.mark.slow
def test_a_run_learns_and_its_parameters_are_those_that_were_estimated(run: Run) -> None:
    results = known(run.state().results)
    assert loss_of(results.tuned) < loss_of(results.base)
    assert adapter_size(run.recipe(), results.k).counts == results.parameters
    assert not run.snapshots.exists()
    assert run.state().adapter_hash == hash_adapter(run.adapter)
    title = METHODS[run.recipe().method].name
    assert f"# {title}" in (run.adapter / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_was_saved_is_what_was_measured(run: Run, data_file: Path) -> None:
    tuned = loss_of(known(run.state().results).tuned)
    assert heldout_loss(run, load_run(run)) == pytest.approx(tuned, abs=1e-6)
    cache = ModelCache()
    assert heldout_loss(run, cache.run(run)) == pytest.approx(tuned, abs=1e-6)
    base = loss_of(known(run.state().results).base)
    assert heldout_loss(run, cache.base(run.recipe().model)) == base  # the run's model changed nothing in it
    scores = evaluate_run(run, data_file)
    assert loss_of(scores) != loss_of(scores.base) == loss_of(evaluate_run_of_base(run, data_file))


def evaluate_run_of_base(run: Run, file: Path) -> Any:
    loaded = ModelCache().base(run.recipe().model)
    rows = encode_rows(loaded.tokenizer, read_dataset(file).examples, run.recipe()).rows
    return evaluate(loaded.model, rows, loaded.tokenizer.pad_token_id)


@pytest.mark.slow
def test_it_answers_alike_token_by_token_and_in_batches(run: Run) -> None:
    loaded = load_run(run)
    questions = ["name fruit number zz", "which tool fixes aa engine", "a", "name fruit number qq"]
    prompts = [[{"role": "user", "content": question}] for question in questions]
    answer = partial(generate, loaded.model, loaded.tokenizer, sampling=Sampling(max_new_tokens=6))
    alone = [[token.id for token in answer(prompt)] for prompt in prompts]
    ids = [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts]
    together = answer_batch(loaded.model, loaded.tokenizer, ids, 6)
    assert together == [loaded.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in alone]
    for prompt, tokens in zip(ids, alone, strict=True):  # and without a cache
        assert tokens == greedy(loaded.model, prompt, len(tokens))


@torch.inference_mode()
def greedy(model: Any, prompt: Sequence[int], count: int) -> list[int]:
    """The likeliest tokens, each from a pass over all tokens before it."""
    ids = list(prompt)
    for _ in range(count):
        row = torch.tensor([ids])
        logits = model(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.slow
def test_it_is_exported_in_the_formats_that_its_method_has(run: Run, tmp_path: Path) -> None:
    method = METHODS[run.recipe().method]
    for form in ("adapter", "lora", "merged", "official"):
        if form in method.exports:
            out = export_run(run, form, tmp_path / form)
            assert known(out.difference) < 1e-3
        else:
            with pytest.raises(ConfigError, match=rf"trained by .* Export {' or '.join(method.exports)}\."):
                export_run(run, form, tmp_path / form)
    if "adapter" in method.exports:
        export_run(run, "adapter", tmp_path / "run.zip")
        imported = import_run(RunStore(tmp_path / "other"), tmp_path / "run.zip", run.recipe().model)
        assert heldout_loss(run, load_run(imported)) == heldout_loss(run, load_run(run))


@pytest.mark.slow
def test_it_has_no_matrices_to_show(run: Run) -> None:
    with pytest.raises(ModelError, match=r"whole model|neither HydraLoRA heads nor a LoRA"):
        read_weights(run.adapter)


@pytest.mark.parametrize("method", RATES)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    method_recipe: Method, tmp_path: Path, method: str
) -> None:
    recipe, events = method_recipe(method, eval_every=0, sample_prompts=0, log_every=1), list[Event]()
    whole = train(recipe, OutputFolders(tmp_path / "whole", tmp_path / "whole-checkpoints"))
    folder = tmp_path / "checkpoints"
    train(recipe, OutputFolders(tmp_path / "a", folder), Monitor(events.append, lambda: events[-1].step >= 6))
    step, checkpoint = list(saved_checkpoints(folder).items())[-1]
    assert 6 <= step < STEPS
    torch.manual_seed(99)
    rest = train(recipe, OutputFolders(tmp_path / "b", folder), Monitor(), Resume(step, checkpoint, whole.base))
    assert rest.step == STEPS
    one, other = ({**load_file(weight_files(tmp_path / name)[0])} for name in ("whole", "b"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", ["full", "adalora", "p-tuning"])
def test_the_estimate_covers_the_files(method_recipe: Method, tmp_path: Path, method: str) -> None:
    recipe = method_recipe(method, eval_every=0, sample_prompts=0)
    train(recipe, OutputFolders(tmp_path / "adapter", tmp_path / "checkpoints", tmp_path / "snapshots"))
    kept = [path for path in tmp_path.rglob("*") if path.suffix in (".safetensors", ".pt", ".bin")]
    used = sum(path.stat().st_size for path in kept if not path.name.startswith(("rng", "scheduler", "training_args")))
    assert used / 3 < run_trial(recipe).disk_bytes
    if method != "p-tuning":  # which saves what its network makes, and not the network
        assert used < run_trial(recipe).disk_bytes * 1.2


def test_the_answers_loss_is_that_of_the_model_with_labels(method_recipe: Method) -> None:
    for method in VIRTUAL:
        model = adapt(tiny_llama(), method_recipe(method, {"virtual_tokens": 5}), 1).eval()
        shake(model)
        ids = torch.randint(5, 261, (2, 9), generator=torch.Generator().manual_seed(0))
        labels = ids.clone()
        labels[:, :5] = labels[1, 7:] = -100
        mask = torch.ones_like(ids)
        mask[1, 7:] = 0
        batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
        summed, count = summed_answer_loss(model, batch)
        assert count == 4 + 2
        expected = model(**batch, use_cache=False).loss
        assert float(summed.detach()) / count == pytest.approx(float(expected.detach()), rel=1e-5)


def shake(model: Any) -> None:
    """Virtual tokens that change the model's outputs."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.5)


def test_the_base_model_is_back_without_the_virtual_tokens(method_recipe: Method, tokenizer: Any) -> None:
    prompt = [{"role": "user", "content": "name fruit"}]
    sampling = Sampling(max_new_tokens=5)
    expected = list(generate(tiny_llama(), tokenizer, prompt, sampling))
    for method in VIRTUAL:
        model = adapt(tiny_llama(), method_recipe(method), 1).eval()
        shake(model)
        assert list(generate(model, tokenizer, prompt, sampling, adapter=False)) == expected
        assert list(generate(model, tokenizer, prompt, sampling)) != expected


@pytest.mark.parametrize("method", VIRTUAL)
def test_no_padding_comes_between_virtual_tokens_and_a_prompt(
    method_recipe: Method, tokenizer: Any, method: str
) -> None:
    model = adapt(tiny_gpt2(), method_recipe(method, {"virtual_tokens": 6}), 1).eval()  # its positions are learned
    shake(model)
    prompts = [[7, 8], [9, 10, 11, 12, 13, 14, 15, 16, 17, 18], [20], [8, 7]]
    alone = [answer_batch(model, tokenizer, [prompt], 12)[0] for prompt in prompts]
    steps: list[tuple[int, int]] = []
    assert answer_batch(model, tokenizer, prompts, 12, lambda *step: steps.append(step)) == alone
    assert steps[-1] == (36, 36)  # three lengths
    assert steps == sorted(steps)


def test_virtual_tokens_take_room_in_the_context(method_recipe: Method, tokenizer: Any) -> None:
    model = adapt(tiny_llama(max_position_embeddings=64), method_recipe("prompt-tuning", {"virtual_tokens": 60}), 1)
    with pytest.raises(ConfigError, match="the model reads at most 64"):
        list(generate(model.eval(), tokenizer, [{"role": "user", "content": "name fruit"}]))


def test_adalora_ends_with_the_mean_rank_that_was_asked_for(method_recipe: Method, tmp_path: Path) -> None:
    train(method_recipe("adalora", {"r": 4}, eval_every=0, sample_prompts=0), tmp_path / "adapter")
    parts = load_file(weight_files(tmp_path / "adapter")[0])
    ranks = [len(part) for name, part in parts.items() if "lora_A" in name]
    assert sum(ranks) == 4 * len(ranks)
    model = adapt(tiny_llama(), method_recipe("adalora", {"r": 4}), 1)
    assert {len(part) for name, part in model.named_parameters() if "lora_A" in name} == {6}


def test_adaloras_orthogonality_is_pefts_and_no_part_of_the_reported_loss(
    method_recipe: Method, tmp_path: Path
) -> None:
    model = adapt(tiny_llama(), method_recipe("adalora"), 1)
    tuner = adalora_of(model)
    assert isinstance(tuner, AdaLoraModel)
    ids = torch.randint(5, 261, (2, 9), generator=torch.Generator().manual_seed(0))
    model.eval().requires_grad_(False)
    with_it = model(input_ids=ids, labels=ids).loss
    without = tuner.model(input_ids=ids, labels=ids).loss
    assert float(orthogonality_loss(tuner)) == pytest.approx(float(with_it - without), rel=1e-4)
    events: list[Event] = []
    still = method_recipe("adalora", learning_rate=1e-9, gradient_accumulation=2, log_every=1, eval_every=0)
    results = train(still, tmp_path / "adapter", Monitor(events.append))
    losses = [known(event.loss) for event in events if isinstance(event, TrainEvent)]
    assert sum(losses) / len(losses) == pytest.approx(loss_of(results.base), rel=0.1)


def test_ia3_scales_the_inputs_of_the_mlps_last_layer(method_recipe: Method) -> None:
    assert ia3_layers(tiny_llama(), None) == {
        "target_modules": ["k_proj", "v_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    }
    full_name = "model.layers.0.mlp.down_proj"
    assert ia3_layers(tiny_llama(), ["q_proj", full_name])["feedforward_modules"] == [full_name]
    unknown = tiny_llama()
    unknown.config.model_type = "unknown"
    assert ia3_layers(unknown, None) == {
        "target_modules": ["gate_proj", "up_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    }
    assert ia3_layers(tiny_gpt2(), None)["feedforward_modules"] == ["mlp.c_proj"]


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        *((method, {"start_from": "20250101-000000-abcd"}, "start_from: a run of method .* Leave") for method in RATES),
        ("full", {"quantization": "nf4"}, "can't be trained in 4 bits. Set quantization=none"),
        ("prefix-tuning", {"training": {"gradient_checkpointing": True}}, "gradient_checkpointing=false"),
        ("adalora", {"launch": {"fsdp": "full_shard"}}, "Leave launch.fsdp and launch.deepspeed out"),
        ("p-tuning", {"launch": {"deepspeed": "file.json"}}, "Leave launch.fsdp and launch.deepspeed out"),
        ("prompt-tuning", {"tuner": {"virtual_tokens": 0}}, "tuner.virtual_tokens: Input should be greater"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_to_do(
    method: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_recipe({"model": "default", "method": method, "data": {"train": "rows.jsonl"}} | changes)


def test_an_architecture_without_room_for_virtual_tokens_is_named(method_recipe: Method) -> None:
    model = tiny_llama()
    model.forward = lambda input_ids=None, **rest: model.model(input_ids)
    with pytest.raises(ConfigError, match=r"method prefix-tuning: LlamaForCausalLM can't be used .* Choose another"):
        adapt(model, method_recipe("prefix-tuning"), 1)


def test_a_prefix_is_read_without_a_cache_too(method_recipe: Method) -> None:
    model = adapt(tiny_gpt2(), method_recipe("prefix-tuning"), 1).eval()
    ids = torch.tensor([[7, 8, 9]])
    before = model(input_ids=ids, use_cache=False).logits
    shake(model)
    assert not torch.allclose(before, model(input_ids=ids, use_cache=False).logits)


def test_full_weights_are_kept_in_single_precision(method_recipe: Method) -> None:
    assert adapt(tiny_llama().bfloat16(), method_recipe("full"), 1).dtype == torch.float32
    size = adapter_size(method_recipe("full"), 1)
    everything = sum(part.numel() for part in empty_model(method_recipe("full").model).parameters())
    assert size.counts.total == size.counts.base == everything
    assert (size.counts.percent, size.optimiser_bytes) == (100, 8 * everything)


def test_a_run_that_diverges_keeps_its_best_model(
    method_recipe: Method, tmp_path: Path, break_loss: Callable[[int], None]
) -> None:
    break_loss(10)
    recipe = method_recipe("full", eval_every=4, log_every=2)
    with pytest.raises(HydraError, match="is kept"):
        train(recipe, OutputFolders(tmp_path / "adapter", tmp_path / "checkpoints"))
    assert [file.name for file in weight_files(tmp_path / "adapter")] == ["model.safetensors"]
    assert all(part.isfinite().all() for part in load_file(tmp_path / "adapter" / "model.safetensors").values())
    assert (tmp_path / "adapter" / "config.json").exists()

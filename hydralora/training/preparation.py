"""Preparation of a run from its recipe: encoded rows, components, and the adapted model."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model

from hydralora.components import Clusters, Component, renamed
from hydralora.components.rows import components_of, read_rows, split_with_components
from hydralora.data.encoding import KEPT, Encoded, encode_rows, with_heads
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.data.split import Split
from hydralora.data.template_checks import check_base
from hydralora.errors import ConfigError, DatasetError, first_line
from hydralora.models.adapters import inserted_outputs, put_adapter, read_adapter_config, without_known_warnings
from hydralora.models.catalogue import find_model
from hydralora.models.device import pick_device
from hydralora.models.fetching import BaseModelFiles
from hydralora.models.loading import load_base, load_tokenizer
from hydralora.models.types import Tokenizer
from hydralora.recipe.methods import METHODS
from hydralora.recipe.settings import Recipe
from hydralora.runs.results import DataSource, RowCounts, TemplateCheck
from hydralora.runs.state import Stage
from hydralora.training.adalora import freeze_rank_counters
from hydralora.training.adapter_config import adapter_config
from hydralora.training.stopping import check_in_blocks
from hydralora.tuner.config import HydraLoraConfig
from hydralora.tuner.head_init import PASSES as HEAD_PASSES
from hydralora.tuner.head_init import init_heads
from hydralora.tuner.router_init import PASSES as ROUTER_PASSES
from hydralora.tuner.router_init import init_router

LEARNT = ("softmax", "cosine")  # routers of the default method


@dataclass(frozen=True)
class Prepared:
    """A run before its first evaluation."""

    files: BaseModelFiles
    device: str
    tokenizer: Tokenizer
    model: Any
    train: list[Encoded]
    heldout: list[Encoded]
    counts: RowCounts
    template_checks: list[TemplateCheck]
    sources: list[DataSource]  # file and sha256 of what was trained on
    tasks: list[str] | None  # of each row that was clustered
    train_labels: list[int]  # component of each row of `train`, -1 for noise
    clusters: Clusters  # of all rows of the training file, including held-out ones
    components: list[Component]
    heldout_labels: list[int]  # component of each row of `heldout`; noise gets the nearest
    router_entropy: float | None  # normalised gate entropy at the start, where the components set it

    @property
    def k(self) -> int:
        return self.clusters.k

    @property
    def sizes(self) -> list[int]:
        return self.clusters.sizes


def prepare(
    recipe: Recipe,
    on_stage: Callable[[Stage], None],
    on_progress: OnProgress = ignore_progress,
    check: Callable[[], None] | None = None,
) -> Prepared:
    """Read, cluster, load and adapt.

    Args:
        on_stage: called at the beginning of each stage.
        on_progress: called with what is done of the stage: rows read, steps of the clustering, models loaded.
        check: called before every block of each of the model's passes from now on; an exception ends the pass.

    Raises:
        HydraError: the data, the model or a setting can't be used.
    """
    _set_threads(recipe.training.threads, recipe.launch.processes)
    on_stage(Stage.READING)
    data = read_rows(recipe)
    on_progress(len(data.examples), len(data.examples))
    on_stage(Stage.CLUSTERING)
    clusters = components_of(recipe, data.examples, on_progress)
    components = renamed(clusters.components, recipe.components.names)
    rows, component, heldout_component = split_with_components(recipe, data, clusters)
    train, heldout = rows.train, rows.heldout
    on_stage(Stage.LOADING)
    on_progress(0, 1)
    files, device = find_model(recipe.model), pick_device()
    tokenizer, base = load_tokenizer(files), _load_base(files, device, recipe, check)
    encoded = [encode_rows(tokenizer, part, recipe) for part in (train, heldout)]
    train_rows, train_labels = _labelled(encoded[0].rows, component, recipe)
    heldout_rows, heldout_labels = _labelled(encoded[1].rows, heldout_component, recipe)
    on_stage(Stage.ADAPTING)
    on_progress(1, 1)
    model = _adapted(files, base, recipe, clusters.k)
    entropy = None
    if recipe.starts_from_components or recipe.starts_heads:
        on_stage(Stage.STARTING_ROUTER)
        entropy = _start_from_components(model, recipe, train_rows, train_labels, components, on_progress)
    model.eval()
    kinds = sum((Counter(part.by_kind) for part in encoded), Counter[str]())
    notes = Counter(rows.notes) + Counter({kind: kinds.pop(kind) for kind in KEPT if kind in kinds})
    return Prepared(
        files=files,
        device=device,
        tokenizer=tokenizer,
        model=model,
        train=train_rows,
        heldout=heldout_rows,
        counts=_counts(rows, kinds + Counter(rows.by_kind), notes),
        template_checks=_checked_template(files, tokenizer, recipe),
        sources=[DataSource(file=file, sha256=digest) for file, digest in zip(data.files, data.hashes, strict=True)],
        tasks=data.tasks,
        train_labels=train_labels,
        clusters=clusters,
        components=components,
        heldout_labels=heldout_labels,
        router_entropy=entropy,
    )


def _counts(rows: Split, problems: Counter[str], notes: Counter[str]) -> RowCounts:
    counts = RowCounts(train=len(rows.train), heldout=len(rows.heldout), problems=dict(problems))
    return counts.changed(notes=dict(notes)) if notes else counts


def _checked_template(files: BaseModelFiles, tokenizer: Tokenizer, recipe: Recipe) -> list[TemplateCheck]:
    trained = [*(recipe.tuner.modules_to_save or ()), *(recipe.tuner.target_modules or ())]
    return [TemplateCheck(**asdict(check)) for check in check_base(files, tokenizer, trained)]


def _load_base(files: BaseModelFiles, device: str, recipe: Recipe, check: Callable[[], None] | None) -> Any:
    base = load_base(files, device, recipe.quantization)
    if check:
        check_in_blocks(base, check)
    return base


def _adapted(files: BaseModelFiles, base: Any, recipe: Recipe, k: int) -> Any:
    """The base model with the recipe's adapter, new or of an earlier run."""
    torch.manual_seed(recipe.training.seed)
    with without_known_warnings():
        return _adapt_again(files, base, recipe) if recipe.start_from else adapt(base, recipe, k)


def adapt(base: Any, recipe: Recipe, k: int, empty: bool = False) -> Any:
    """A base model with a recipe's new adapter; or that model itself, where all its weights are trained.

    Args:
        k: the number of heads, where the recipe leaves it to the components.
        empty: the base has no weights; give the adapter none either.

    Raises:
        ConfigError: a setting doesn't fit the model.
    """
    if recipe.method == "full":
        return base.float()  # steps of a small learning rate would be lost in half precision
    try:
        model = get_peft_model(base, adapter_config(base, recipe, k), low_cpu_mem_usage=empty)
        freeze_rank_counters(model)
        if recipe.tuning.has_virtual_tokens and not empty:
            _try(model)
        return model
    except ConfigError:
        raise
    except ValueError as error:  # PEFT's own, for its methods
        what = "tuner.target_modules" if "target_modules" in recipe.tuning.reads else f"method {recipe.method}"
        raise ConfigError(f"{what}: {error}") from error


@torch.no_grad()
def _try(model: PeftModel) -> None:
    """Read a row of three tokens: not every architecture takes virtual tokens, and PEFT has no list of those that do.

    Raises:
        ValueError: the model can't be used with virtual tokens.
    """
    ids = torch.zeros((1, 3), dtype=torch.long, device=model.device)
    try:
        outputs = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.shape[1]
        fits = outputs == 3 + inserted_outputs(model)
        reason = f"it gives {outputs} outputs for 3 tokens"
    except Exception as error:  # of any kind, by what the architecture does with them
        fits, reason = False, first_line(error)
    if not fits:
        name = type(model.get_base_model()).__name__
        raise ValueError(f"{name} can't be used with virtual tokens ({reason}). Choose another method, such as lora.")


def _adapt_again(files: BaseModelFiles, base: Any, recipe: Recipe) -> Any:
    """The base model with a trained adapter, for further training; its shape must be the recipe's."""
    folder = Path(recipe.start_from or "")
    config = read_adapter_config(folder)
    tuner, has_heads = recipe.tuner, isinstance(config, HydraLoraConfig)
    of_heads = {name: method.heads for name, method in METHODS.items() if method.heads is not None}
    method = next((name for name, changes in of_heads.items() if has_heads and _has(config, changes)), "lora")
    shape: dict[str, tuple[Any, Any]] = {  # the adapter's, and the recipe's
        "method": (method, recipe.method),
        "tuner.r": (config.r, tuner.r),
        "tuner.lora_alpha": (config.lora_alpha, tuner.lora_alpha),
        "tuner.use_rslora": (config.use_rslora, tuner.use_rslora),
    }
    if has_heads:
        shape["tuner.num_heads"] = (config.num_heads, tuner.num_heads)
        shape["tuner.cores"] = (config.cores, tuner.cores)
    if has_heads and recipe.has_router:
        names = ("router", "router_norm", "router_scope")
        shape |= {f"tuner.{name}": (getattr(config, name), getattr(tuner, name)) for name in names}
    if unlike := [f"{name}={actual}" for name, (actual, expected) in shape.items() if actual != expected]:
        raise ConfigError(f"start_from: the adapter has another shape than this recipe. Set {', '.join(unlike)}.")
    if by_layer := [name for name in ("rank_pattern", "alpha_pattern") if getattr(config, name, None)]:
        raise ConfigError(
            f"start_from: the adapter was made with {' and '.join(by_layer)}, which a recipe can't hold. Train it on "
            "with PEFT, or start from an adapter without."
        )
    return put_adapter(files, base, folder, trainable=True, dropout=recipe.tuner.lora_dropout)


def _has(config: HydraLoraConfig, changes: Mapping[str, object]) -> bool:
    """Whether a config equals the default method's with these changes."""
    actual = {
        "shared_A": config.shared_A,
        "vectors": config.vectors,
        "router": LEARNT if config.router in LEARNT else config.router,
    }
    expected = {"shared_A": True, "vectors": False, "router": LEARNT, **changes}
    return all(expected[name] == value for name, value in actual.items())


def _labelled(rows: list[Encoded], component: Mapping[int, int], recipe: Recipe) -> tuple[list[Encoded], list[int]]:
    """Rows, and the component of each; for an oracle they name its head, or the first if they are in none."""
    labels = [component[row.example.row] for row in rows]
    if recipe.tuning.is_told_heads:
        rows = with_heads(rows, labels)
    return rows, labels


def _start_from_components(
    model: Any,
    recipe: Recipe,
    rows: list[Encoded],
    labels: list[int],
    components: list[Component],
    on_progress: OnProgress,
) -> float | None:
    """Start the heads and the router as the recipe says; returns the router's mean entropy."""
    for component in components:
        if component.id not in labels:
            raise DatasetError(
                f"Every row of component {component.id + 1} ({component.name}) is held out, or longer than "
                f"training.max_length={recipe.training.max_length} tokens, so no head can start from it. Raise "
                "max_length, set data.stratify=component, or tuner.num_heads together with tuner.router_init=random."
            )
    inputs = [{"input_ids": row.input_ids} for row in rows]
    passes = HEAD_PASSES * recipe.starts_heads + ROUTER_PASSES * recipe.starts_from_components
    if recipe.starts_heads:
        init_heads(
            model,
            inputs,
            labels,
            on_progress=lambda done, total: on_progress(done, total // HEAD_PASSES * passes),
            seed=recipe.training.seed,
        )
    if not recipe.starts_from_components:
        return None
    before = HEAD_PASSES * recipe.starts_heads

    def progress(done: int, total: int) -> None:
        once = total // ROUTER_PASSES
        on_progress(before * once + done, passes * once)

    reached = init_router(model, inputs, labels, recipe.tuner.router_entropy, on_progress=progress)
    return sum(reached.values()) / len(reached)


def _set_threads(threads: int, processes: int) -> None:
    """Leave one of more than two cores to the app; a run's processes share the others."""
    cores = os.cpu_count() or 1
    torch.set_num_threads(min(threads, cores) or max(1, (cores - 1 if cores > 2 else cores) // processes))

"""Every setting of a run, declared once for the YAML file, the command line and the app's form."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from hydralora.files import why_no_file_name
from hydralora.models.loading import Quantization
from hydralora.recipe.launch_settings import LaunchSettings
from hydralora.recipe.methods import METHODS, Method, MethodName, why_unfit
from hydralora.recipe.section import Section
from hydralora.recipe.tuner_settings import TunerSettings

VERSION = 1
LAST_SEED = 2**32 - 1  # NumPy's and scikit-learn's
MOST_STEPS = 10_000_000
FILE_NAMES = (  # settings beside data.train that may name a file, a folder or a model
    "model",
    "start_from",
    "data.eval",
    "data.mapping",
    "components.sentence_model",
    "launch.fsdp_config",
    "launch.deepspeed",
)
TooLong = Literal["drop", "cut"]
ControlTokens = Literal["text", "drop", "parse"]
RENAMED = {  # settings that had another name in an older version, whose files are still read
    "training.accumulation": "training.gradient_accumulation",
    "training.warmup": "training.warmup_ratio",
    "training.overlong": "training.too_long",
    "training.prompts": "training.sample_prompts",
}


class DataSettings(Section):
    train: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="Training rows: a file or several, such as JSONL, CSV or Parquet, also gzipped; or "
        "hub:OWNER/NAME:CONFIG@SPLIT, a dataset of the Hugging Face Hub."
    )
    eval: str | None = Field(None, description="A file of held-out rows. None: some of the training rows are held out.")
    mapping: str | None = Field(
        None, description="A mapping file: which column holds what. None: detected from the column names."
    )
    task_column: str | None = Field(
        None, description="Column with a row's task, used for evaluation only. None: the column task or category."
    )
    eval_fraction: float = Field(0.1, gt=0, lt=1, description="Share of the rows held out where there is no eval file.")
    stratify: Literal["none", "task", "component"] = Field(
        "none", description="Hold out the same share of every task, or of every component of the file."
    )
    control_tokens: ControlTokens = Field(
        "text",
        description="Rows that hold a control token of the base model, such as <|im_end|>: it is read as text, the row "
        "is dropped, or it is read as the control token (parse: only for rows that you trust).",
    )

    @property
    def train_files(self) -> list[str]:
        return self.train if isinstance(self.train, list) else [self.train]


class ComponentSettings(Section):
    method: Literal["kmeans", "dbscan"] = Field(
        "kmeans", description="k-means, or DBSCAN, which finds the number of components and may leave rows in none."
    )
    features: Literal["tfidf-svd", "tfidf", "model", "sentence"] = Field(
        "tfidf-svd",
        description="Features that rows are clustered by: TF-IDF, reduced and normalised (tfidf-svd) or plain as in "
        "the paper (tfidf); the base model's hidden states; or a sentence model's embeddings.",
    )
    sentence_model: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        min_length=1,
        description="A sentence-transformers model for features sentence: a Hub id, or a folder.",
    )
    text: Literal["question", "everything"] = Field(
        "question", description="The text that is clustered: a row's question, or its question and answer."
    )
    language: Literal["en"] | None = Field(
        None, description="Language whose stop words are left out. None: all words are kept."
    )
    k: int | None = Field(None, ge=1, le=64, description="Number of components. None: found from the data.")
    seed: int = Field(0, ge=0, le=LAST_SEED, description="Seed of the clustering.")
    names: list[str] | None = Field(None, description="Names of the components, in order. None: their typical terms.")
    labels: Literal["found", "tasks", "shuffled"] = Field(
        "found",
        description="The components that heads start from: those found; the rows' own tasks (an upper bound, for "
        "comparison); or those found, exchanged between the rows at random (a lower bound).",
    )
    only: int | None = Field(
        None, ge=1, le=64, description="Train on the rows of one component only: its number, counted from 1. None: all."
    )

    @property
    def by_model(self) -> bool:
        """Whether a model reads every row, in place of a count of their words."""
        return self.features in ("model", "sentence")


class TrainingSettings(Section):
    max_steps: int | None = Field(
        100, ge=1, le=MOST_STEPS, description="Optimiser steps; one step uses batch_size x gradient_accumulation rows."
    )
    epochs: float | None = Field(None, gt=0, le=10_000, description="Passes over the training rows.")
    batch_size: int = Field(8, ge=1, le=4096, description="Rows in a batch.")
    gradient_accumulation: int = Field(
        1, ge=1, le=4096, description="Batches whose gradients are summed for one optimiser step."
    )
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    max_length: int = Field(512, ge=8, le=2**20, description="Longest row in tokens.")
    too_long: TooLong = Field(
        "drop", description="Rows longer than max_length are dropped, or cut at their end; both are counted."
    )
    eval_every: int = Field(
        25, ge=0, le=MOST_STEPS, description="Steps between evaluations on a sample of the held-out rows; 0: none."
    )
    sample_prompts: int = Field(
        3, ge=0, le=16, description="Held-out prompts that are answered at every evaluation; 0: none."
    )
    save_every: int = Field(
        50,
        ge=0,
        le=MOST_STEPS,
        description="Steps between checkpoints, from which a run resumes after a crash; 0: one when it stops.",
    )
    keep_checkpoints: int = Field(2, ge=1, le=1000, description="Number of newest checkpoints to keep.")
    snapshots: int = Field(
        12, ge=0, le=100, description="Number of snapshots of A and the heads, which show how they learn; 0: none."
    )
    log_every: int = Field(5, ge=1, le=MOST_STEPS, description="Steps between events with loss and gates.")
    gradient_checkpointing: bool = Field(
        False,
        description="Recompute blocks in the backward pass instead of storing activations: less memory, more time.",
    )
    measure_forgetting: bool = Field(
        False, description="Also measure the loss on a short neutral text that ships, before and after training."
    )
    benchmarks: list[str] | None = Field(
        None,
        description="Also evaluate public benchmarks before and after training, by their names in "
        "lm-evaluation-harness, such as gsm8k (needs the extra eval).",
    )
    benchmark_rows: int = Field(200, ge=1, le=10**6, description="At most so many rows of each benchmark.")
    report_to: list[str] | None = Field(
        None,
        description="Trackers that transformers' Trainer reports to: tensorboard, trackio, wandb. None: none of them.",
    )
    seed: int = Field(
        0, ge=0, le=LAST_SEED, description="Seed of the split, the adapter's initialisation and the row order."
    )
    threads: int = Field(
        0,
        ge=0,
        le=1024,
        description="CPU threads of a process, of at most the machine's cores. 0: all of them but one (both of two), "
        "shared by the processes.",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("epochs") is not None:
            if values.get("max_steps") is not None:
                raise ValueError("set max_steps or epochs, not both")
            return values | {"max_steps": None}
        return values

    @model_validator(mode="after")
    def _some_length(self) -> "TrainingSettings":
        if self.max_steps is None and self.epochs is None:
            raise ValueError("set max_steps or epochs")
        return self


class Recipe(Section):
    """A run's settings: what is trained, on what, and how."""

    model: str = Field(description="Base model: a catalogue id, any Hub id, or a folder.")
    method: MethodName = Field(
        "hydralora",
        description="HydraLoRA; or, for comparison, a plain LoRA of rank r on the same layers, one of the paper's "
        "ablations (lora-split: each head with its own A; uniform: equal gates), gates that are given each training "
        "and held-out row's component (oracle), mixtures of the components' LoRAs (lorahub, needs the extra lorahub), "
        "or a method that it is compared with, by PEFT; full trains all weights "
        "of the base model.",
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        description="Continue training an adapter of the same shape: a run's id, or its folder. None: a new adapter.",
    )
    quantization: Quantization = Field(
        "none",
        description="Quantization of the base model's linear layers: none, or nf4 (4 bits; needs the extra quant).",
    )
    data: DataSettings
    components: ComponentSettings = Field(default_factory=ComponentSettings)
    tuner: TunerSettings = Field(default_factory=TunerSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    launch: LaunchSettings = Field(default_factory=LaunchSettings)

    @property
    def has_heads(self) -> bool:
        """Whether the adapter has heads, and not one B alone."""
        return self.tuning.heads is not None

    @property
    def tuning(self) -> Method:
        """What the method trains and reads."""
        return METHODS[self.method]

    @property
    def starts_from_components(self) -> bool:
        """Whether there is a router that starts from the components."""
        return self.has_router and self.tuner.router_init == "components" and not self.start_from

    @property
    def has_router(self) -> bool:
        """Whether the gates are learnt."""
        return "router_init" in self.tuning.reads

    @property
    def heads_are_components(self) -> bool:
        """Whether head i stands for component i from the start."""
        return self.starts_from_components or self.starts_heads or self.tuning.is_told_heads

    @property
    def starts_heads(self) -> bool:
        """Whether the heads start from the components."""
        return self.has_heads and self.tuner.head_init == "components" and not self.start_from

    @model_validator(mode="after")
    def _names_can_be_files(self) -> "Recipe":
        for name, text in self._file_names():
            if why := why_no_file_name(text):
                raise ValueError(f"{name} {why}, so it can't name a file or a model")
        return self

    def _file_names(self) -> Iterator[tuple[str, str]]:
        """The settings that may name a file, a folder or a model, with their values."""
        yield from (("data.train", file) for file in self.data.train_files)
        values = self.settings()
        yield from ((name, values[name]) for name in FILE_NAMES if isinstance(values[name], str))

    @model_validator(mode="after")
    def _one_component_or_several(self) -> "Recipe":
        if self.components.only and self.heads_are_components:
            raise ValueError(
                "components.only trains on one component, so the router can't start from several. "
                "Set method=lora, or tuner.router_init=random"
            )
        told = self.tuning.is_told_heads
        reads_rows = told or (self.has_router and self.tuner.router_scope == "row")
        if reads_rows and self.training.gradient_checkpointing:
            raise ValueError(
                "training.gradient_checkpointing reads the blocks once more without knowing their rows, which "
                f"{f'method={self.method}' if told else 'tuner.router_scope=row'} needs. Leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _fits_method(self) -> "Recipe":
        sharded, quantised = self.launch.fsdp or self.launch.deepspeed, self.quantization != "none"
        checkpointing = self.training.gradient_checkpointing
        if why := why_unfit(self.method, bool(self.start_from), quantised, checkpointing, bool(sharded)):
            raise ValueError(why)
        return self

    def settings(self) -> dict[str, Any]:
        """Every setting's value by "section.name"; those of no section by their name."""
        values: dict[str, Any] = {}
        for name, value in self:
            inner = (
                {f"{name}.{key}": setting for key, setting in value} if isinstance(value, Section) else {name: value}
            )
            values |= inner
        return values

    def portable(self) -> "Recipe":
        """A copy for other machines: local files and models are given by their names only, and the cluster's settings,
        which may hold secrets, are removed."""
        moved = self.model_copy(deep=True)
        train = self.data.train
        moved.data.train = [_name(file) for file in train] if isinstance(train, list) else _name(train)
        for section, key in (
            (moved.data, "eval"),
            (moved.data, "mapping"),
            (moved.launch, "fsdp_config"),
            (moved.launch, "deepspeed"),
        ):
            value = getattr(section, key)
            setattr(section, key, _name(value) if isinstance(value, str) else value)
        moved.launch.slurm = None
        moved.model = _name(self.model) if Path(self.model).is_absolute() else self.model
        if self.start_from and Path(self.start_from).is_absolute():
            moved.start_from = _name(self.start_from)
        sentence = self.components.sentence_model
        moved.components.sentence_model = _name(sentence) if Path(sentence).is_absolute() else sentence
        return moved

    def to_yaml(self) -> str:
        return yaml.safe_dump({"version": VERSION} | self.model_dump(), sort_keys=False, allow_unicode=True)


def _name(file: str) -> str:
    return file if file.startswith("hub:") else file.replace("\\", "/").rpartition("/")[2]


def default_value(key: str) -> Any:
    """The default of the setting "section.name"."""
    section, _, name = key.rpartition(".")
    fields = Recipe.model_fields
    if section:
        fields = fields[section].annotation.model_fields  # type: ignore[union-attr]
    return fields[name].default

"""What an exported run tells of itself beside its recipe: checked field by field, and nothing else is kept."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from hydralora.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

ABOUT = "run.json"
ADAPTER = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, "README.md")
MEMBERS = (*ADAPTER, "recipe.yaml", ABOUT, "events.jsonl")

Name = Annotated[str, Field(max_length=500)]
Share = Annotated[float, Field(ge=0, le=1)]


class Score(BaseModel):
    """A measurement on some rows."""

    loss: float | None
    exact_match: Share
    rows: int


class Scores(Score):
    """A measurement on all rows, and of each group of them."""

    per_task: dict[Name, Score]
    per_component: dict[Name, Score]


class ComponentAbout(BaseModel):
    """A component of the rows that a run was trained on."""

    id: int
    name: Name
    size: int
    terms: list[Name]


class Results(BaseModel):
    """A run's measurements, as `hydralora.results.describe_run` makes them."""

    rows: dict[Name, int | dict[Name, int]] = {}
    data: list[dict[Name, Name]] = []
    k: int = 0
    sizes: list[int] = []
    components: list[ComponentAbout] = []
    ari: float | None = None
    base: Scores | None = None
    tuned: Scores | None = None
    component_by_head: list[list[Share]] | None = None
    mutual_information: float | None = None
    head_cosine: float | None = None
    router_entropy_at_start: float | None = None
    parameters: dict[Name, float] | None = None
    seconds: dict[Name, float] = {}


class BaseAbout(BaseModel):
    """Which base model it was."""

    id: Name
    source: Name
    hash: Name


class About(BaseModel):
    """What is known of an exported run, beside its recipe and its events."""

    version: Literal[1]
    step: int
    max_steps: int | None
    base: BaseAbout
    adapter_hash: Name
    k: int | None = None
    results: Results | None = None


class Event(BaseModel):
    """A run's event, with the numbers that figures are drawn of."""

    step: int
    time: float
    kind: Literal["train", "eval", "gates", "note"]
    message: Name | None = None
    stage: Name | None = None
    max_steps: int | None = None
    split: Name | None = None
    loss: float | None = None
    exact_match: Share | None = None
    rows: int | dict[Name, int | dict[Name, int]] | None = None
    per_task: dict[Name, Score] | None = None
    per_component: dict[Name, Score] | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    tokens_per_second: float | None = None
    balance_loss: float | None = None
    mean_gate: list[Share] | None = None
    entropy: float | None = None

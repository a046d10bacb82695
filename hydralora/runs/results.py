"""A run's results."""

from typing import Literal

from pydantic import Field

from hydralora.models.fetching import BaseModelInfo
from hydralora.runs.records import Name, Record, Share
from hydralora.runs.scores import Scores
from hydralora.tuner.model import ParameterCounts


class DataSource(Record):
    """A file that a run was trained on: its name, and the sha256 of its content."""

    file: Name
    sha256: Name


class RowCounts(Record):
    """Number of usable rows by part, and of rows with a problem or a note by its kind.

    Attributes:
        problems: of rows left out or cut.
        notes: of rows used, but read otherwise than they are written.
    """

    train: int
    heldout: int
    problems: dict[Name, int] = Field(default_factory=dict)
    notes: dict[Name, int] = Field(default_factory=dict)

    def sentence(self) -> str:
        """What is not as it is written in the files; "" if all is."""
        parts = (("left out or cut", self.problems), ("read otherwise than written", self.notes))
        texts = [
            f"{what}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}"
            for what, counts in parts
            if counts
        ]
        return "; ".join(texts)


class TemplateCheck(Record):
    """An answer of `hydralora models check` on a run's base model."""

    name: Name
    state: Literal["ok", "note", "problem"]
    found: Name
    fix: Name = ""

    def sentence(self) -> str:
        return f"{self.name.replace('-', ' ').capitalize()}: {self.found} {self.fix}".strip()


class ComponentSummary(Record):
    """A component of the rows that a run was trained on."""

    id: int
    name: Name
    size: int
    terms: list[Name]


class HeadUseSummary(Record):
    """How the held-out rows use the heads.

    Attributes:
        component_by_head: [i][j] is head j's mean gate on component i; an empty list without rows of it.
        mutual_information: of component and strongest head (`hydralora.analysis.head_use.HeadUse`).
        gate_entropy: of an answer token's gates, the mean over tokens and layers, as a share of its maximum.
        head_cosine: mean over layers and pairs of heads; None where heads are still zero, or there is only one.
    """

    component_by_head: list[list[Share]] | None = None
    mutual_information: float | None = None
    gate_entropy: float | None = None
    head_cosine: float | None = None


class Forgetting(Record):
    """The loss on a neutral text (nats per token; None for NaN) of the base model, and after training."""

    before: float | None
    after: float | None

    @property
    def increase(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before


Metrics = dict[Name, float]  # of a benchmark, by "name" or, where it filters answers in several ways, "name,filter"


class TaskScores(Record):
    """A public benchmark's metrics of a run's model and of its base model, on its first `limit` rows; None for all."""

    base: Metrics
    tuned: Metrics
    limit: int | None


class RunResults(HeadUseSummary):
    """A run's measurements.

    Attributes:
        template_checks: of the base model's chat template, before training.
        ari: the components' adjusted Rand index against the tasks; None where rows have no task.
        base, tuned: scores on the held-out rows before and after training; None where they were not measured.
        forgetting: None where it was not asked for.
        benchmarks: by task; those that the recipe names.
        tokens_per_second: of training, in the run's last process; padding doesn't count.
        seconds: by stage; total_seconds of all the run's processes, peak_memory_bytes of the last one.
        energy_kwh: by part, and in total; None where nothing could be measured.
        adapter_hash: sha256 of the adapter's weights; None if nothing was learnt.
    """

    rows: RowCounts | None = None
    data: list[DataSource] = Field(default_factory=list)
    k: int = 0
    sizes: list[int] = Field(default_factory=list)
    components: list[ComponentSummary] = Field(default_factory=list)
    ari: float | None = None
    base: Scores | None = None
    tuned: Scores | None = None
    forgetting: Forgetting | None = None
    benchmarks: dict[Name, TaskScores] = Field(default_factory=dict)
    tokens_per_second: float | None = None
    template_checks: list[TemplateCheck] = Field(default_factory=list)
    router_entropy_at_start: float | None = None
    parameters: ParameterCounts | None = None
    base_model: BaseModelInfo | None = None
    seconds: dict[Name, float] = Field(default_factory=dict)
    step: int = 0
    max_steps: int | None = None
    stopped: bool = False
    adapter_hash: Name | None = None
    peak_memory_bytes: int | None = None
    total_seconds: float | None = None
    energy_kwh: dict[Name, float] | None = None

    def portable(self) -> "RunResults":
        """A copy for other machines, without the values that describe this one."""
        return self.without("base_model", "peak_memory_bytes", "total_seconds", "tokens_per_second", "energy_kwh")

    def component_names(self) -> list[str]:
        """The components' names for display: counted from 1, with their terms or given names."""
        return [f"{component.id + 1}: {component.name}" for component in self.components]

"""The paper's breakdown (section 3.1) on any dataset: a LoRA for each component, and how far their A's and B's
differ."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from hydralora.analysis import Matrix, Separation, Weights, apart, matrices, read_weights, separation
from hydralora.analysis.separation import INTERVAL
from hydralora.errors import ConfigError, HydraError
from hydralora.recipe.settings import Recipe
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Label, Run
from hydralora.runs.snapshots import saved_snapshots
from hydralora.runs.store import RunStore

STEPS = 40
TAG = "breakdown"
CLEARLY = 0.1  # smaller differences of two mean cosines don't count
LEAST_MODULES = 5  # for an interval over modules to be meaningful
DRAWS = 1000  # of modules, for the interval
Verdict = Literal["holds", "does not hold", "can't tell"]
APART = {
    True: "further apart than by chance",
    False: "no further apart than by chance",
    None: "in too few modules to tell",
}


def breakdown_recipes(run: Run, steps: int = STEPS) -> list[Recipe]:
    """For each component of a run's rows, a plain LoRA of the run's rank, trained only on that component's rows.

    Raises:
        ConfigError: its components are not known, or there is only one.
    """
    recipe, k = run.recipe(), run.state().k
    if not k or k < 2 or recipe.components.only:
        actual = "only one component" if k == 1 or recipe.components.only else "no components yet"
        raise ConfigError(f"Run {run.id} has {actual}; a breakdown needs two or more. Choose another run.")
    values = recipe.model_dump()
    values |= {"method": "lora", "start_from": None}
    values["tuner"] |= {"num_heads": None, "top_k": None}
    values["training"] |= {"max_steps": steps, "epochs": None, "eval_every": 0, "sample_prompts": 0, "snapshots": 1}
    if not recipe.data.eval:
        values["data"]["stratify"] = "component"  # some of each must be held out
    if recipe.components.method == "kmeans":
        values["components"]["k"] = k
    return [Recipe.model_validate(values | {"components": values["components"] | {"only": i + 1}}) for i in range(k)]


def breakdown_runs(store: RunStore, run: Run, steps: int = STEPS) -> list[Run | None]:
    """The newest run of each of `breakdown_recipes`; None for recipes without a run."""
    recipes = breakdown_recipes(run, steps)
    runs: list[Run | None] = [None] * len(recipes)
    for candidate, recipe in _tagged(store):
        if recipe in recipes and runs[place := recipes.index(recipe)] is None:
            runs[place] = candidate
    return runs


def breakdown_steps(store: RunStore, run: Run) -> int:
    """The number of steps of a run's newest breakdown; `STEPS` if there is none.

    Raises:
        ConfigError: as `breakdown_recipes`.
    """
    recipes = breakdown_recipes(run)
    for _, recipe in _tagged(store):
        steps, recipe.training.max_steps = recipe.training.max_steps, STEPS
        if recipe in recipes and steps:
            return steps
    return STEPS


def _tagged(store: RunStore) -> Iterator[tuple[Run, Recipe]]:
    """Runs of any breakdown, the newest first."""
    for run in store.all():
        if TAG in run.label().tags:
            try:
                yield run, run.recipe()
            except HydraError:  # damaged runs are ignored
                continue


def start_breakdown(jobs: JobManager, run: Run, steps: int = STEPS) -> list[Run]:
    """Queue the runs that don't exist or didn't finish; returns all of them, in the components' order.

    Raises:
        HydraError: as `breakdown_recipes`.
    """
    names = component_names(run)
    out = []
    for i, (recipe, component_run) in enumerate(
        zip(breakdown_recipes(run, steps), breakdown_runs(jobs.store, run, steps), strict=True)
    ):
        if component_run is None or jobs.refresh(component_run).state in ("failed", "stopped", "interrupted"):
            component_run = jobs.start(recipe)
            note = f"One of the LoRAs of the breakdown of run {run.id}."
            component_run.write_label(Label(f"{names[i]} alone", note, (TAG,)))
        out.append(component_run)
    return out


def component_names(run: Run) -> list[str]:
    """The components' names from the run's results, else by number."""
    state = run.state()
    names = state.results.component_names() if state.results else []
    return names or [f"component {i + 1}" for i in range(state.k or 0)]


@dataclass(frozen=True)
class Part:
    """One comparison: of all runs "A", "change of A" or "B"; of one run "head"."""

    what: str
    separation: Separation

    def describe(self) -> dict[str, Any]:
        """As plain values."""
        measured = self.separation
        return {
            "what": self.what,
            "apart": measured.apart,
            "shape": measured.shape,
            "modules": measured.modules,
            "silhouette": measured.silhouette,
            "chance": measured.chance,
            "cosine": measured.cosine,
        }


@dataclass(frozen=True)
class Difference:
    """How much more similar the changes of A are than those of B.

    Attributes:
        modules: number of modules compared.
        mean: over the modules, of the mean cosine between components of the change of A, minus that of B.
        interval: 95 % bootstrap interval of that mean, over modules.
    """

    modules: int
    mean: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> Verdict:
        """The claim holds if the interval is above 0 and the mean above `CLEARLY`; it doesn't if the interval is below
        `CLEARLY`. Otherwise, and with fewer than `LEAST_MODULES` modules, it is undecided."""
        low, high = self.interval
        if self.modules < LEAST_MODULES:
            return "can't tell"
        if low > 0 and self.mean > CLEARLY:
            return "holds"
        return "does not hold" if high < CLEARLY else "can't tell"


@dataclass(frozen=True)
class Breakdown:
    """How LoRAs trained on one component each differ.

    Attributes:
        parts: the separation by run, for each kind and shape of matrix.
        members: every A and B; their `run` is the component's name.
    """

    parts: list[Part]
    members: list[Matrix]

    def cosine(self, what: str) -> float | None:
        """The mean cosine between components, over the modules."""
        known = self._cosines(what)
        return float(np.mean(list(known.values()))) if known else None

    def difference(self, seed: int = 0) -> Difference | None:
        """How much more similar the changes of A are than those of B; None if one of them is missing."""
        change, heads = self._cosines("change of A"), self._cosines("B")
        values = np.array([change[module] - heads[module] for module in change if module in heads])
        if not len(values):
            return None
        draws = np.random.default_rng(seed).choice(values, (DRAWS, len(values))).mean(1)
        low, high = np.percentile(draws, INTERVAL)
        return Difference(len(values), float(values.mean()), (float(low), float(high)))

    def reading(self) -> str:
        """Whether the paper's claim holds here, in words: A learns what components share, B what distinguishes them."""
        stay, change, heads = (self.cosine(what) for what in ("A", "change of A", "B"))
        difference = self.difference()
        if difference is None or change is None or heads is None or stay is None:
            return (
                "These runs can't be compared: as far as their snapshots show, A or B has not changed since the start. "
                "Train them for more steps."
            )
        low, high = difference.interval
        return (
            f"{_verdict_sentence(difference)} Mean cosine between components, within a module: what training added to "
            f"A {change:.2f}, B {heads:.2f}. The difference is {difference.mean:.2f}, and {low:.2f} to {high:.2f} in "
            f"95 % of {DRAWS} draws of the {difference.modules} modules; it counts as clear above {CLEARLY}. Other "
            f"seeds or rows may differ by more. By component, what training added to A lies "
            f"{APART[self._apart('change of A')]}, B {APART[self._apart('B')]}. A itself, {stay:.2f}, says little: "
            "every run starts from the same A, by its seed."
        )

    def _cosines(self, what: str) -> dict[str, float]:
        """Mean cosine between components, by module."""
        return {
            module: cosine
            for part in self.parts
            if part.what == what
            for module, cosine in part.separation.cosines.items()
        }

    def _apart(self, what: str) -> bool | None:
        return apart([part.separation for part in self.parts if part.what == what])


def _verdict_sentence(difference: Difference) -> str:
    if difference.verdict == "holds":
        return "The claim holds here: the changes of A are more alike than those of B."
    if difference.verdict == "does not hold":
        less = "less" if difference.interval[1] < 0 else "no more"
        return f"The claim does not hold here: the changes of A are {less} alike than those of B."
    few = f"they have {difference.modules} modules in common, and at least {LEAST_MODULES} are needed"
    why = few if difference.modules < LEAST_MODULES else "the modules differ too much from each other"
    return f"The claim can be neither confirmed nor refuted here: {why}."


def break_down(runs: Mapping[str, Run]) -> Breakdown:
    """Compare finished LoRAs, given by their components' names.

    Raises:
        HydraError: an adapter or its first snapshot can't be read.
    """
    members: list[Matrix] = []
    moved: list[Matrix] = []
    for name, run in runs.items():
        end = read_weights(run.adapter)
        first = saved_snapshots(run.snapshots).get(0)
        members += matrices(end, name)
        if first:
            change = matrices(_change(end, read_weights(run.snapshots, first)), name)
            moved += [matrix for matrix in change if matrix.kind == "A"]
    parts = {
        "A": [matrix for matrix in members if matrix.kind == "A"],
        "change of A": moved,
        "B": [matrix for matrix in members if matrix.kind == "head"],
    }
    return Breakdown(
        [part for what, group in parts.items() for part in _parts(what, group, [m.run for m in group])], members
    )


def heads_apart(weights: Weights) -> list[Part]:
    """The separation of one run's heads by head number; empty if it has fewer than two heads."""
    heads = [matrix for matrix in matrices(weights) if matrix.kind == "head"]
    return _parts("head", heads, [str(matrix.head) for matrix in heads])


def heads_reading(parts: Sequence[Part], recipe: Recipe) -> str:
    """The result of `heads_apart` in words, for a run of that recipe; "" if there was nothing to compare."""
    if not parts:
        return ""
    started = "as here" if recipe.starts_from_components else "which was not done here"
    return (
        f"By their number, this run's heads lie {APART[apart([part.separation for part in parts])]}. A head's number "
        f"means the same in all modules only if the routers were started from the components, {started}."
    )


def _parts(what: str, members: Sequence[Matrix], labels: Sequence[str]) -> list[Part]:
    return [Part(what, measured) for measured in separation(members, labels)]


def _change(end: Weights, start: Weights) -> Weights:
    """The changes of A since the start, which is in half precision."""
    return {name: replace(layer, a=_moved(layer.a, start[name].a)) for name, layer in end.items()}


def _moved(end: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """The change of A, (N, r, in); zeros if it is below half precision.

    The end is rounded like the start. Otherwise the rounding error of the start, which is the same in every run, would
    look like something that all of them have learnt; so would changes smaller than a rounding step.
    """
    change = end.half().float() - start
    return change if change.norm() > torch.finfo(torch.half).eps * start.norm() else torch.zeros_like(change)

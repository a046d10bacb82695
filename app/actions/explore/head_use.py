"""The Components and heads view of Explore: which rows and tokens use each head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hydralora import figures
from hydralora.analysis.head_use import SHUFFLES, Probed, probe_run
from hydralora.data.progress import OnProgress, ignore_progress

from ...services import Services
from ...services.background import Done, in_background
from ...services.cache import ResultKind
from ...services.processes import in_process
from ..adapters import adapter_hash, why_no_adapter
from ..reading import Cell

Groups = Literal["component", "task"]
ALL = "mean over all"
TOKENS = 12
TOKEN_COLUMNS = ["before", "token", "after", "gate", "row"]
ROWS = 6
ROW_COLUMNS = ["row", "question", "answer", "task", "mean gate"]
PROBED = ResultKind[Probed]("probed", keep=4, of_adapter=True)
CHANCE = 95  # percentile of shuffled groups that a head must exceed


@dataclass(frozen=True)
class UseView:
    """What the page shows; `modules` are the choices."""

    sentence: str
    figure: str = ""
    modules: list[str] = field(default_factory=list)
    heads: int = 0


def measure(services: Services, run_id: str | None, of: Groups, module: str) -> Iterator[UseView]:
    """Its progress, then the mean gate of each head on each component's or task's rows.

    Raises:
        HydraError: the run has no heads, or its rows or its base model are gone.
    """
    if why := why_no_adapter(services, run_id):
        yield UseView(why)
        return
    assert run_id
    if not services.cache.has(PROBED, run_id, adapter_hash(services, run_id)):
        for step in in_background(lambda on_progress: _probed(services, run_id, on_progress)):
            if not isinstance(step, Done):
                sentence = f"The model reads held-out and training rows: {step.done} of {step.total}."
                yield UseView(sentence if step.total > 1 else "Loading the model …")
    yield _view(_probed(services, run_id), of, module)


def is_measured(services: Services, run_id: str) -> bool:
    """Whether a run's held-out rows have been read."""
    return services.cache.has(PROBED, run_id, adapter_hash(services, run_id))


def tokens(services: Services, run_id: str, head: int, module: str) -> list[list[Cell]]:
    """The tokens that use a head most, in one module or by the mean over all, as `TOKEN_COLUMNS`; empty for a module
    whose gates are not recorded.

    Raises:
        HydraError: the run has no heads, or its rows or its base model are gone.
    """
    probed = _probed(services, run_id)
    if not _has(probed, head, module):
        return []
    model = services.run(run_id).recipe().model
    tokenizer = services.tokenizer(model)
    strongest = probed.tokens.most(tokenizer, head, None if module == ALL else module, TOKENS)
    rows = probed.tokens.rows
    return [
        [token.before, token.text, token.behind, round(token.gate, 3), rows[token.row].example.row]
        for token in strongest
    ]


def training_rows(services: Services, run_id: str, head: int, module: str) -> list[list[Cell]]:
    """The training rows, among those read, that use a head most: number, question, answer, task, mean gate.

    Raises:
        HydraError: as `tokens`.
    """
    probed = _probed(services, run_id)
    if not _has(probed, head, module):
        return []
    use = probed.training.mean
    gates = use.mean(0) if module == ALL else use[probed.training.modules.index(module)]
    first = np.argsort(-gates[:, head], kind="stable")[:ROWS]
    rows = [(probed.training_rows[i], float(gates[i, head])) for i in first]
    return [[row.row, row.question, row.answer, row.task or "", round(gate, 3)] for row, gate in rows]


def _view(probed: Probed, of: Groups, module: str) -> UseView:
    groups: Sequence[int | str | None] | None = probed.components if of == "component" else probed.tasks
    modules = [ALL, *probed.use.modules]
    heads = probed.use.mean.shape[-1]
    if groups is None or not any(group is not None for group in groups):
        reasons = {
            "component": "This run's training rows are gone, so their components are not known.",
            "task": "These rows have no tasks. Choose components.",
        }
        return UseView(reasons[of], "", modules, heads)
    means = probed.use.mean_gates(groups)
    place = probed.use.modules.index(module) if module in probed.use.modules else None
    names = [probed.names[group] if of == "component" else str(group) for group in means]
    gates = [(mean.mean(0) if place is None else mean[place]).tolist() for mean in means.values()]
    information, chance = probed.use.mutual_information(groups), probed.use.shuffled_information(groups)
    high = float(np.percentile(chance, CHANCE))
    verdict = (
        f"The strongest head depends on the {of}, more than by chance."
        if information > high
        else f"The strongest head does not depend on the {of} more than by chance."
    )
    return UseView(
        f"{verdict} Mutual information of a token's {of} and its strongest head, averaged over the modules: "
        f"{information:.2f} of 1. With the {of}s shuffled {SHUFFLES} times: {chance.mean():.2f} on average, and below "
        f"{high:.2f} in {CHANCE} % of the shuffles. Measured on {len(probed.tasks)} held-out rows, where their answers "
        "are predicted. It does not show what a head contributes.",
        figures.component_by_head(names, gates, of),
        modules,
        heads,
    )


def _has(probed: Probed, head: int, module: str) -> bool:
    return head < probed.use.mean.shape[-1] and module in (ALL, *probed.use.modules)


def _probed(services: Services, run_id: str, on_progress: OnProgress = ignore_progress) -> Probed:
    run = services.run(run_id)
    return services.cache.remember(
        PROBED,
        run_id,
        adapter_hash(services, run_id),
        compute=lambda: in_process(probe_run, run, on_progress=on_progress),
    )

"""Computing a run's results."""

from hydralora.analysis import head_similarity, model_weights
from hydralora.analysis.head_use import head_use
from hydralora.components import overlap
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.recipe.settings import Recipe
from hydralora.runs.results import ComponentSummary, HeadUseSummary, RunResults
from hydralora.runs.scores import Scores
from hydralora.training.preparation import Prepared
from hydralora.tuner.model import count_parameters, hydra_layers


def measure_heads(prepared: Prepared, on_progress: OnProgress = ignore_progress) -> HeadUseSummary:
    """How the held-out rows use the heads, and how similar the heads are; empty for an adapter without heads."""
    model = prepared.model
    if not hydra_layers(model):
        return HeadUseSummary()
    use = head_use(model, prepared.heldout, prepared.tokenizer.pad_token_id, on_progress)
    means = use.mean_gates(prepared.heldout_labels)
    cosines = [cosine for cosine in head_similarity(model_weights(model)).values() if cosine is not None]
    return HeadUseSummary(
        component_by_head=[means[i].mean(0).tolist() if i in means else [] for i in range(prepared.k)],
        mutual_information=use.mutual_information(prepared.heldout_labels),
        gate_entropy=use.entropy,
        head_cosine=sum(cosines) / len(cosines) if cosines else None,
    )


def run_results(
    prepared: Prepared,
    base: Scores | None,
    tuned: Scores | None,
    heads: HeadUseSummary,
    seconds: dict[str, float],
) -> RunResults:
    """A run's results from its measurements."""
    clusters, tasks = prepared.clusters, prepared.tasks
    return RunResults(
        rows=prepared.counts,
        template_checks=prepared.template_checks,
        data=prepared.sources,
        k=clusters.k,
        sizes=clusters.sizes,
        components=[ComponentSummary(id=c.id, name=c.name, size=c.size, terms=c.terms) for c in prepared.components],
        ari=overlap(clusters.labels, [task or None for task in tasks]).ari if tasks else None,
        base=base,
        tuned=tuned,
        component_by_head=heads.component_by_head,
        mutual_information=heads.mutual_information,
        gate_entropy=heads.gate_entropy,
        head_cosine=heads.head_cosine,
        router_entropy_at_start=prepared.router_entropy,
        parameters=count_parameters(prepared.model),
        base_model=prepared.files.describe(),
        seconds=seconds,
    )


def nothing_learnt(recipe: Recipe, step: int, seconds: dict[str, float]) -> RunResults:
    """The results of a run that was stopped before this process's first step."""
    return RunResults(
        base=None,
        tuned=None,
        seconds=seconds,
        step=step,
        max_steps=recipe.training.max_steps,
        stopped=True,
        adapter_hash=None,
    )

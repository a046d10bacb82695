"""One run, from a recipe to a saved adapter and its measurements."""

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed

from hydralora.errors import RunError
from hydralora.inference.base_scores import BaseScores
from hydralora.inference.benchmarks import check_tasks
from hydralora.inference.evaluation import evaluate_rows, summary
from hydralora.models.adapters import without_adapter
from hydralora.models.device import pick_device
from hydralora.models.fetching import BaseModelInfo
from hydralora.recipe.settings import Recipe
from hydralora.recipe.without_effect import without_effect
from hydralora.runs.checkpoints import best_checkpoint, saved_checkpoints
from hydralora.runs.results import DataSource, Forgetting, HeadUseSummary, Metrics, RunResults
from hydralora.runs.scores import RowScores, Scores
from hydralora.runs.state import Stage
from hydralora.training.card import save_adapter, take_adapter
from hydralora.training.forgetting import neutral_loss
from hydralora.training.lorahub import mix_components
from hydralora.training.monitor import (
    LiveEvaluations,
    Monitor,
    Reporter,
    Reports,
    Snapshots,
    Watch,
    diverged,
    sample_answers,
    sample_rows,
)
from hydralora.training.parallel import Processes, this_process
from hydralora.training.preparation import Prepared, prepare
from hydralora.training.resources import peak_memory
from hydralora.training.results import measure_heads, nothing_learnt, run_results
from hydralora.training.stopping import LastStep, StopOnRequest, StopRequestedError
from hydralora.training.tasks import base_metrics, tuned_scores
from hydralora.training.trainer import (
    AnswerTrainer,
    all_finite,
    answer_trainer,
    check_reporting,
    gate_losses,
    training_arguments,
)
from hydralora.tuner.mixtures import check_search


@dataclass(frozen=True)
class OutputFolders:
    """Where a run writes.

    Attributes:
        adapter: safetensors, config and model card.
        checkpoints: saved as often as the recipe says; None: none are saved.
        snapshots: as many as the recipe says; None: none are saved.
        row_scores: of each held-out row before and after training; None: they are not kept.
        base_scores: of base models, which runs share; None: the base model is evaluated in any case.
    """

    adapter: Path
    checkpoints: Path | None = None
    snapshots: Path | None = None
    row_scores: Path | None = None
    base_scores: Path | None = None


@dataclass(frozen=True)
class Resume:
    """The state in which an earlier process left a run.

    Attributes:
        step, checkpoint: of its newest checkpoint.
        before: the base model's scores, if they were measured.
        base, data: its base model and data; None if not known.
    """

    step: int
    checkpoint: Path | None
    before: Scores | None
    base: BaseModelInfo | None = None
    data: list[DataSource] | None = None


@dataclass(frozen=True)
class _Begun:
    """A run before its first step.

    Attributes:
        base: the base model's scores; None in all processes but the first.
        neutral: its loss on the neutral text, and tasks: its metrics on benchmarks, where the recipe asks for them.
    """

    prepared: Prepared
    base: Scores | None
    neutral: float | None = None
    tasks: dict[str, Metrics] = field(default_factory=dict)


def train(
    recipe: Recipe, output: str | Path | OutputFolders, monitor: Monitor | None = None, resume: Resume | None = None
) -> RunResults:
    """Run a recipe: read, cluster, adapt, evaluate, train, save, evaluate again.

    Args:
        recipe: the run's settings.
        output: a folder for the adapter alone; or where adapter, checkpoints and snapshots are written.
        monitor: gets the run's events and may stop it. A stopped run saves its adapter, and is evaluated only if
            the monitor requests it.
        resume: the state in which an earlier process left this run.

    Returns:
        The results; `tuned` is None when stopped. When stopped before this process's first step, no adapter is saved:
        `base` and `adapter_hash` are None too. Of several processes the first evaluates, reports and saves; the results
        of the others are empty.

    Raises:
        HydraError: the data, the model or a setting can't be used, or the loss diverged.
    """
    folders = output if isinstance(output, OutputFolders) else OutputFolders(Path(output))
    monitor = monitor or Monitor()
    check_reporting(recipe.training.report_to)  # before an evaluation that takes minutes
    if recipe.training.benchmarks:
        check_tasks(recipe.training.benchmarks)
    if recipe.method == "lorahub":
        check_search()
    processes = this_process()
    processes.connect(recipe.launch.all_processes, pick_device())
    reporter = Reporter(monitor if processes.is_first else None)
    reporter.step = resume.step if resume else 0
    set_seed(recipe.training.seed)
    begun = _begin(recipe, folders, reporter, processes, resume)
    if processes.agree(begun is None) or begun is None:
        processes.leave()
        return nothing_learnt(recipe, reporter.step, reporter.seconds)
    prepared = begun.prepared
    last = LastStep(processes)
    trainer = _trainer(prepared, recipe, folders, reporter, processes, (begun.base and begun.base.loss) or 0.0, last)
    if _train(trainer, recipe, prepared, folders, reporter, resume):
        processes.leave()
    elif not reporter.step:
        return nothing_learnt(recipe, reporter.step, reporter.seconds)
    else:  # in the first process: the others wait in a step that never ends, until the run's end is recorded
        _keep_last_step(trainer, last, folders)
    if not processes.is_first:
        return RunResults()
    stops, measures = monitor.should_stop, monitor.measure_stopped
    reporter.should_stop = lambda: stops() and not measures()
    return _end(begun, recipe, folders, reporter, trainer.state.max_steps)


def _begin(
    recipe: Recipe, folders: OutputFolders, reporter: Reporter, processes: Processes, resume: Resume | None
) -> _Begun | None:
    """None when stopped before training."""
    base, neutral, tasks = resume.before if resume else None, None, {}
    try:
        sharded = recipe.launch.fsdp or recipe.launch.deepspeed  # saving needs all processes, at the end of a step
        prepared = prepare(recipe, reporter.stage, reporter.progress, None if sharded else reporter.check)
        if resume and resume.step:
            _check_unchanged(resume, prepared)
        reporter.note(
            message="prepared",
            rows=prepared.counts,
            k=prepared.k,
            sizes=prepared.sizes,
            base=prepared.files.describe(),
            data=prepared.sources,
            template_checks=prepared.template_checks,
            without_effect=[f"{name} (because of {other})" for name, other in without_effect(recipe)],
        )
        with without_adapter(prepared.model):  # heads with a random start and an initialised router have an effect
            if processes.is_first and base is None:
                base = _measure(prepared, recipe, folders, reporter, Stage.EVALUATING_BASE)
            if processes.is_first and recipe.training.measure_forgetting:
                neutral = neutral_loss(prepared, recipe, _base_scores(prepared, recipe, folders))
            if processes.is_first:
                tasks = base_metrics(prepared, recipe, folders.base_scores, reporter)
        reporter.stage(Stage.TRAINING)
    except StopRequestedError:
        return None
    return _Begun(prepared, base, neutral, tasks)


def _check_unchanged(resume: Resume, prepared: Prepared) -> None:
    """
    Raises:
        RunError: the base model or the data is not what the checkpoint was trained on.
    """
    before = [source.sha256 for source in resume.data or []]
    same = {
        "data": not before or before == [source.sha256 for source in prepared.sources],
        "base model": not resume.base or resume.base.hash == prepared.files.describe().hash,
    }
    if changed := [name for name, equal in same.items() if not equal]:
        raise RunError(
            f"The {' and the '.join(changed)} changed since step {resume.step}, so training can't continue. Restore "
            "them, or start a new run."
        )


def _train(
    trainer: AnswerTrainer,
    recipe: Recipe,
    prepared: Prepared,
    folders: OutputFolders,
    reporter: Reporter,
    resume: Resume | None,
) -> bool:
    """Train the remaining steps; if the loss diverges, keep the best checkpoint's adapter.

    Returns:
        False if a stop was requested within a step, which is abandoned.
    """
    try:
        if resume and resume.checkpoint:
            trainer.continue_from(resume.checkpoint)
            reporter.step = trainer.state.global_step
        else:
            trainer.train()
        return True
    except StopRequestedError:
        reporter.step = trainer.state.global_step
        return False
    except RunError as error:
        best = best_checkpoint(folders.checkpoints) if folders.checkpoints else None
        if best is None or not trainer.processes.is_first:
            raise
        take_adapter(best[1], recipe, prepared, folders.adapter)
        raise RunError(f"{error} The adapter of step {best[0]}, the best on held-out rows, is kept.") from error


def _keep_last_step(trainer: AnswerTrainer, last: LastStep, folders: OutputFolders) -> None:
    """Save the last finished step if this process made it, so that training can continue from there."""
    trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    saved = saved_checkpoints(folders.checkpoints) if folders.checkpoints else {}
    if folders.checkpoints and last.states and trainer.state.global_step not in saved:
        trainer.save_abandoned(last.states)


def _end(
    begun: _Begun,
    recipe: Recipe,
    folders: OutputFolders,
    reporter: Reporter,
    max_steps: int,
) -> RunResults:
    """Save the adapter, evaluate it, and collect the results."""
    prepared = begun.prepared
    prepared.model.eval()
    if not all_finite(prepared.model):
        raise diverged(reporter.step)
    stopped = reporter.step < max_steps
    if recipe.method == "lorahub" and not stopped:
        stopped = not mix_components(prepared, recipe.training.seed, reporter)
    adapter_hash = save_adapter(prepared.model, recipe, prepared, folders.adapter)
    tuned, heads, forgetting, tasks = None, HeadUseSummary(), None, {}
    if not (stopped and reporter.should_stop()):
        try:
            tuned = _measure(prepared, recipe, folders, reporter, Stage.EVALUATING_TUNED)
            if recipe.training.measure_forgetting:
                forgetting = Forgetting(before=begun.neutral, after=neutral_loss(prepared, recipe))
            tasks = tuned_scores(prepared, recipe, begun.tasks, reporter)
            if recipe.has_heads:
                reporter.stage(Stage.MEASURING_HEADS)
            heads = measure_heads(prepared, reporter.progress)
        except StopRequestedError:
            stopped = True
    reporter.finish_stage()
    return run_results(prepared, begun.base, tuned, heads, reporter.seconds).changed(
        forgetting=forgetting,
        benchmarks=tasks,
        tokens_per_second=reporter.tokens_per_second,
        step=reporter.step,
        max_steps=max_steps,
        stopped=stopped,
        adapter_hash=adapter_hash,
        peak_memory_bytes=peak_memory(prepared.device),
    )


def _measure(prepared: Prepared, recipe: Recipe, folders: OutputFolders, reporter: Reporter, stage: Stage) -> Scores:
    """Evaluate the held-out rows, and answer a few of them; an answered row counts as one more row of the progress."""
    reporter.stage(stage)
    split = "before" if stage is Stage.EVALUATING_BASE else "after"
    rows, answered = len(prepared.heldout), len(sample_rows(prepared, recipe.training))
    total = rows + answered

    def measure() -> RowScores:
        pad = prepared.tokenizer.pad_token_id
        return evaluate_rows(prepared.model, prepared.heldout, pad, lambda done, _: reporter.progress(done, total))

    known = _base_scores(prepared, recipe, folders) if stage is Stage.EVALUATING_BASE else None
    measured = known.of(prepared.heldout, measure) if known else measure()
    if folders.row_scores:
        measured.write(folders.row_scores, split)
    scores = summary(measured, prepared.heldout, prepared.heldout_labels)
    answers = sample_answers(
        prepared, recipe.training, lambda done, most: reporter.progress(rows + answered * done // most, total)
    )
    if answered:
        reporter.progress(total, total)
    reporter.scores(split, scores, answers)
    return scores


def _base_scores(prepared: Prepared, recipe: Recipe, folders: OutputFolders) -> BaseScores | None:
    if not folders.base_scores:
        return None
    return BaseScores(folders.base_scores, f"{prepared.files.hash}, {recipe.quantization}, {prepared.device}")


def _trainer(
    prepared: Prepared,
    recipe: Recipe,
    folders: OutputFolders,
    reporter: Reporter,
    processes: Processes,
    base_loss: float,
    last: LastStep,
) -> AnswerTrainer:
    settings, checkpoints = recipe.training, folders.checkpoints
    folder = checkpoints or Path(tempfile.gettempdir())  # nothing is written there, but Trainer requires a folder
    save_every = settings.save_every if checkpoints else 0
    most_loss = 2 * max(base_loss, math.log(len(prepared.tokenizer)))  # the base model's, and a guess's
    watch = Watch(reporter, prepared, settings, processes, most_loss)
    callbacks: list[TrainerCallback] = [Reports(watch, folder.parent)]
    if folders.snapshots and processes.is_first and recipe.tuning.has_matrices:
        callbacks.append(Snapshots(watch, folders.snapshots))
    stop = StopOnRequest(processes, lambda: reporter.should_stop(), bool(checkpoints))
    callbacks += [last, stop, LiveEvaluations(watch, bool(checkpoints))]
    watch.trainer = answer_trainer(
        prepared.model,
        prepared.train,
        prepared.tokenizer.pad_token_id,
        training_arguments(settings, folder, prepared.device, recipe.launch, save_every),
        processes,
        gate_losses(recipe),
        *callbacks,
        keep_checkpoints=settings.keep_checkpoints,
    )
    if not processes.is_first:
        torch.manual_seed(recipe.training.seed + processes.rank)  # other rows, other dropout
    return watch.trainer

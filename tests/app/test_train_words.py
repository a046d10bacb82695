"""The sentences of the Train page: what a run does, what came of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.actions.train import words
from hydralora import RunStore
from hydralora.recipe.settings import Recipe
from hydralora.runs.phases import run_progress
from hydralora.runs.results import ComponentSummary, RunResults
from hydralora.runs.run import Run
from hydralora.runs.scores import Scores
from hydralora.runs.state import Stage


@pytest.fixture
def run(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> Run:
    return RunStore(tmp_path).create(make_recipe(max_steps=100))


def status(run: Run, ahead: int | None = None, **changes: object) -> str:
    state = run.update(**changes)
    return words.status(state, run_progress(state, run.recipe()), ahead)


def test_each_phase_is_named_once_with_what_is_done(run: Run) -> None:
    assert status(run, 2) == "Queued, 2 ahead."
    assert status(run, 0) == "Queued, next."
    assert status(run, state="preparing", message="starting") == "Starting."
    assert status(run, stage=Stage.STARTING_ROUTER, progress=(24, 192)) == "Starting the router, 24 of 192 passes."
    run.update(state="evaluating", progress=(40, 80))
    assert status(run, stage=Stage.EVALUATING_BASE) == "Evaluating the base model, 40 of 80 answers."
    run.update(state="training", step=42, progress=None)
    assert status(run, stage=Stage.TRAINING) == "Training, step 42 of 100."
    assert status(run, state="stopping") == "Stopping."


def test_an_end_is_told_with_what_is_kept_and_how_to_continue(run: Run) -> None:
    stopped = "Stopped: nothing was learnt yet."
    assert status(run, state="stopped", message=stopped) == f"{stopped} Resume begins it again."
    run.update(step=42)
    resume = "Resume continues from its newest checkpoint."
    kept = "Stopped at step 42 of 100: the adapter of step 42 is kept."
    assert status(run, state="stopped", message=kept) == f"{kept} {resume}"
    assert status(run, state="failed", message="the disk is full.") == f"Failed: the disk is full. {resume}"
    assert status(run, state="finished", message="after 8 steps") == "Finished: after 8 steps."


def results(gates: list[list[float]] | None, names: tuple[str, ...] = ("list, words", "json")) -> RunResults:
    def scores(loss: float, exact_match: float) -> Scores:
        return Scores(loss=loss, exact_match=exact_match, rows=200, per_task={}, per_component={})

    components = [ComponentSummary(id=i, name=name, size=9, terms=[]) for i, name in enumerate(names)]
    return RunResults(
        step=100, base=scores(1.304, 0.0), tuned=scores(0.028, 0.915), component_by_head=gates, components=components
    )


def test_the_verdict_says_what_changed_and_which_head_took_which_component(run: Run) -> None:
    told = status(run, state="finished", results=results([[0.1, 0.9], [0.8, 0.2]]))
    assert told == (
        "Finished after 100 steps: exact match went from 0.0% to 91.5%, loss from 1.304 to 0.028, "
        "on 200 held-out rows. "
        "Head 1 took component 2 (json), head 2 took component 1 (list, words)."
    )


@pytest.mark.parametrize(
    ("gates", "told"),
    [
        (None, ""),
        ([[1.0], [1.0]], ""),
        ([[], []], ""),
        ([[0.52, 0.48], [0.5, 0.5]], "No head leads on any component."),
        ([[0.9, 0.1], [0.5, 0.5]], "Head 1 took component 1 (list, words). No head leads on the other component."),
        ([[0.9, 0.1], [0.7, 0.3]], "Head 1 took component 1 (list, words) and component 2 (json)."),
        ([[0.9, 0.1], []], "Head 1 took component 1 (list, words)."),
    ],
)
def test_a_tie_is_a_tie(gates: list[list[float]] | None, told: str) -> None:
    assert words.heads(results(gates)) == told


def test_many_components_are_counted_and_long_names_cut() -> None:
    many = results([[0.9, 0.1]] * 4 + [[0.1, 0.9]] * 5, tuple("abcdefghi"))
    assert words.heads(many) == "2 heads lead on 9 of 9 components."
    long = words.heads(results([[0.9, 0.1]], ("word, " * 30,)))
    assert len(long) < 90
    assert "…" in long

"""The phases of a run: all are planned, and its progress never goes back."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydralora import RunStore
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import NoteEvent, ProgressEvent, StepEvent
from hydralora.runs.phases import RunProgress, planned_phases, run_progress
from hydralora.runs.results import RowCounts
from hydralora.runs.run import Run
from hydralora.runs.state import RunState, Stage, StageClock
from hydralora.training.recording import Recorder

Make = Callable[..., Recipe]
WHOLE = [
    "starting",
    "reading the data",
    "clustering",
    "loading the base model",
    "starting the router",
    "evaluating the base model",
    "training",
    "evaluating the tuned model",
    "measuring the heads",
]


@pytest.fixture
def run(store: RunStore, make_recipe: Make) -> Run:
    return store.create(make_recipe(max_steps=100))


def names(recipe: Recipe, state: RunState | None = None) -> list[str]:
    return [phase.name for phase in planned_phases(recipe, state)]


def test_a_run_has_only_the_phases_that_its_recipe_needs(make_recipe: Make, run: Run) -> None:
    assert names(make_recipe()) == WHOLE
    assert set(WHOLE) - set(names(make_recipe("lora"))) == {"starting the router", "measuring the heads"}
    assert "starting the router" not in names(make_recipe(tuner={"router_init": "random"}))
    assert names(make_recipe("lorahub"))[5:7] == ["training", "mixing"]
    measured = run.update(base_measured=True)
    assert set(WHOLE) - set(names(make_recipe(), measured)) == {"evaluating the base model"}


def test_every_stage_is_in_one_phase(make_recipe: Make) -> None:
    for method, others in (("hydralora", {Stage.MIXING}), ("lorahub", {Stage.STARTING_ROUTER})):
        recipe = make_recipe(method, benchmarks=["gsm8k"])
        stages = [stage for phase in planned_phases(recipe) for stage in phase.stages]
        assert sorted(stages) == sorted(set(Stage) - others)


def test_the_work_of_a_run_is_counted_as_soon_as_its_rows_are(make_recipe: Make, run: Run) -> None:
    def work(state: RunState | None) -> dict[str, float]:
        return {phase.name: phase.work for phase in planned_phases(recipe, state)}

    recipe = make_recipe(max_steps=None, epochs=2, batch_size=8)
    read = work(run.update(rows_read=1000, max_steps=None))
    assert read["measuring the heads"] == 200
    counted = work(run.update(rows=RowCounts(train=80, heldout=30)))
    assert counted["measuring the heads"] == 30
    assert counted["training"] == pytest.approx(2.15 * 8 * 20)
    assert work(run.update(max_steps=40))["training"] == pytest.approx(2 * counted["training"])


def test_a_sentence_says_phase_share_and_time() -> None:
    progress = RunProgress(3, 6, "evaluating the base model", "rows", 40, 80, 120.0, 0.2)
    assert progress.sentence() == "Phase 3 of 6, evaluating the base model: 40 of 80 rows, about 2 min left"
    started = RunProgress(2, 6, "clustering", "steps", None, None, None, 0.1)
    assert started.sentence() == "Phase 2 of 6, clustering"
    assert RunProgress(4, 6, "loading the base model", "models", 0, 1, None, 0.1).share == "0 of 1 model"


def test_the_time_left_is_that_of_the_stage_at_its_speed(run: Run) -> None:
    recipe = run.recipe()
    state = run.update(stage=Stage.TRAINING, max_steps=100, step=30)
    assert run_progress(state, recipe, 0.0).seconds_left is None
    state = run.update(clock=StageClock(began=1000.0, reported=1040.0, first=10))  # resumed at step 10
    assert run_progress(state, recipe, 1040.0).seconds_left == pytest.approx(140)
    assert run_progress(state, recipe, 1100.0).seconds_left == pytest.approx(80)
    assert run_progress(state, recipe, 9999.0).seconds_left == 0
    nothing = run.update(step=10)
    assert run_progress(nothing, recipe, 1040.0).seconds_left is None


def test_a_finished_run_is_whole(run: Run) -> None:
    progress = run_progress(run.update(state="finished"), run.recipe())
    assert (progress.number, progress.fraction) == (progress.count, 1.0)


UNUSUAL = (Stage.MIXING, Stage.EVALUATING_BASE_TASKS, Stage.EVALUATING_TUNED_TASKS)
OF_THE_DEFAULT = [stage for stage in Stage if stage not in UNUSUAL]
STEPS = st.lists(st.integers(0, 100), max_size=4).map(sorted)


@settings(max_examples=40, deadline=None)
@given(reports=st.lists(st.tuples(st.sampled_from(OF_THE_DEFAULT), STEPS), max_size=9), rows=st.integers(1, 10**6))
def test_the_progress_never_goes_back_and_stays_a_share(
    reports: list[tuple[Stage, list[int]]], rows: int, make_recipe: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the order in which stages are reported, and whatever becomes known on the way."""
    run = RunStore(tmp_path_factory.mktemp("runs")).create(make_recipe(max_steps=100))
    recorder, recipe = Recorder(run), run.recipe()
    before = 0.0
    time = 0.0
    for stage, done in reports:
        recorder.record(NoteEvent(step=0, time=time, stage=stage))
        if stage is Stage.EVALUATING_BASE:
            recorder.record(NoteEvent(step=0, time=time, rows=RowCounts(train=rows, heldout=rows), max_steps=100))
        for count in done:
            time += 1
            if stage is Stage.TRAINING:
                recorder.record(StepEvent(step=count, time=time))
            else:
                recorder.record(ProgressEvent(step=0, time=time, done=count, total=100))
            state = run.state()
            progress = run_progress(state, recipe, time)
            assert before <= progress.fraction <= 1
            assert (state.fraction, progress.done) == (progress.fraction, count)
            assert 1 <= progress.number <= progress.count == len(planned_phases(recipe, state))
            assert progress.seconds_left is None or progress.seconds_left >= 0
            before = progress.fraction


def test_phases_add_up_to_the_whole(run: Run) -> None:
    """At the end of each phase the fraction is its share of the work, together with that of those before."""
    recipe = run.recipe()
    phases = planned_phases(recipe, run.state())
    whole = sum(phase.work for phase in phases)
    passed = 0.0
    for phase in phases:
        passed += phase.work
        if phase.stages:
            state = run.state().changed(stage=phase.stages[0], progress=(7, 7), step=100, max_steps=100)
            assert run_progress(state, recipe).fraction == pytest.approx(passed / whole)
    assert passed == whole

"""The Learn page: numbers against the layer, sizes against the command's count, predictions, and the run to watch."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from app.actions.chat.columns import LEAD, leading_head
from app.actions.learn import formula, predictions, sandbox, sizes
from app.actions.learn.predictions import QUESTIONS, Guess, Quiz
from app.actions.run_choices import newest_run
from app.services import Services
from hydralora.data.encoding import encode_prompt
from hydralora.errors import HydraError
from hydralora.experiments.sandbox import STEPS
from hydralora.recipe.settings import Recipe
from hydralora.runs.run import Run
from hydralora.training.sizes import adapter_size
from hydralora.tuner.gates import record_gates
from tests.app.pages import Page, RefusedError, open_page
from tests.conftest import FinishedRun

QUESTION = "name fruit number <b>aa</b>"


@pytest.fixture
def lora(services: Services, make_recipe: Callable[..., Recipe]) -> Iterator[Run]:
    run = services.store.create(make_recipe("lora"))
    run.update(state="stopped", message="by hand")
    yield run
    services.store.delete(run)


def numbers(services: Services, run_id: str, question: str, rows: Any = (), layer: int = -1) -> formula.FormulaValue:
    module = formula.layers(services, run_id)[layer][1]
    *_, value = formula.read(services, run_id, question, list(rows), module)
    assert not isinstance(value, formula.Waiting)
    return value


def test_the_layers_have_short_names(services: Services, finished: FinishedRun) -> None:
    names = [name for name, _ in formula.layers(services, finished.run.id)]
    assert names[:2] == ["down_proj, layer 0", "gate_proj, layer 0"]
    assert len(names) == 6


def test_the_tokens_of_a_typed_prompt_have_the_models_own_gates(services: Services, finished: FinishedRun) -> None:
    value = numbers(services, finished.run.id, QUESTION)
    loaded = services.loaded(finished.run.id)
    ids = encode_prompt(loaded.tokenizer, [{"role": "user", "content": QUESTION}])
    assert len(value["tokens"]) == len(ids)
    assert not any(token["of_answer"] for token in value["tokens"])
    assert value["first"] == len(ids) - 1
    assert "".join(token["text"] for token in value["tokens"]).count(QUESTION) == 1  # as text; the page escapes it
    with torch.no_grad(), record_gates(loaded.model) as record:
        loaded.model(torch.tensor([ids]))
    module = formula.layers(services, finished.run.id)[-1][1]
    gates = record.stacked()[record.modules.index(module), 0]
    shown = torch.tensor([[gate for gate, _, _ in token["heads"]] for token in value["tokens"]])
    torch.testing.assert_close(shown, gates)


def test_an_examples_expected_answer_is_read_too(services: Services, finished: FinishedRun) -> None:
    row = {"question": "name fruit number bb", "expected": "plum", "task": ""}
    value = numbers(services, finished.run.id, row["question"], [row])
    answer = [token["text"] for token in value["tokens"] if token["of_answer"]]
    assert "".join(answer) == "plum<|im_end|>"
    assert value["first"] == len(value["tokens"]) - len(answer)


def test_what_has_no_formula_says_why(services: Services, finished: FinishedRun, lora: Run) -> None:
    assert formula.why_not(services, "") == formula.NO_RUN
    assert formula.why_not(services, lora.id) == formula.NO_HEADS
    assert formula.layers(services, lora.id) == []
    assert formula.why_not(services, finished.run.id) == ""
    for run_id, question, layer, message in (
        (lora.id, "hello", "x", "no heads and no router"),
        (finished.run.id, " ", "x", "prompt is empty"),
        (finished.run.id, "hello", None, "No layer"),
        (finished.run.id, "hello", "model.layers.9.mlp", "no layer of this model"),
        (finished.run.id, "a" * 3000, "model.layers.1.mlp.up_proj", "tokens"),
    ):
        with pytest.raises(HydraError, match=message):
            list(formula.read(services, run_id, question, [], layer))


@pytest.mark.parametrize(
    ("gates", "lead"),
    [([0.1, 0.9], 1), ([0.5 + LEAD, 0.5 - LEAD], 0), ([0.54, 0.46], None), ([0.25] * 4, None), ([], None)],
)
def test_a_tie_has_no_leading_head(gates: list[float], lead: int | None) -> None:
    assert leading_head(gates) == lead


def test_sizes_are_counted_by_the_engine(services: Services, finished: FinishedRun) -> None:
    assert sizes.start(services, finished.run.id) == (4, 3)
    shown = sizes.sizes(services, finished.run.id, 6, 5)
    recipe = finished.run.recipe()
    tuner = recipe.tuner.model_copy(update={"r": 6, "num_heads": 5})
    counts = adapter_size(recipe.model_copy(update={"tuner": tuner}), 1).counts
    hydra, lora = shown["adapters"]
    assert (hydra["total"], hydra["percent"]) == (counts.total, counts.percent_with_router)
    assert sum(value for _, value in hydra["parts"]) == counts.total
    assert dict(hydra["parts"])["router"] == counts.router
    assert hydra["total"] <= lora["total"] < hydra["total"] * 1.2
    assert hydra["name"] == "HydraLoRA, rank 6, 5 heads"


def test_of_a_lora_the_sizes_with_heads_are_shown(services: Services, lora: Run) -> None:
    hydra, _ = sizes.sizes(services, lora.id, 4, 2)["adapters"]
    assert [name for name, _ in hydra["parts"]] == ["A", "B, 2 heads", "router"]


def quiz(services: Services, finished: FinishedRun) -> Quiz:
    return predictions.quiz_of(services, finished.run.id, {})


def test_a_prediction_meets_the_rows_own_gates(services: Services, finished: FinishedRun) -> None:
    begun = quiz(services, finished)
    view = predictions.view(services, begun)
    assert (view["heads"], view["seen"], view["right"]) == (3, None, [])
    assert 0 < view["total"] <= QUESTIONS
    guessed = predictions.predict(services, begun, 1)
    seen = predictions.view(services, guessed)["seen"]
    assert seen is not None
    assert view["next"] is not None
    assert seen["question"] == view["next"]["question"]
    assert sum(seen["gates"]) == pytest.approx(1, abs=1e-4)
    assert seen["lead"] == leading_head(seen["gates"])
    assert predictions.view(services, guessed)["right"] == [seen["lead"] == 1]


def test_a_quiz_ends_and_begins_again_with_other_rows(services: Services, finished: FinishedRun) -> None:
    now = quiz(services, finished)
    total = predictions.view(services, now)["total"]
    asked = []
    for _ in range(total):
        following = predictions.view(services, now)["next"]
        assert following is not None
        asked.append(following["question"])
        now = predictions.predict(services, now, None)
    assert len(set(asked)) == total
    view = predictions.view(services, now)
    assert view["next"] is None
    assert len(view["right"]) == total
    assert predictions.predict(services, now, 0) == now
    again = predictions.again(now)
    assert (again.run, again.adapter, again.round, again.guesses) == (now.run, now.adapter, 1, [])
    first = predictions.view(services, again)["next"]
    assert first is not None
    assert first["question"] != asked[0]


def test_the_browsers_quiz_comes_back_and_another_runs_does_not(services: Services, finished: FinishedRun) -> None:
    guessed = predictions.predict(services, quiz(services, finished), 0)
    kept = predictions.stored(guessed)
    assert predictions.quiz_of(services, finished.run.id, kept) == guessed
    for other in (kept | {"run": "20000101-000000-0000"}, kept | {"adapter": "0"}, kept | {"guesses": 3}, [1], "x"):
        assert predictions.quiz_of(services, finished.run.id, other).guesses == []
    many = kept | {"guesses": [{"head": 0, "gates": [1.0]}] * (QUESTIONS + 1)}
    assert predictions.quiz_of(services, finished.run.id, many).guesses == []


def test_a_guess_is_right_if_no_head_leads_and_none_was_named() -> None:
    assert Guess(None, [0.5, 0.5]).is_right
    assert not Guess(0, [0.5, 0.5]).is_right
    assert Guess(1, [0.1, 0.9]).is_right


def test_what_can_not_be_predicted_says_why(services: Services, finished: FinishedRun, lora: Run) -> None:
    assert predictions.view(services, Quiz())["note"] == formula.NO_RUN
    assert predictions.view(services, Quiz(lora.id))["note"] == formula.NO_HEADS
    with pytest.raises(HydraError, match="no head 4"):
        predictions.predict(services, quiz(services, finished), 3)
    with pytest.raises(HydraError, match="has no heads and no router"):
        predictions.predict(services, Quiz(lora.id), 0)


def test_a_run_whose_rows_are_gone_has_no_predictions(
    services: Services, finished: FinishedRun, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe()
    recipe.data.train = "gone.jsonl"
    run = services.store.create(recipe)
    run.adapter.mkdir()
    for file in finished.run.adapter.iterdir():
        (run.adapter / file.name).write_bytes(file.read_bytes())
    run.update(state="finished")
    view = predictions.view(services, Quiz(run.id))
    assert (view["note"], view["total"], view["next"]) == (predictions.ROWS_GONE, 0, None)
    services.store.delete(run)


@pytest.mark.slow
def test_the_run_to_watch_is_an_ordinary_run(services: Services, finished: FinishedRun) -> None:
    assert sandbox.view(services, "") == sandbox.SandboxView(sandbox.NO_RUN)
    folder = services.store.workspace / "models" / "tiny"
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(finished.run.recipe().model)
    run_id = sandbox.start(services, "tiny")
    first = sandbox.mark(services, run_id)
    assert services.jobs.follow(services.run(run_id)).state == "finished"
    assert sandbox.mark(services, run_id) != first
    view = sandbox.view(services, run_id)
    assert "The heads began as one point" in view.sentence
    assert f"Finished after {STEPS} steps" in view.sentence
    assert view.distances
    assert view.paths
    assert not view.is_active
    assert run_id in [run.id for run in services.store.all()]
    assert newest_run(services) == finished.run.id  # the page doesn't open on a run that has hardly learnt
    services.store.delete(services.run(run_id))
    assert sandbox.view(services, run_id).sentence == sandbox.NO_RUN
    folder.unlink()


@pytest.fixture(scope="module")
def served(services: Services) -> Iterator[Page]:
    with open_page(services) as page:
        yield page


def test_the_first_prompt_of_a_run_is_read(served: Page, finished: FinishedRun) -> None:
    arranged = served.tell("arrange", finished.run.id, "", "", None, None, {}, fills="learn-chips")
    layer, question = arranged["learn-layer"]["value"], arranged["learn-prompt"]
    assert question == arranged["learn-chips"][0]["question"]
    shown = served.tell("read", finished.run.id, question, None, layer, fills="formula")["formula"]
    assert any(token["of_answer"] for token in shown["tokens"])


def test_the_prompt_and_the_layer_that_the_browser_keeps_come_back(served: Page, finished: FinishedRun) -> None:
    stored = {"question": QUESTION, "layer": "model.layers.0.mlp.gate_proj"}
    arranged = served.tell("arrange", finished.run.id, "", "", None, None, stored, fills="learn-chips")
    assert arranged["learn-prompt"] == QUESTION
    assert arranged["learn-layer"]["value"] == stored["layer"]


def test_the_page_shows_the_errors_of_a_prediction(served: Page, finished: FinishedRun) -> None:
    with pytest.raises(RefusedError, match="no head 10"):
        served.tell("guess", finished.run.id, {}, fills="quiz", event={"head": 9})
    shown = served.tell("guess", finished.run.id, {}, fills="quiz", event={"head": -1})["quiz"]
    assert shown["seen"]["guess"] is None

"""Which head does this? Every head answers every question, beside the router."""

import shutil

import pytest

from app.actions.chat import heads_alone
from app.actions.chat.columns import heads_of
from app.services import Services
from hydralora.errors import HydraError
from hydralora.inference.generation import Sampling, generate
from tests.conftest import FinishedRun
from tests.known import known

QUESTIONS = "which tool fixes aa engine\n\nname fruit number aa"


def test_every_head_answers_every_question(services: Services, finished: FinishedRun) -> None:
    views = list(heads_alone.ask(services, finished.run.id, QUESTIONS))
    assert "Loading" in views[0].sentence
    view = views[-1]
    assert [row[1] for row in view.answers] == ["router", "head 1 alone", "head 2 alone", "head 3 alone"] * 2
    assert [row[0] for row in view.summary] == ["which tool fixes aa engine", "name fruit number aa"]
    assert len(view.columns) == len(view.summary[0]) == 6
    for row in view.summary:
        nearest = int(str(row[4]).removeprefix("head ")) - 1
        apart = [kl for kl in row[1:4] if isinstance(kl, float)]
        assert apart[nearest] == min(apart)
        assert len(apart) == 3
    loaded = services.loaded(finished.run.id)
    asked = [{"role": "user", "content": "name fruit number aa"}]
    routed = generate(loaded.model, loaded.tokenizer, asked, Sampling(heads_alone.TOKENS))
    assert view.answers[4][-1] == "".join(token.text for token in routed)
    assert "2 questions" in view.sentence


@pytest.mark.parametrize(("questions", "told"), [(" \n", "no question"), ("a\n" * 13, "13 questions")])
def test_too_few_and_too_many_questions(services: Services, finished: FinishedRun, questions: str, told: str) -> None:
    with pytest.raises(HydraError, match=told):
        list(heads_alone.ask(services, finished.run.id, questions))


def test_examples_are_held_out_rows_of_unlike_components(services: Services, finished: FinishedRun) -> None:
    *_, questions = heads_alone.examples(services, finished.run.id)
    assert isinstance(questions, list)
    assert 2 <= len(questions) <= 3
    assert len(set(questions)) == len(questions)


def test_a_head_is_named_though_another_component_has_no_held_out_rows(
    services: Services, finished: FinishedRun
) -> None:
    results = known(finished.run.state().results)
    measured = [[], *known(results.component_by_head)[1:]]  # the first component has no held-out rows
    copy = services.store.create(finished.run.recipe())
    shutil.copytree(finished.run.adapter, copy.adapter)
    copy.update(state="finished", results=results.changed(component_by_head=measured))
    heads = heads_of(services, copy.id)
    services.store.delete(copy)
    assert heads["heads"] == len(heads["names"]) > 0

"""The Chat page: who answers, with which gates, beside whom; and answers kept in files."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from app.actions.chat import answers, saving
from app.actions.chat import columns as who
from app.actions.chat.answers import Turn
from app.actions.chat.asking import ALTERNATIVES, STOPPED, Asked, free_memory, length_line
from app.actions.chat.examples import examples
from app.actions.chat.steering import steering_of
from app.actions.chat.streamed import mean_gates, prompt_tokens, updates
from app.services import Services
from app.services.answers import Answer
from app.tabs.chat.conversation import as_turns, kept
from hydralora.components.rows import read_split
from hydralora.data.encoding import encode_prompt
from hydralora.data.store import DEMO
from hydralora.errors import ConfigError, HydraError
from hydralora.inference.generation import Alternative, Sampling, Token, generate
from hydralora.inference.model_cache import load_base_model, load_run
from hydralora.inference.traces import AnswerSource
from hydralora.recipe.settings import Recipe
from hydralora.runs.run import Run
from hydralora.tuner.steering import Steering
from tests.conftest import FinishedRun

QUESTION = "which tool fixes aa engine"


@pytest.fixture(scope="module")
def lora_run(services: Services, make_recipe: Callable[..., Recipe]) -> Iterator[Run]:
    """A finished plain LoRA, which leaves nothing behind."""
    run = services.jobs.start(make_recipe("lora", max_steps=2, eval_every=0))
    assert services.jobs.follow(run).state == "finished"
    yield run
    shutil.rmtree(run.folder)


def talk(
    services: Services,
    finished: FinishedRun,
    chosen: list[str],
    question: str = QUESTION,
    turns: Sequence[Turn] = (),
    steering: Steering | None = None,
    system: str = "",
) -> dict[str, Answer]:
    """The answers by column; those of "run" and "steered" are given whenever they can be."""
    asked = asking(services, finished, chosen, question, turns, steering, system)
    return {key: answer for key, (_, answer) in answers.kept_answers(services, asked.turn.answers).items()}


def asking(
    services: Services,
    finished: FinishedRun,
    chosen: list[str],
    question: str = QUESTION,
    turns: Sequence[Turn] = (),
    steering: Steering | None = None,
    system: str = "",
) -> Asked:
    """A question, answered."""
    columns = who.columns(services, chosen, finished.run.id, "", steering=steering)
    asked = Asked(services, columns, turns, Turn(question), Sampling(12), system)
    list(asked.run())
    return asked


def test_columns_answer_side_by_side(services: Services, finished: FinishedRun) -> None:
    given = talk(services, finished, ["base"])
    assert list(given) == ["run", "base"]
    assert given["run"].title.endswith("gates by the router")
    assert str(finished.run.state().adapter_hash)[:8] in given["run"].title
    assert given["base"].title.endswith("no adapter")
    assert not any(token.gates for token in given["base"].tokens)
    assert all(answer.has_ended and not answer.note for answer in given.values())


def test_a_streamed_token_has_its_gates_and_its_alternatives(services: Services, finished: FinishedRun) -> None:
    answer = talk(services, finished, [])["run"]
    (update,) = updates(answer, 0)
    assert update["ended"]
    assert [token["text"] for token in update["tokens"]] == [token.text for token in answer.tokens]
    assert (update["prompt"], update["heads"], update["layers"]) == (len(answer.prompt), 3, ["0", "1"])
    for sent, token in zip(update["tokens"], answer.tokens, strict=True):
        assert sent["gates"] == pytest.approx([1000 * gate for gate in mean_gates(token)], abs=0.51)
        grid = torch.tensor(sent["grid"]).reshape(2, 3)  # (layers, N)
        assert grid.sum(1).tolist() == pytest.approx([1000, 1000], abs=2)
        own = [i for i, module in enumerate(answer.modules) if ".layers.1." in module]
        assert grid[1].tolist() == pytest.approx((1000 * torch.tensor(token.gates)[own].mean(0)).tolist(), abs=0.51)
        assert len(sent["others"]) == ALTERNATIVES
    assert len(prompt_tokens(answer)["tokens"]) == len(answer.prompt)


@pytest.mark.parametrize(("modules", "heads"), [(30, 4), (400, 4), (80, 32), (126, 64)])
def test_updates_stay_small_and_send_every_token_once(modules: int, heads: int) -> None:
    token = Token(1, "word", [[1 / heads] * heads] * modules, (Alternative(1, "other", 0.5),) * ALTERNATIVES)
    names = [f"model.layers.{i}.mlp" for i in range(modules)]
    answer = Answer("", names, [], AnswerSource(""), Sampling(), tokens=[token] * 500, has_ended=True)
    sent = list(updates(answer, 37))
    sizes = [len(update["tokens"]) for update in sent]
    assert [update["first"] for update in sent] == [37 + sum(sizes[:i]) for i in range(len(sent))]
    assert sum(sizes) == 463
    assert [update["ended"] for update in sent] == [False] * (len(sent) - 1) + [True]
    assert max(len(json.dumps(update, separators=(",", ":"))) for update in sent) <= 12_000


def test_the_base_column_is_a_base_that_was_never_adapted(
    services: Services, finished: FinishedRun, ids: torch.Tensor
) -> None:
    given = talk(services, finished, ["base"])
    base = load_base_model(finished.run.recipe().model)
    tokens = generate(base.model, base.tokenizer, [{"role": "user", "content": QUESTION}], Sampling(12))
    assert given["base"].text == "".join(token.text for token in tokens)
    with torch.no_grad():
        beside = services.loaded_base(finished.run.id, "").model(ids).logits
        assert torch.equal(beside, base.model(ids).logits)
        assert not torch.equal(services.loaded(finished.run.id).model(ids).logits, beside)


def test_an_adapter_on_shared_weights_is_the_adapter(
    services: Services, finished: FinishedRun, ids: torch.Tensor
) -> None:
    shared, alone = services.loaded(finished.run.id), load_run(finished.run)
    base = services.loaded_base(finished.run.id, "")
    own = {parameter.data_ptr() for parameter in base.model.parameters()}
    taken = [p for name, p in shared.model.named_parameters() if "hydra_" not in name]
    assert {parameter.data_ptr() for parameter in taken} <= own
    with torch.no_grad():
        assert torch.equal(shared.model(ids).logits, alone.model(ids).logits)


def test_steered_gates_are_those_asked_for(services: Services, finished: FinishedRun) -> None:
    given = talk(services, finished, [], steering=Steering(pin=2))
    assert list(given) == ["run", "steered"]
    steered = given["steered"]
    assert all(row == [0, 0, 1] for token in (*steered.prompt, *steered.tokens) for row in token.gates)
    assert "pinned to head 3" in steered.title
    assert given["run"].title.endswith("by the router")


@pytest.mark.parametrize(
    ("settings", "steering"),
    [
        (None, None),
        ({"levels": [1, 1, 1], "solo": None, "uniform": False, "top": False, "temperature": 1, "layers": ""}, None),
        ({"levels": [1, 0, 2.5]}, Steering(levels=(1, 0, 2.5))),
        ({"levels": [1, 0, 1], "solo": 2, "temperature": 3, "top": True}, Steering(pin=2)),
        ({"levels": [1, 1, 1], "uniform": True, "top": True}, Steering(uniform=True)),
        ({"levels": [1, 1, 1], "temperature": 0.5, "top": True}, Steering(temperature=0.5, top_k=1)),
        ({"levels": [0.5, 1, 1], "layers": "1"}, Steering(levels=(0.5, 1, 1), layers=(1,))),
    ],
)
def test_the_mixer_is_the_engines_steering(settings: dict[str, Any] | None, steering: Steering | None) -> None:
    assert steering_of(settings, 3) == steering


@pytest.mark.parametrize(
    "settings",
    [
        {"solo": 7},
        {"solo": "<b>"},
        {"levels": [1, 0]},
        {"levels": [0, 0, 0]},
        {"levels": "all"},
        {"levels": [1] * 100_000},
        {"levels": [1, True, 1]},
        {"temperature": None},
        {"levels": [2, 1, 1], "layers": "x"},
    ],
)
def test_forged_settings_of_the_mixer_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        steering_of(settings, 3)


def test_a_column_that_cant_answer_says_so_and_its_neighbours_answer(services: Services, finished: FinishedRun) -> None:
    asked = who.columns(services, ["other"], finished.run.id, "", other="20000101-000000-0000")
    assert [(column.key, bool(column.problem)) for column in asked] == [("run", False), ("other", True)]
    turn = Asked(services, asked, [], Turn(QUESTION), Sampling(4))
    list(turn.run())
    given = answers.kept_answers(services, turn.turn.answers)
    assert "There is no run" in given["other"][1].note
    assert given["run"][1].tokens


def test_an_answer_that_is_stopped_keeps_what_it_has(services: Services, finished: FinishedRun) -> None:
    asked = Asked(services, who.columns(services, [], finished.run.id, ""), [], Turn(QUESTION), Sampling(2000))
    answer = services.answers.get(asked.turn.answers["run"])
    answer.stop_requested = True
    list(asked.run())
    assert answer.has_ended
    assert list(updates(answer, 0))[-1]["note"] == STOPPED


def test_a_run_without_an_adapter_leaves_the_base(services: Services, finished: FinishedRun) -> None:
    run = services.store.create(finished.run.recipe())
    try:
        assert [column.key for column in who.columns(services, [], run.id, "")] == ["base"]
        assert who.heads_of(services, run.id)["heads"] == 0
    finally:
        services.store.delete(run)


def test_heads_have_the_names_of_the_components_that_they_took(services: Services, finished: FinishedRun) -> None:
    heads = who.heads_of(services, finished.run.id)
    results = finished.run.state().results
    assert results
    assert results.component_by_head
    assert heads["heads"] == 3
    for head, name in enumerate(heads["names"]):
        gates = [row[head] for row in results.component_by_head]
        assert name == (results.components[gates.index(max(gates))].name if max(gates) >= 1 / 3 + who.LEAD else "")


def test_a_conversation_goes_on_with_its_own_answers(services: Services, finished: FinishedRun) -> None:
    first = asking(services, finished, ["base"])
    second = talk(services, finished, ["base"], "and cc engine", [first.turn], system="Be short.")
    given = answers.kept_answers(services, first.turn.answers)
    for key, answer in second.items():
        assert [message["role"] for message in answer.messages] == ["system", "user", "assistant", "user"]
        assert answer.messages[2]["content"] == given[key][1].text
        loaded = services.loaded_base(finished.run.id, "")
        assert len(answer.prompt) == len(encode_prompt(loaded.tokenizer, answer.messages))


def test_a_question_without_an_answer_is_not_asked_again(services: Services, finished: FinishedRun) -> None:
    answer = talk(services, finished, [], turns=[Turn("an error followed")])["run"]
    assert [message["content"] for message in answer.messages] == [QUESTION]


def test_a_long_prompt_is_said_before_it_is_sent(services: Services, finished: FinishedRun) -> None:
    services.release()  # nothing need be loaded
    told = length_line(services, finished.run.id, "", QUESTION, "", [])
    count = len(encode_prompt(services.loaded(finished.run.id).tokenizer, [{"role": "user", "content": QUESTION}]))
    assert told.startswith(f"{count} tokens")
    assert "reads at most" in length_line(services, finished.run.id, "", QUESTION * 5000, "", [])
    assert length_line(services, finished.run.id, "", "  ", "", []) == ""


def test_eight_users_dont_mix(services: Services, finished: FinishedRun) -> None:
    questions = [f"which tool fixes {chr(97 + i) * 2} engine" for i in range(8)]
    alone = [talk(services, finished, ["base"], question) for question in questions]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda question: talk(services, finished, ["base"], question), questions))
    for one, other in zip(alone, together, strict=True):
        for key in ("run", "base"):
            assert one[key].tokens == other[key].tokens


def test_steered_and_routed_answers_of_one_model_dont_mix(services: Services, finished: FinishedRun) -> None:
    pins = [None, 0, 1, 2, None, 0, 1, 2]

    def ask(pin: int | None) -> dict[str, Answer]:
        return talk(services, finished, [], steering=None if pin is None else Steering(pin=pin))

    alone = [ask(pin) for pin in pins]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, pins))
    for one, other in zip(alone, together, strict=True):
        assert [answer.tokens for answer in one.values()] == [answer.tokens for answer in other.values()]


def test_a_saved_turn_opens_again_without_a_model(services: Services, finished: FinishedRun, tmp_path: Path) -> None:
    turn = asking(services, finished, ["base"], steering=Steering(mute=(0,))).turn
    given = answers.kept_answers(services, turn.answers)
    files = saving.save(services, [turn])
    assert files
    trace, page = Path(files[0]), Path(files[1]).read_text(encoding="utf-8")
    opened = saving.replay(services, trace)
    again = services.answers.get(opened.answers["run"])
    assert (opened.question, again.text) == (QUESTION, given["run"][1].text)
    assert [mean_gates(token) for token in again.tokens] == [
        pytest.approx(mean_gates(token), abs=1e-5) for token in given["run"][1].tokens
    ]
    assert again.title.startswith("Replayed")
    assert "http" not in page.replace("http-equiv", "")
    for name in ("Tuned", "Steered", "Base model"):  # every column that was compared
        assert f'"name":"{name}"' in page
    trace.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a trace"):
        saving.replay(services, trace)
    assert saving.save(services, []) is None


def test_a_column_that_missed_a_turn_takes_up_the_conversation(services: Services, finished: FinishedRun) -> None:
    first = asking(services, finished, ["base"])
    second = talk(services, finished, [], "and cc engine", [first.turn], Steering(pin=0))
    assert second["run"].messages == second["steered"].messages
    assert len(second["run"].messages) == 3


def test_a_run_without_heads_is_stamped_so_and_cant_be_steered(
    services: Services, finished: FinishedRun, lora_run: Run
) -> None:
    assert who.columns(services, [], lora_run.id, "")[0].title.endswith("no gates")
    assert who.heads_of(services, lora_run.id)["heads"] == 0
    asked = who.columns(services, [], lora_run.id, "", steering=Steering(pin=0))
    turn = Asked(services, asked, [], Turn(QUESTION), Sampling(4))
    list(turn.run())
    assert "no gates to steer" in services.answers.get(turn.turn.answers["steered"]).note


def test_another_run_answers_beside_this_one(services: Services, finished: FinishedRun, lora_run: Run) -> None:
    columns = who.columns(services, ["other"], finished.run.id, "", other=lora_run.id)
    asked = Asked(services, columns, [], Turn(QUESTION), Sampling(6))
    list(asked.run())
    answer = services.answers.get(asked.turn.answers["other"])
    assert lora_run.id in answer.title
    own = load_run(lora_run)
    alone = generate(own.model, own.tokenizer, [{"role": "user", "content": QUESTION}], Sampling(6))
    assert answer.text == "".join(token.text for token in alone)


def test_an_answer_that_is_not_kept_is_refused(services: Services) -> None:
    with pytest.raises(HydraError, match="no longer kept"):
        services.answers.get("not-an-id")


def test_an_empty_prompt_is_refused(services: Services, finished: FinishedRun) -> None:
    with pytest.raises(HydraError, match="empty"):
        talk(services, finished, [], "  ")


def test_examples_are_the_runs_own_held_out_rows(services: Services, finished: FinishedRun) -> None:
    own = {row.question for row in read_split(finished.run.recipe()).heldout}
    offered = examples(services, finished.run.id, DEMO)  # whichever dataset is chosen
    assert offered
    assert {row["question"] for row in offered} <= own
    of_demo = examples(services, None, DEMO)
    assert len(of_demo) == 12
    assert len({row["task"] for row in of_demo[:4]}) == 4  # one of each task first


def test_models_are_let_go_and_loaded_again(services: Services, finished: FinishedRun) -> None:
    adapted = weakref.ref(services.loaded(finished.run.id).model)
    base = weakref.ref(services.loaded_base(finished.run.id, "").model)
    services.release("another run")
    assert services.loaded(finished.run.id).model is adapted()
    services.release(finished.run.id)
    gc.collect()
    assert adapted() is None
    assert base() is not None
    assert "loads them again" in free_memory(services)
    gc.collect()
    assert base() is None
    assert talk(services, finished, ["base"])["run"].tokens


def test_turns_are_opened_again_while_their_answers_are_kept(services: Services, finished: FinishedRun) -> None:
    turn = asking(services, finished, ["base"]).turn
    known = as_turns([*kept([turn, Turn("gone", answers={"run": "0" * 32})]), {"older": "version"}])
    assert saving.still_kept(services, known) == [turn]
    (shown,) = answers.turn_values(services, [turn])
    assert shown["answers"]["run"]["text"] == services.answers.get(turn.answers["run"]).text

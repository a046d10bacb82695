"""The Chat tab: who answers, with which gates, beside whom; and answers kept in files."""

import gc
import json
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from app.actions.chat import answers, saving
from app.actions.chat import columns as who
from app.actions.chat import conversation as chat
from app.services import Services
from hydralora.data.encoding import encode_prompt
from hydralora.data.store import DEMO
from hydralora.errors import ConfigError, HydraError
from hydralora.inference.generation import Sampling, generate
from hydralora.inference.model_cache import load_base_model, load_run
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
    histories: dict[str, Any] | None = None,
    steering: Steering | None = None,
    system: str = "",
) -> answers.ChatView:
    asked = who.columns(services, chosen, finished.run.id, "", steering=steering)
    return list(chat.stream(services, asked, histories or {}, question, Sampling(12), system))[-1]


def test_columns_answer_side_by_side(services: Services, finished: FinishedRun) -> None:
    view = talk(services, finished, ["run", "base"])
    assert list(view.columns) == ["run", "base"]
    for column in view.columns.values():
        assert [message["role"] for message in column.messages] == ["user", "assistant"]
    run, base = view.columns["run"], view.columns["base"]
    assert run.title.endswith("gates by the router")
    assert str(finished.run.state().adapter_hash)[:8] in run.title
    assert base.strip["heads"] == 0
    assert {token[1] for token in base.strip["tokens"]} == {None}
    assert run.strip["heads"] == 3
    answer = services.answers.get(run.answer_id)
    assert len(run.strip["tokens"]) == len(answer.prompt) + len(answer.tokens)
    assert [token[3] for token in run.strip["tokens"]] == [1] * len(answer.prompt) + [0] * len(answer.tokens)


def test_a_token_is_looked_at_with_its_gates_and_what_else_could_have_come(
    services: Services, finished: FinishedRun
) -> None:
    column = talk(services, finished, ["run"]).columns["run"]
    answer = services.answers.get(column.answer_id)
    first = len(answer.prompt)
    seen = answers.pick(services, column.answer_id, first)
    gates = json.loads(seen.gates.bars)["data"][0]["y"]
    assert gates == pytest.approx(answers.mean_over_layers(answer.tokens[0]))
    assert sum(gates) == pytest.approx(1, abs=1e-5)
    assert seen.sentence.startswith(f"This run, token 1 of {len(answer.tokens)}")
    assert len(json.loads(seen.gates.heatmap)["data"][0]["x"]) == 2  # layers
    assert len(seen.alternatives) == chat.ALTERNATIVES
    assert answers.pick(services, column.answer_id, 0).sentence.startswith(
        f"This run, token 1 of {first} of the question"
    )
    assert "newest" in answers.pick(services, column.answer_id, -1).sentence


def test_the_heatmap_of_the_answer_is_its_mean(services: Services, finished: FinishedRun) -> None:
    view = talk(services, finished, ["run"])
    answer = services.answers.get(view.columns["run"].answer_id)
    assert view.gates
    drawn = json.loads(view.gates.load)["data"][0]
    mean = torch.tensor([token.gates for token in answer.tokens]).mean(0)  # (modules, N)
    for row, label in zip(drawn["z"], drawn["customdata"], strict=True):
        head, kind = re.fullmatch(r"head (\d+), (\w+)", label[0]).groups()  # type: ignore[union-attr]
        own = [i for i, module in enumerate(answer.modules) if module.endswith(kind)]
        assert row == pytest.approx(mean[own, int(head) - 1].tolist(), abs=1e-6)


def test_the_base_column_is_a_base_that_was_never_adapted(
    services: Services, finished: FinishedRun, ids: torch.Tensor
) -> None:
    view = talk(services, finished, ["run", "base"])
    base = load_base_model(finished.run.recipe().model)
    tokens = generate(base.model, base.tokenizer, [{"role": "user", "content": QUESTION}], Sampling(12))
    assert view.columns["base"].messages[-1]["content"] == "".join(token.text for token in tokens)
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


def test_steered_gates_are_those_asked_for_and_differences_are_marked(
    services: Services, finished: FinishedRun
) -> None:
    view = talk(services, finished, ["run", "steered"], steering=Steering(pin=2))
    steered = services.answers.get(view.columns["steered"].answer_id)
    assert all(row == [0, 0, 1] for token in (*steered.prompt, *steered.tokens) for row in token.gates)
    assert "pinned to head 3" in view.columns["steered"].title
    plain = services.answers.get(view.columns["run"].answer_id)
    marks = [token[4] for token in view.columns["steered"].strip["tokens"][len(steered.prompt) :]]
    wanted = [int(i >= len(plain.tokens) or plain.tokens[i].id != token.id) for i, token in enumerate(steered.tokens)]
    assert marks == wanted
    assert not any(token[4] for token in view.columns["run"].strip["tokens"])


def test_a_steered_column_needs_something_to_steer(services: Services, finished: FinishedRun) -> None:
    with pytest.raises(HydraError, match="Nothing is steered"):
        who.columns(services, ["steered"], finished.run.id, "")
    with pytest.raises(HydraError, match="No other run"):
        who.columns(services, ["run", "other"], finished.run.id, "")
    with pytest.raises(HydraError, match="Choose a column"):
        who.columns(services, [], finished.run.id, "")


def test_a_run_without_an_adapter_leaves_the_base(services: Services, finished: FinishedRun) -> None:
    run = services.store.create(finished.run.recipe())
    try:
        assert "none yet" in who.titles(services, run.id, "", {})["run"]
        assert [column.key for column in who.columns(services, ["run", "base"], run.id, "")] == ["base"]
        with pytest.raises(HydraError, match="base model's"):
            who.columns(services, ["run"], run.id, "")
    finally:
        services.store.delete(run)


def test_a_conversation_goes_on_with_its_own_answers(services: Services, finished: FinishedRun) -> None:
    first = talk(services, finished, ["run", "base"])
    histories = {key: column.messages for key, column in first.columns.items()}
    second = talk(services, finished, ["run", "base"], "and cc engine", histories, system="Be short.")
    for key, column in second.columns.items():
        assert column.messages[:2] == first.columns[key].messages
        sent = services.answers.get(column.answer_id).messages
        assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
        loaded = services.loaded_base(finished.run.id, "")
        assert len(services.answers.get(column.answer_id).prompt) == len(encode_prompt(loaded.tokenizer, sent))


def test_a_question_without_an_answer_is_not_asked_again(services: Services, finished: FinishedRun) -> None:
    left_over = {"run": [{"role": "user", "content": "an error followed"}]}
    column = talk(services, finished, ["run"], histories=left_over).columns["run"]
    assert [message["content"] for message in column.messages[:-1]] == [QUESTION]


def test_a_long_prompt_is_said_before_it_is_sent(services: Services, finished: FinishedRun) -> None:
    services.release()  # nothing need be loaded
    told = chat.length_line(services, finished.run.id, "", QUESTION, "", {})
    count = len(encode_prompt(services.loaded(finished.run.id).tokenizer, [{"role": "user", "content": QUESTION}]))
    assert told.startswith(f"{count} tokens")
    assert "reads at most" in chat.length_line(services, finished.run.id, "", QUESTION * 5000, "", {})
    assert chat.length_line(services, finished.run.id, "", "  ", "", {}) == ""
    short, long = (
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}] for text in ("b", "b" * 90)
    )
    with_long = chat.length_line(services, finished.run.id, "", QUESTION, "", {"run": short + short, "base": long})
    assert with_long == chat.length_line(services, finished.run.id, "", QUESTION, "", {"base": long})


def test_eight_users_dont_mix(services: Services, finished: FinishedRun) -> None:
    questions = [f"which tool fixes {chr(97 + i) * 2} engine" for i in range(8)]
    alone = [talk(services, finished, ["run", "base"], question) for question in questions]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda question: talk(services, finished, ["run", "base"], question), questions))
    for one, other in zip(alone, together, strict=True):
        for key in ("run", "base"):
            assert one.columns[key].messages == other.columns[key].messages
            mine, theirs = (services.answers.get(view.columns[key].answer_id) for view in (one, other))
            assert [token.gates for token in mine.tokens] == [token.gates for token in theirs.tokens]


def test_steered_and_routed_answers_of_one_model_dont_mix(services: Services, finished: FinishedRun) -> None:
    pins = [None, 0, 1, 2, None, 0, 1, 2]

    def ask(pin: int | None) -> answers.ChatView:
        chosen, steering = (["run"], None) if pin is None else (["steered"], Steering(pin=pin))
        return talk(services, finished, chosen, steering=steering)

    alone = [ask(pin) for pin in pins]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, pins))
    for one, other in zip(alone, together, strict=True):
        mine, theirs = (services.answers.get(next(iter(view.columns.values())).answer_id) for view in (one, other))
        assert [(token.id, token.gates) for token in mine.tokens] == [
            (token.id, token.gates) for token in theirs.tokens
        ]


def test_a_saved_answer_opens_again_without_a_model(services: Services, finished: FinishedRun, tmp_path: Path) -> None:
    view = talk(services, finished, ["steered"], steering=Steering(mute=(0,)))
    column = view.columns["steered"]
    file = Path(saving.save(services, column.answer_id))
    opened = saving.replay(services, file).columns["run"]
    assert opened.messages == column.messages
    assert [token[:3] for token in opened.strip["tokens"]] == [token[:3] for token in column.strip["tokens"]]
    assert opened.title.startswith("Replayed")
    assert opened.title.endswith("gates without head 1")
    page = Path(saving.save_page(services, column.answer_id)).read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="not a trace"):
        saving.replay(services, file)


def test_a_token_of_any_column_can_be_looked_at(services: Services, finished: FinishedRun) -> None:
    view = talk(services, finished, ["run", "steered", "base"], steering=Steering(pin=1))
    ids = {key: column.answer_id for key, column in view.columns.items()}
    assert view.gates
    assert "Mean gate of each head: This run" in view.gates.bars
    assert answers.watched(services, ids) == ids["run"]
    seen = answers.pick(services, ids["steered"], 0, ids)
    assert json.loads(seen.gates.bars)["data"][0]["y"] == [0, 1, 0]
    assert "Gates of the token: This run, steered" in seen.gates.heatmap
    still = saving.reopen(services, ids)  # what comes later holds it
    assert still
    assert still.gates == seen.gates
    assert answers.watched(services, ids) == ids["steered"]
    weighed = answers.pick(services, ids["base"], len(services.answers.get(ids["base"]).prompt), ids)
    assert len(weighed.alternatives) == chat.ALTERNATIVES
    assert weighed.gates.bars == ""
    assert services.answers.get(ids["steered"]).frozen is None


def test_a_column_that_missed_a_turn_takes_up_the_conversation(services: Services, finished: FinishedRun) -> None:
    first = talk(services, finished, ["run", "base"])
    histories = {key: column.messages for key, column in first.columns.items()}
    second = talk(services, finished, ["run", "steered"], "and cc engine", histories, Steering(pin=0))
    asked = [services.answers.get(column.answer_id).messages for column in second.columns.values()]
    assert asked[0] == asked[1]
    assert len(asked[0]) == 3


def test_a_run_without_heads_is_stamped_so_and_cant_be_steered(
    services: Services, finished: FinishedRun, lora_run: Run
) -> None:
    assert who.columns(services, ["run"], lora_run.id, "")[0].title.endswith("no gates")
    with pytest.raises(HydraError, match="has no heads, so there is nothing to steer"):
        who.columns(services, ["run", "steered"], lora_run.id, "", steering=Steering(pin=0))


def test_another_run_answers_beside_this_one(services: Services, finished: FinishedRun, lora_run: Run) -> None:
    asked = who.columns(services, ["run", "other"], finished.run.id, "", other=lora_run.id)
    view = list(chat.stream(services, asked, {}, QUESTION, Sampling(6)))[-1]
    assert lora_run.id in view.columns["other"].title
    own = load_run(lora_run)
    alone = generate(own.model, own.tokenizer, [{"role": "user", "content": QUESTION}], Sampling(6))
    assert view.columns["other"].messages[-1]["content"] == "".join(token.text for token in alone)


def test_an_answer_that_is_not_kept_is_refused(services: Services) -> None:
    with pytest.raises(HydraError, match="no longer kept"):
        answers.pick(services, "not-an-id", 0)


def test_an_empty_prompt_is_refused(services: Services, finished: FinishedRun) -> None:
    with pytest.raises(HydraError, match="empty"):
        talk(services, finished, ["run"], "  ")


def test_held_out_rows_are_offered_for_every_task(services: Services) -> None:
    offered = chat.prompts(services, DEMO)
    heldout = services.datasets.get(DEMO).heldout
    assert heldout
    assert len(offered) == 12
    assert {len(pair) for pair in offered} == {2}


def test_models_are_let_go_and_loaded_again(services: Services, finished: FinishedRun) -> None:
    adapted = weakref.ref(services.loaded(finished.run.id).model)
    base = weakref.ref(services.loaded_base(finished.run.id, "").model)
    services.release("another run")
    assert services.loaded(finished.run.id).model is adapted()
    services.release(finished.run.id)
    gc.collect()
    assert adapted() is None
    assert base() is not None
    assert "loads them again" in chat.free_memory(services)
    gc.collect()
    assert base() is None
    assert talk(services, finished, ["run", "base"]).columns["run"].messages


def test_answers_are_opened_again_by_their_ids(services: Services, finished: FinishedRun) -> None:
    view = talk(services, finished, ["run", "base"])
    ids = {key: column.answer_id for key, column in view.columns.items()}
    again = saving.reopen(services, ids | {"other": "nobody's", "strange": ids["run"]})
    assert again is not None
    assert again.columns == view.columns
    assert again.gates == view.gates
    titles = who.titles(services, finished.run.id, "", {"run": ids["run"]})
    assert titles["run"] == view.columns["run"].title
    assert titles["base"].startswith("Base model: ")
    assert saving.reopen(services, {"run": "0" * 32}) is None

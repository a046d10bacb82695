"""The pictures of a lecture: what a run has, its answers, and what Present and the saved page get."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from app.actions import lecture
from app.actions.chat import saving
from app.services import Services
from hydralora.errors import HydraError
from hydralora.runs.run import SHIPPED_ID
from tests.conftest import FinishedRun


def test_the_shipped_run_has_every_picture_and_all_its_answers(shipped: Services) -> None:
    entries = lecture.outline(shipped, SHIPPED_ID)
    names = [entry["name"] for entry in entries]
    assert names[:7] == ["data", "number", "components", "loss", "training", "heads", "use"]
    assert names[7:] == ["answer-1", "alone-1", "answer-2", "answer-3", "answer-4"]
    for name in names:
        screen = json.loads(lecture.screen(shipped, SHIPPED_ID, name).to_json())
        assert bool(screen["figure"]) + bool(screen["table"]) + bool(screen["answers"]) == 1, name
    compared = lecture.screen(shipped, SHIPPED_ID, "answer-1").answers
    assert [name for name, _, _ in compared] == ["Tuned", "Base model"]
    alone = lecture.screen(shipped, SHIPPED_ID, "alone-1").answers
    assert [name for name, _, _ in alone] == ["Head 1", "Head 2", "Head 3", "Head 4"]


def test_another_run_has_the_pictures_that_it_can_have(services: Services, finished: FinishedRun) -> None:
    names = {entry["name"] for entry in lecture.outline(services, finished.run.id)}
    assert {"loss", "heads"} <= names
    assert not any(name.startswith(("answer", "alone")) for name in names)
    with pytest.raises(HydraError, match="no picture"):
        lecture.screen(services, finished.run.id, "answer-1")


@pytest.mark.parametrize("name", ["nothing", "answer-9", "%2e%2e", "answer-1/../../state"])
def test_a_picture_that_there_is_not_is_a_message(client: TestClient, name: str) -> None:
    answer = client.get(f"/studio/lecture/{SHIPPED_ID}/screens/{name}")
    assert answer.status_code == 404


@pytest.mark.parametrize("run", ["nothing", "20990101-000000-0000", "..", "%2e%2e"])
def test_a_run_that_there_is_not_is_a_message(client: TestClient, run: str) -> None:
    assert client.get(f"/studio/lecture/{run}").status_code == 404
    assert client.get(f"/studio/lecture/{run}/page").status_code == 404


def test_a_turn_is_shown_with_all_its_columns(shipped: Services, client: TestClient) -> None:
    turn = saving.shipped_turn(shipped, steered=True)
    screen = client.get("/studio/turn", params=turn.answers).json()
    assert [answer["name"] for answer in screen["answers"]] == ["Tuned", "Steered", "Base model"]
    texts = ["".join(token["text"] for token in answer["trace"]["tokens"]) for answer in screen["answers"]]
    assert texts[0] == "lamp, cloud, boat, apple"
    assert texts[1].startswith("{")
    assert client.get("/studio/turn", params={"run": "0" * 32}).status_code == 404
    assert client.get("/studio/turn").status_code == 404


def test_the_saved_page_has_what_present_shows(shipped: Services, client: TestClient, tmp_path: Path) -> None:
    turn = ",".join(f"{key}:{value}" for key, value in saving.shipped_turn(shipped).answers.items())
    answer = client.get(f"/studio/lecture/{SHIPPED_ID}/page", params={"turn": turn})
    assert answer.headers["content-disposition"].startswith("attachment")
    data = answer.text.partition('<script id="screens" type="application/json">')[2].partition("</script>")[0]
    saved = json.loads(data)
    names = [entry["name"] for entry in client.get(f"/studio/lecture/{SHIPPED_ID}").json()]
    assert [screen["name"] for screen in saved] == [*names, "turn"]
    for screen in saved[:-1]:
        assert screen == client.get(f"/studio/lecture/{SHIPPED_ID}/screens/{screen['name']}").json()


@pytest.mark.parametrize("name", ["teaching.js", "teaching.css", "class.js", "class.css", "plotly.js"])
def test_the_scripts_come_from_the_server(client: TestClient, name: str) -> None:
    answer = client.get(f"/studio/files/{name}")
    assert answer.status_code == 200
    assert len(answer.content) > 1000
    assert "SHIPPED_ID" not in answer.text or name == "plotly.js"


@pytest.mark.parametrize("name", ["__init__.py", "..%2f__main__.py", "tour.js"])
def test_no_other_file_does(client: TestClient, name: str) -> None:
    assert client.get(f"/studio/files/{name}").status_code == 404

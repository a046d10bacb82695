"""A class: only its presenter changes it, its code can't be guessed, and many can look."""

import json
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.actions.chat import saving
from app.services import Services
from app.services.classes import KEPT_SECONDS, MOST_CLASSES, Classes, Shown
from app.teaching import routes
from app.teaching.address import class_address
from hydralora.errors import HydraError
from hydralora.runs.run import SHIPPED_ID

AUDIENCE = ("", "/events", "/now", "/screens", "/screens/data")
VIEWERS = 30


@pytest.fixture
def started(client: TestClient) -> dict[str, str]:
    return client.post("/studio/classes/start", json={}).json()


def show(client: TestClient, started: dict[str, str], **shown: object) -> int:
    """Show something as the presenter's page does; returns the status."""
    sent = {"code": started["code"], "key": started["key"], **shown}
    return client.post("/studio/classes/show", json=sent).status_code


def test_codes_cant_be_guessed_and_tell_nothing_of_the_key() -> None:
    classes = Classes()
    made = [classes.start() for _ in range(MOST_CLASSES)]
    assert len({one.code for one in made} | {one.key for one in made}) == 2 * MOST_CLASSES
    assert min(len(one.code) for one in made) >= 16  # 96 bits


def test_a_class_has_its_address_as_a_picture_and_says_who_can_open_it(started: dict[str, str]) -> None:
    assert started["address"] == f"http://127.0.0.1:7860/class/{started['code']}"
    assert started["picture"].startswith("data:image/svg+xml")
    assert "Only this machine" in started["reach"]
    assert started["key"] not in started["address"]


@pytest.mark.parametrize("path", AUDIENCE)
@pytest.mark.parametrize("code", ["x", "A" * 16, "..", "%3Cscript%3E"])
def test_a_forged_code_finds_nothing(client: TestClient, path: str, code: str) -> None:
    answer = client.get(f"/class/{code}{path}")
    assert answer.status_code == 404
    assert "script>" not in answer.text


@pytest.mark.parametrize("path", AUDIENCE)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_the_audience_can_only_read(client: TestClient, started: dict[str, str], path: str, method: str) -> None:
    assert client.request(method, f"/class/{started['code']}{path}", json={}).status_code == 405


def test_only_the_key_changes_what_is_shown(client: TestClient, started: dict[str, str]) -> None:
    code = started["code"]
    for key in ("", code, started["key"][:-1], "ключ"):
        body = {"code": code, "key": key, "run": SHIPPED_ID, "page": "explore"}
        assert client.post("/studio/classes/show", json=body).status_code == 404
        assert client.post("/studio/classes/end", json={"code": code, "key": key}).status_code == 404
    assert client.get(f"/class/{code}/now").status_code == 404  # nothing is shown yet
    assert show(client, started, run=SHIPPED_ID, page="explore") == 200
    assert client.get(f"/class/{code}/now").json()["name"] == "heads"


def test_another_site_can_send_nothing(client: TestClient, started: dict[str, str]) -> None:
    body = json.dumps({"code": started["code"], "key": started["key"]})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = client.post("/studio/classes/end", content=body, headers={"content-type": kind})
        assert answer.status_code == 400
    assert client.get(f"/class/{started['code']}").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{",
        '{"more": 1}',
        '{"token": -1}',
        '{"run": 3}',
        json.dumps({"run": "x" * 65}),
        "{" + " " * 5000 + "}",
    ],
)
def test_what_is_no_request_is_refused(client: TestClient, body: str) -> None:
    answer = client.post("/studio/classes/show", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_the_audience_sees_the_page_the_screen_and_the_answers(
    shipped: Services, client: TestClient, started: dict[str, str]
) -> None:
    now = f"/class/{started['code']}/now"
    pages = {"data": "data", "train": "training", "chat": "answer-1"}
    for page, name in pages.items():
        show(client, started, run=SHIPPED_ID, page=page)
        assert client.get(now).json()["name"] == name
    show(client, started, run=SHIPPED_ID, page="chat", screen="use")
    assert client.get(now).json()["name"] == "use"
    show(client, started, run=SHIPPED_ID, page="chat", turn=saving.shipped_turn(shipped, steered=True).answers)
    assert [answer["name"] for answer in client.get(now).json()["answers"]] == ["Tuned", "Steered", "Base model"]
    show(client, started, run=SHIPPED_ID, page="runs")
    assert "nothing that can be seen here" in client.get(now).json()["error"]
    assert show(client, started, run="20990101-000000-0000", page="data") == 404


def test_texts_are_no_markup(shipped: Services, client: TestClient, started: dict[str, str]) -> None:
    page = client.get(f"/class/{started['code']}")
    assert started["code"] not in page.text
    show(client, started, run=SHIPPED_ID, page="data")
    answer = client.get(f"/class/{started['code']}/now")
    assert answer.headers["content-type"] == "application/json"


def test_looking_around_shows_the_shipped_run_alone(client: TestClient, started: dict[str, str]) -> None:
    names = [entry["name"] for entry in client.get(f"/class/{started['code']}/screens").json()]
    assert "answer-1" in names
    assert client.get(f"/class/{started['code']}/screens/answer-1").json()["answers"]
    assert client.get(f"/class/{started['code']}/screens/nothing").status_code == 404


def test_a_reloaded_page_goes_on_with_its_class(client: TestClient, started: dict[str, str]) -> None:
    again = client.post("/studio/classes/start", json={"code": started["code"], "key": started["key"]}).json()
    assert again["code"] == started["code"]
    other = client.post("/studio/classes/start", json={"code": started["code"], "key": "another"}).json()
    assert other["code"] != started["code"]


def test_classes_are_few_and_end_after_a_day() -> None:
    now = 0.0
    classes = Classes(clock=lambda: now)
    first, second = classes.start(), classes.start()
    classes.show(first.code, first.key, Shown(run="a"))  # so the second is the one unused longest
    for _ in range(MOST_CLASSES - 1):
        newest = classes.start()
    with pytest.raises(HydraError, match="has ended"):
        classes.get(second.code)
    assert second.shown.ended
    assert classes.get(first.code) is first
    now = KEPT_SECONDS + 1
    with pytest.raises(HydraError, match="has ended"):
        classes.get(newest.code)
    assert newest.shown.ended


def test_a_version_grows_only_with_a_change() -> None:
    classes = Classes()
    one = classes.start()
    versions = [classes.show(one.code, one.key, Shown(run=run)).version for run in ("a", "a", "b")]
    assert versions == [1, 1, 2]


@pytest.mark.parametrize(
    ("listens", "host", "url", "said"),
    [
        ("127.0.0.1", "127.0.0.1:7860", "http://127.0.0.1:7860/class/C", "Only this machine"),
        ("localhost", "localhost:80", "http://localhost:80/class/C", "Only this machine"),
        ("0.0.0.0", "lab.example:7860", "http://lab.example:7860/class/C", "as you do"),
        ("::", "[2001:db8::1]:7860", "http://[2001:db8::1]:7860/class/C", "as you do"),
        ("192.168.1.5", "192.168.1.5", "http://192.168.1.5/class/C", "as you do"),
    ],
)
def test_the_dialog_says_truly_who_can_open_the_address(listens: str, host: str, url: str, said: str) -> None:
    place = class_address(listens, "http", host, "C")
    assert place.url == url
    assert said in place.reach
    assert "no accounts" in place.reach


def test_opened_by_a_loopback_name_the_address_is_the_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.teaching.address._own_address", lambda: "192.168.1.5")
    place = class_address("0.0.0.0", "http", "127.0.0.1:7860", "C")
    assert place.url == "http://192.168.1.5:7860/class/C"
    assert "Everyone" in place.reach
    monkeypatch.setattr("app.teaching.address._own_address", lambda: "")
    assert "no network address" in class_address("0.0.0.0", "http", "127.0.0.1:7860", "C").reach


@pytest.fixture(scope="module")
def server(shipped: Services) -> Iterator[str]:
    """The routes on a real server: a test client can't hold streams open."""
    config = uvicorn.Config(Starlette(routes=routes(shipped, "127.0.0.1")), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = server.force_exit = True
    thread.join(10)


def test_thirty_viewers_follow_within_two_seconds_and_cost_little(server: str, shipped: Services) -> None:
    started = httpx.post(f"{server}/studio/classes/start", json={}).json()
    lock = threading.Lock()
    seen: list[tuple[int, float]] = []
    ended: list[tuple[int, float]] = []

    def follow() -> None:
        with httpx.stream("GET", f"{server}/class/{started['code']}/events", timeout=30) as lines:
            for line in lines.iter_lines():
                if not line.startswith("data:"):
                    continue
                told = json.loads(line.removeprefix("data:"))
                with lock:
                    (ended if told["ended"] else seen).append((told["version"], time.monotonic()))

    viewers = [threading.Thread(target=follow) for _ in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
    _until(lambda: len(seen) == VIEWERS)
    assert shipped.classes.get(started["code"]).viewers == VIEWERS
    used = time.process_time()
    time.sleep(2)
    used = time.process_time() - used
    assert used < 0.6, f"{VIEWERS} waiting viewers took {used / 2:.0%} of a core"
    body = {"code": started["code"], "key": started["key"], "run": SHIPPED_ID}
    for change, page in enumerate(("chat", "data"), 2):  # the second comes right after a look at the first
        began = time.monotonic()
        httpx.post(f"{server}/studio/classes/show", json=body | {"page": page}).raise_for_status()
        _until(lambda change=change: len(seen) == change * VIEWERS)  # type: ignore[misc]
    slowest = max(at for _, at in seen) - began
    print(f"{VIEWERS} viewers: {used / 2:.1%} of a core while waiting, the slowest was told after {slowest:.2f} s")
    assert slowest < 2
    httpx.post(f"{server}/studio/classes/end", json={key: body[key] for key in ("code", "key")}).raise_for_status()
    for viewer in viewers:
        viewer.join(10)
    assert len(ended) == VIEWERS
    assert httpx.get(f"{server}/class/{started['code']}").status_code == 404


def _until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)

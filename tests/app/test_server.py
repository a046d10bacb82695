"""The app as a server: who may send, how much, and who may read what it writes."""

import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import App, running_app

ROOT = Path(__file__).parents[2]
BOUNDARY = "0123456789"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, user_environment: dict[str, str]) -> Iterator[App]:
    workspace = tmp_path_factory.mktemp("served") / "workspace"
    with running_app(workspace, user_environment, "--upload-quota", "0.001") as app:  # 1 MB
        yield app


def asked(app: App, path: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, str]:
    request = urllib.request.Request(app.url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def uploaded(app: App, size: int, headers: dict[str, str] | None = None, content: bytes = b"x") -> tuple[int, str]:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
    body = head.encode() + content * size + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return asked(app, "/gradio_api/upload", kind | (headers or {}), body)


def files(app: App) -> list[Path]:
    return [path for path in app.workspace.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_what_another_sites_page_sends_is_refused(app: App, headers: dict[str, str]) -> None:
    before = files(app)
    for path in ("/gradio_api/queue/join", "/gradio_api/call/any", "/studio/answers/x/stop"):
        status, text = asked(app, path, headers | {"Content-Type": "text/plain"}, b"{}")
        assert (status, "Another site's page" in text) == (403, True), path
    assert uploaded(app, 10, headers)[0] == 403
    assert files(app) == before


def test_the_own_page_and_programs_may_send(app: App) -> None:
    own = {"Origin": app.url, "Sec-Fetch-Site": "same-origin"}
    assert uploaded(app, 10, own)[0] == 200
    assert uploaded(app, 10)[0] == 200
    assert asked(app, "/studio/answers/x/stop", own, b"")[0] == 404  # there is no such answer


def test_uploads_beyond_the_quota_are_refused(app: App) -> None:
    status, text = uploaded(app, 2_000_000)
    assert status == 413
    assert "There is no room for this upload: 1 MB are left" in text
    for content in (b"a", b"b", b"c"):
        status, _ = uploaded(app, 400_000, content=content)
    assert status == 413
    assert sum(path.stat().st_size for path in files(app) if "uploads" in path.parts) < 1_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_others_can_not_read_what_is_written(app: App) -> None:
    uploaded(app, 10)
    assert files(app)
    assert [path for path in app.workspace.rglob("*") if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)] == []


def test_nothing_that_is_served_names_where_the_app_is_installed(app: App) -> None:
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/startup-events"):
        _, text = asked(app, path, {})
        for folder in (ROOT, Path(sys.prefix), Path.home() / ".cache"):
            assert str(folder) not in text, path

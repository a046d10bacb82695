"""A run's adapter goes to a server that speaks as the Hugging Face Hub does."""

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from hydralora import HydraError
from hydralora.cli.options import app
from hydralora.transfer import can_push, push_run
from tests.conftest import FinishedRun


@dataclass
class Hub:
    """What was asked of the server; `refuses` is the status that it answers everything with."""

    url: str = ""
    tokens: set[str | None] = field(default_factory=set)
    made: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    refuses: int | None = None

    def visibility(self) -> str:
        """Of the one repository that was made; the library's versions say it in two ways."""
        (made,) = self.made
        return made.get("visibility") or ("private" if made["private"] else "public")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    seen = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"id": "me/mine", "siblings": [], "sha": "0" * 40})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            seen.tokens.add(self.headers.get("Authorization"))
            if "/repos/create" in self.path:
                seen.made.append(json.loads(body))
                self._answer({"url": f"{seen.url}/me/mine", "id": "me/mine"})
            elif "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
                self._answer({"files": files})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        seen.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                oid = "1" * 40
                self._answer({"commitUrl": f"{seen.url}/me/mine/commit/{oid}", "commitOid": oid, "success": True})
            else:
                self._answer({})

        def _answer(self, value: dict[str, object]) -> None:
            body = json.dumps(value).encode()
            self.send_response(seen.refuses or 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", seen.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield seen
    server.shutdown()
    server.server_close()


def test_an_adapter_is_uploaded_with_its_card_and_no_secret(finished: FinishedRun, hub: Hub) -> None:
    address = push_run(finished.run, "me/mine")
    assert address == f"{hub.url}/me/mine/commit/{'1' * 40}"
    assert hub.tokens == {"Bearer hf_secret"}
    assert hub.visibility() == "private"
    weights = (finished.run.adapter / "adapter_model.safetensors").read_bytes()
    assert hub.files["adapter_model.safetensors"] == weights
    assert {"README.md", "adapter_config.json"} <= set(hub.files)
    text = b"".join(content for name, content in hub.files.items() if not name.endswith("safetensors"))
    assert b"hf_secret" not in text
    assert str(finished.store.workspace).encode() not in text


def test_a_public_upload_from_the_terminal(finished: FinishedRun, hub: Hub) -> None:
    words = ["push", str(finished.run.folder), "me/mine", "--public", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["path"].startswith(hub.url)
    assert hub.visibility() == "public"
    assert "adapter_model.safetensors" in hub.files


@pytest.mark.parametrize(("status", "told"), [(401, "token is not valid"), (403, "may not write"), (500, "try again")])
def test_a_refusal_is_said_in_a_sentence(finished: FinishedRun, hub: Hub, status: int, told: str) -> None:
    hub.refuses = status
    with pytest.raises(HydraError, match=rf"me/mine: the Hub answered {status}.*(?i:{told})") as error:
        push_run(finished.run, "me/mine")
    assert "hf_secret" not in str(error.value)


def test_without_network_token_or_name_nothing_is_sent(
    finished: FinishedRun, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HydraError, match="not a repository's name"):
        push_run(finished.run, "../etc")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HydraError, match="can't be reached"):
        push_run(finished.run, "me/mine")
    monkeypatch.delenv("HF_TOKEN")
    assert not can_push()
    with pytest.raises(HydraError, match="Set HF_TOKEN"):
        push_run(finished.run, "me/mine")
    assert hub.files == {}

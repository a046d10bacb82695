"""The app as a real process."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_SECONDS = 120


@dataclass
class App:
    """A running app."""

    url: str
    workspace: Path
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)


@contextmanager
def running_app(
    workspace: Path, environment: Mapping[str, str], *options: str, module: str = "app", cwd: Path | None = None
) -> Iterator[App]:
    """The app on a free port, when it answers; it ends with the block. Its log is beside its workspace."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, "--port", str(port), "--workspace", str(workspace), *options]
    log = workspace.with_name("app.log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**environment, "HF_HUB_OFFLINE": "1"}, cwd=cwd
        )
    try:
        app = App(f"http://127.0.0.1:{port}", workspace, log, process)
        _wait_for(app)
        yield app
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(app: App) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert app.process.poll() is None, app.log.read_text(encoding="utf-8")
        try:
            with urllib.request.urlopen(app.url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the app did not answer in {START_SECONDS} s: {app.log.read_text(encoding='utf-8')}")

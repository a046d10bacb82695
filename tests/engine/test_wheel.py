"""What a wheel installs, and that the app runs from it."""

import os
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from hydralora.runs.run import SHIPPED_ID, Run
from hydralora.runs.shipped import read_manifest
from hydralora.runs.store import RunStore
from tests.serving import running_app

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like site-packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_a_wheel_takes_no_name_that_others_use(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"hydralora", "hydralora_app"}


def test_a_wheel_has_every_file_that_the_packages_have(installed: Path) -> None:
    for package, name in (("hydralora", "hydralora"), ("app", "hydralora_app")):
        skipped = {"__pycache__", "editable"}
        files = [path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*") if path.is_file()]
        needed = {path for path in files if not skipped & set(path.parts) and path.suffix != ".md"}
        assert {path.suffix for path in needed} >= ({".py", ".js", ".css"} if package == "app" else {".py", ".html"})
        assert needed <= {path.relative_to(installed / name) for path in (installed / name).rglob("*")}


def test_a_wheel_has_the_shipped_run_whole_and_its_data(installed: Path) -> None:
    assets = installed / "hydralora" / "data" / "assets"
    files = read_manifest(assets / "gallery").files
    assert files.keys() == read_manifest(ROOT / "assets" / "gallery").files.keys()
    data = Run(assets / "gallery").recipe().data
    assert (data.train, data.eval) == tuple(str(assets / "demo" / f"{name}.jsonl") for name in ("train", "heldout"))
    assert Path(str(data.train)).exists()


@pytest.mark.slow
def test_the_app_runs_from_a_wheel(installed: Path, user_environment: dict[str, str], tmp_path: Path) -> None:
    environment = user_environment | {"PYTHONPATH": str(installed)}
    where = "import hydralora, hydralora_app; print(hydralora.__file__, hydralora_app.__file__)"
    code = [sys.executable, "-c", where]
    found = subprocess.run(code, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=True)
    assert all(Path(file).is_relative_to(installed) for file in found.stdout.split())
    with running_app(tmp_path / "workspace", environment, module="hydralora_app", cwd=tmp_path) as app:
        page = urllib.request.urlopen(app.url).read().decode()
        data = RunStore(app.workspace).get(SHIPPED_ID).recipe().data
    assert "window.browserState" in page
    assert "800 rows" in page  # of the demo
    assert Path(str(data.train)).is_relative_to(installed)  # the installation's own rows

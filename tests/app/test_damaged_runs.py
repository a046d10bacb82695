"""Run folders in which anything is wrong: the list of runs and the run's own page still open."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from app.actions.runs import listing, tab
from app.services import Services
from hydralora.errors import HydraError
from hydralora.runs.processes import HOST
from hydralora.runs.run import Run
from hydralora.runs.state import Stage, StageClock
from tests.conftest import FinishedRun
from tests.fuzz.mutations import HOSTILE, other_value

TEXTS = ("", "{", "[" * 50_000, "null", "[]", '"text"', "\0", "x: &x [*x]", "\ufeff{}", "9" * 5000)
FILES = ("state.json", "recipe.yaml", "label.json", "events.jsonl", "adapter/adapter_config.json")
MUTATIONS = 40  # of each file


def texts(file: Path, draw: random.Random) -> Iterator[str]:
    """Contents of a file in which something is wrong."""
    yield from TEXTS
    text = file.read_text(encoding="utf-8") if file.exists() else json.dumps({"name": "a", "note": "b", "tags": ["c"]})
    if file.suffix == ".json":
        values = json.loads(text)
        yield from (json.dumps(values | {key: value}) for key in values for value in HOSTILE)
    for _ in range(MUTATIONS):
        if file.suffix == ".yaml":
            yield yaml.safe_dump(other_value(yaml.safe_load(text), draw))
        elif file.suffix == ".jsonl":
            lines = text.splitlines()
            place = draw.randrange(len(lines))
            lines[place] = json.dumps(other_value(json.loads(lines[place]), draw))
            yield "\n".join(lines) + "\n"
        else:
            yield json.dumps(other_value(json.loads(text), draw))
    yield text[: len(text) // 2]


def refused(use: Callable[[], object]) -> str:
    """Why it can't be used; "" if it can."""
    try:
        use()
    except HydraError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "active"), [*((name, False) for name in FILES[1:]), ("state.json", True)])
def test_whatever_is_wrong_in_a_file_the_runs_are_listed(
    name: str, active: bool, finished: FinishedRun, tmp_path: Path
) -> None:
    services = Services(tmp_path)
    run = Run(tmp_path / "runs" / finished.run.id)
    shutil.copytree(finished.run.folder, run.folder)
    if active:
        clock = StageClock(began=1.0, reported=2.0, first=1)
        run.update(state="training", stage=Stage.TRAINING, pid=2**30, host=HOST, clock=clock, progress=(3, 8))
    before = tmp_path / "before"
    shutil.copytree(run.folder, before)
    whole = run.folder.parent / "20990101-000000-0000"
    shutil.copytree(finished.run.folder, whole)
    draw = random.Random(name)
    file = run.folder / name
    try:
        for text in texts(before / name, draw):
            file.write_text(text, encoding="utf-8")
            found = listing.listing(services)
            rows = {row.id: row for row in found.rows}
            assert set(rows) == {run.id, whole.name}, text[:200]
            assert rows[whole.name].state == "finished"
            assert len(found.damaged.get(run.id, "")) < 1500, found.damaged[run.id][:300]
            services.jobs.advance()
            for use in (lambda: tab.view(services, run.id), lambda: list(services.events(run)), run.label):
                assert len(refused(use)) < 1500
    finally:
        services.close()

"""The run to watch: its slice of the demo, and heads that part from one point."""

import json
from collections import Counter
from pathlib import Path

import pytest

from hydralora.analysis import head_spread, read_weights
from hydralora.experiments.sandbox import HELD_OUT, ROWS, STEPS, sandbox_recipe, write_slice
from hydralora.runs.jobs import JobManager
from hydralora.runs.run import Run
from hydralora.runs.snapshots import saved_snapshots
from hydralora.runs.store import RunStore


def test_the_slice_has_as_many_rows_of_each_skill(tmp_path: Path) -> None:
    files = write_slice(tmp_path / "new")
    for file, count in ((files.train, ROWS), (files.heldout, HELD_OUT)):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        assert Counter(row["task"] for row in rows) == dict.fromkeys(
            ("reverse", "classify", "arithmetic", "extract"), count
        )
        assert all(row["question"] and row["answer"] for row in rows)


@pytest.mark.parametrize(("blocks", "chosen"), [(1, [0]), (2, [0, 1]), (30, [28, 29])])
def test_only_the_last_blocks_learn(tmp_path: Path, blocks: int, chosen: list[int]) -> None:
    assert sandbox_recipe("tiny", blocks, write_slice(tmp_path)).tuner.layers_to_transform == chosen


@pytest.fixture(scope="module")
def trained(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    workspace = tmp_path_factory.mktemp("sandbox")
    jobs = JobManager(RunStore(workspace))
    run = jobs.start(sandbox_recipe(str(model_folder), 2, write_slice(workspace / "sandbox")))
    assert jobs.follow(run).state == "finished"
    return run


@pytest.mark.slow
def test_heads_start_as_one_point_and_part(trained: Run) -> None:
    saved = saved_snapshots(trained.snapshots)
    assert (min(saved), max(saved)) == (0, STEPS)
    spreads = [head_spread(read_weights(trained.snapshots, file)) for file in saved.values()]
    assert spreads[0] == [0.0] * 4
    assert all(distance > 0.01 for distance in spreads[-1])
    assert sum(spreads[-1]) > sum(spreads[2]) > 0

"""Computations in processes of their own."""

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.services.processes import in_process
from hydralora import DatasetError, HydraError
from hydralora.components.of_recipe import find_components
from hydralora.data.dataset import read_dataset
from hydralora.data.progress import OnProgress
from hydralora.recipe.settings import ComponentSettings


def whose(number: int, on_progress: OnProgress) -> tuple[int, int]:
    on_progress(number, 10)
    return os.getpid(), number


def counts(number: int, on_progress: OnProgress) -> torch.Tensor:
    return torch.arange(number)


def fails(on_progress: OnProgress) -> None:
    raise DatasetError("no rows")


def dies(on_progress: OnProgress) -> None:
    os._exit(9)


def grows(on_progress: OnProgress) -> None:
    kept = []
    while True:
        kept.append(bytearray(2**20))


def tensors(on_progress: OnProgress) -> None:
    kept = []
    while True:
        kept.append(torch.ones(2**22))


def odd_error(on_progress: OnProgress) -> None:
    raise OddError("what", 2)


class OddError(Exception):
    """An error that can't be copied."""

    def __init__(self, what: str, count: int) -> None:
        super().__init__(f"{count} times {what}")


def sleeps(place: Path, on_progress: OnProgress) -> None:
    place.write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(300)


class Stop(Exception):
    """What a page raises where nobody waits any more."""


def test_it_runs_elsewhere_and_tells_its_progress() -> None:
    told: list[tuple[int, int]] = []
    process, number = in_process(whose, 7, on_progress=lambda *step: told.append(step))
    assert process != os.getpid()
    assert number == 7
    assert (7, 10) in told


def test_a_tensor_outlives_the_process_that_made_it() -> None:
    found = in_process(counts, 5, on_progress=lambda done, total: None)
    assert found.tolist() == [0, 1, 2, 3, 4]


def test_what_goes_wrong_there_is_raised_here() -> None:
    with pytest.raises(DatasetError, match="no rows"):
        in_process(fails, on_progress=lambda done, total: None)
    with pytest.raises(HydraError, match="was ended from outside"):
        in_process(dies, on_progress=lambda done, total: None)


@pytest.mark.parametrize("function", [grows, tensors])
def test_too_much_memory_ends_it_with_a_sentence(function: Callable[..., None]) -> None:
    with pytest.raises(HydraError, match=r"This takes more than 1 GiB of memory"):
        in_process(function, memory=2**30)
    assert in_process(whose, 7, memory=2**30)[1] == 7


def test_any_error_is_raised_here() -> None:
    with pytest.raises(HydraError, match="2 times what"):
        in_process(odd_error)


def test_a_stop_ends_the_process(tmp_path: Path) -> None:
    place = tmp_path / "pid"

    def stop_once_it_runs(done: int, total: int) -> None:
        if place.exists() and place.read_text(encoding="utf-8"):
            raise Stop

    start = time.monotonic()
    with pytest.raises(Stop):
        in_process(sleeps, place, on_progress=stop_once_it_runs)
    assert time.monotonic() - start < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text(encoding="utf-8")), 0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"features": "tfidf"}, {"method": "dbscan"}, {"k": 1}, {"features": "model", "k": 2}],
    ids=lambda settings: " ".join(map(str, settings.values())) or "default",
)
def test_components_can_be_copied_between_processes(
    settings: dict[str, Any], data_file: Path, model_folder: Path
) -> None:
    examples = read_dataset(data_file).examples
    found = find_components(examples, ComponentSettings.model_validate(settings), str(model_folder))
    copy = pickle.loads(pickle.dumps(found))
    assert copy.labels.tolist() == found.labels.tolist()
    assert copy.components == found.components
    texts = [example.question for example in examples]
    assert copy.assign([*texts, "something new"]) == found.assign([*texts, "something new"])

"""The run that ships with the app: there from the first start, used as any other, and read-only."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.__main__ import restore_if_possible
from app.actions.explore import trajectory
from app.actions.run_choices import newest_run, run_choices
from app.actions.runs import listing, tab
from app.services import Services
from hydralora import RunError, RunStore
from hydralora.data.store import DEMO
from hydralora.experiments.studies import study_label
from hydralora.runs.run import SHIPPED_ID
from hydralora.runs.shipped import restore_shipped_run


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = Services(tmp_path)
    restore_if_possible(services.store)
    yield services
    services.close()


def test_a_new_workspace_opens_on_it(services: Services) -> None:
    assert [run_id for _, run_id in run_choices(services)] == [SHIPPED_ID]
    assert newest_run(services) == SHIPPED_ID
    of_study = services.store.create(services.run(SHIPPED_ID).recipe(), study_label("mine-0a1b", "one", "Mine"))
    assert newest_run(services) == SHIPPED_ID  # the page doesn't open on one of a study's many runs
    services.store.delete(of_study)


def test_it_is_in_the_table_with_its_name_and_its_scores(services: Services) -> None:
    (row,) = listing.listing(services).rows
    assert (row.id, row.name, row.state) == (SHIPPED_ID, "Demo, 4 heads", "finished")
    assert row.curve[-1] < row.curve[0]
    assert "hydralora gallery build" in tab.view(services, SHIPPED_ID).note


def test_it_can_be_neither_deleted_nor_renamed(services: Services) -> None:
    with pytest.raises(RunError, match="ships with the program"):
        tab.delete(services, SHIPPED_ID)
    with pytest.raises(RunError, match="ships with the program"):
        tab.label(services, SHIPPED_ID, "mine", "", "")
    assert tab.view(services, SHIPPED_ID).name == "Demo, 4 heads"


def test_its_settings_are_those_of_a_run_on_the_demo(services: Services) -> None:
    keys = ["start_from", "tuner.r", "tuner.num_heads", "tuner.layers_to_transform", "tuner.target_modules"]
    keys += ["tuner.router_entropy", "tuner.lora_alpha", "training.learning_rate", "training.snapshots"]
    copied = tab.settings(services, SHIPPED_ID, [*keys, "training.threads"])
    assert (copied.dataset, copied.lost) == (DEMO, [])
    assert tab.continuing(services, SHIPPED_ID, keys).values[:3] == [SHIPPED_ID, 4, 4]


def test_its_heads_can_be_watched_over_training(services: Services) -> None:
    _, kind = trajectory.modules(services, SHIPPED_ID)[-1]
    *_, last = trajectory.view(services, SHIPPED_ID, kind, "pca")
    assert last.figures


def test_the_app_starts_without_it_where_its_files_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hydralora.runs.shipped.shipped_folder", lambda name: tmp_path / "missing")
    restore_if_possible(RunStore(tmp_path))
    assert "The app starts without the run that ships with it." in capsys.readouterr().err
    with pytest.raises(RunError, match="Install the program again"):
        restore_shipped_run(RunStore(tmp_path))

"""Finished studies that ship: they are what their studies declare, and their tables are what their runs gave."""

from statistics import fmean

import pytest

from hydralora.data.demo import shipped_data
from hydralora.experiments.studies.shipped import ShippedStudy, shipped_studies
from hydralora.experiments.studies.study import BASE, find_study


@pytest.fixture(params=sorted(shipped_studies()))
def shipped(request: pytest.FixtureRequest) -> ShippedStudy:
    return shipped_studies()[request.param]


def test_it_is_the_study_that_is_declared_on_data_that_ship(shipped: ShippedStudy) -> None:
    name, declared = find_study(shipped.file.name)
    measured = {"measures": ()}  # a study that measures more since then is still the same
    assert shipped.file.study.model_copy(update=measured) == declared.model_copy(update=measured)
    assert set(shipped.file.study.measures) <= set(declared.measures)
    assert shipped.report.ended
    found = shipped_data(shipped.file.settings.data)
    assert found is not None
    assert all(path.is_file() for path in found if path)
    assert f"study run {name} --data {shipped.file.settings.data}" in shipped.command


def test_its_table_is_the_mean_of_its_runs(shipped: ShippedStudy) -> None:
    for line in shipped.report.table:
        if line.arm != BASE:
            losses = [cell.measures["loss"] for cell in shipped.report.cells if cell.arm == line.arm]
            assert len(losses) == shipped.file.settings.seeds
            assert line.measures["loss"].mean == pytest.approx(fmean(losses))
    assert not any(cell.run for cell in shipped.report.cells)  # they stay where they were made

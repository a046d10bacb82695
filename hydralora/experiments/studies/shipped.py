"""Finished studies that are part of the package: their reports, without their runs."""

from functools import cache
from typing import Literal

from hydralora.data.demo import shipped_folder
from hydralora.experiments.studies.report import Report
from hydralora.experiments.studies.running import StudyFile
from hydralora.runs.records import Record


class ShippedStudy(Record):
    """A study that was run elsewhere.

    Attributes:
        machine: on which.
    """

    version: Literal[1] = 1
    id: str
    file: StudyFile
    report: Report
    machine: str

    @property
    def command(self) -> str:
        """By which it can be repeated."""
        settings = self.file.settings
        changes = "".join(f" --set {key}={value}" for key, value in settings.recipe.items())
        size = f"--seeds {settings.seeds}" + (f" --steps {settings.steps}" if settings.steps else "")
        return f"hydralora study run {self.file.name} --data {settings.data} {size}{changes}"


@cache
def shipped_studies() -> dict[str, ShippedStudy]:
    """By id, in their order."""
    files = sorted(shipped_folder("studies").glob("*.json"))
    studies = [ShippedStudy.model_validate_json(file.read_bytes()) for file in files]
    return {study.id: study for study in studies}

"""The app's services on a workspace that has a finished run of a tiny model."""

import pytest

from app.services import Services
from tests.conftest import FinishedRun


@pytest.fixture(scope="session")
def services(finished: FinishedRun) -> Services:
    return Services(finished.store.workspace)

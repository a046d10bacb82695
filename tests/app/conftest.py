"""The app's services on a workspace that has a finished run of a tiny model."""

from collections.abc import Iterator

import pytest

from app.services import Services
from tests.conftest import FinishedRun


@pytest.fixture(scope="session")
def services(finished: FinishedRun) -> Iterator[Services]:
    services = Services(finished.store.workspace)
    yield services
    services.close()

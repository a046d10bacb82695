"""The app's services on a workspace that has a finished run of a tiny model."""

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.services import Services
from app.teaching import routes
from hydralora.runs.shipped import restore_shipped_run
from tests.conftest import FinishedRun


@pytest.fixture(scope="session")
def services(finished: FinishedRun) -> Iterator[Services]:
    services = Services(finished.store.workspace)
    yield services
    services.close()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """A workspace with the run that ships alone."""
    services = Services(tmp_path_factory.mktemp("shipped"))
    restore_shipped_run(services.store)
    yield services
    services.close()


@pytest.fixture
def client(shipped: Services) -> TestClient:
    """For the routes of teaching, over that workspace."""
    return TestClient(Starlette(routes=routes(shipped, "127.0.0.1")), base_url="http://127.0.0.1:7860")

"""The page as a whole: it builds, and nothing of it is a public endpoint."""

from app.forms import values
from app.services import Services
from app.ui import build
from hydralora.figures.palette import HEAD_COLOURS, HEAD_MARKS


def test_the_page_builds_without_public_endpoints(services: Services) -> None:
    page = build(services)
    assert not page.analytics_enabled
    named = [fn.api_name for fn in page.fns.values() if fn.api_visibility == "public" and fn.fn is not None]
    assert named == []


def test_zero_in_an_optional_number_is_none() -> None:
    assert values(["tuner.num_heads", "training.seed"], [0, 0]) == {"tuner.num_heads": None, "training.seed": 0}


def test_heads_differ_by_colour_and_by_mark() -> None:
    assert len(set(HEAD_COLOURS)) == len(set(HEAD_MARKS)) == 8

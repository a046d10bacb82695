"""A lecture as a page: all of it as data, nothing as markup, and the numbers that were given."""

import json
from pathlib import Path

import pytest

from hydralora.errors import ConfigError
from hydralora.figures import LectureScreen, loss, write_lecture
from hydralora.runs.events import TrainEvent

BAD = "</script><img src=x onerror='window.hacked = 1'>"


def screens() -> list[LectureScreen]:
    events = [TrainEvent(step=i, time=0.0, loss=1 / i) for i in range(1, 5)]
    return [
        LectureScreen("loss", "train", BAD, BAD, figure=loss(events)),
        LectureScreen("data", "data", "Rows", "", table=(("task", BAD), ("a", "SCRIPT PLOTLY TITLE"))),
    ]


def test_texts_are_data_alone_and_come_back_as_they_were(tmp_path: Path) -> None:
    write_lecture(tmp_path / "lecture.html", BAD, screens())
    text = (tmp_path / "lecture.html").read_text(encoding="utf-8")
    assert "<img" not in text
    data = text.partition('<script id="screens" type="application/json">')[2].partition("</script>")[0]
    first, second = json.loads(data)
    assert (first["title"], first["caption"]) == (BAD, BAD)
    assert second["table"] == [["task", BAD], ["a", "SCRIPT PLOTLY TITLE"]]
    assert second["figure"] is None
    assert first["figure"]["data"]


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    write_lecture(tmp_path / "lecture.html", "A lecture", screens())
    head = (tmp_path / "lecture.html").read_text(encoding="utf-8").partition("<script")[0]
    assert "http" not in head
    assert "src=" not in head
    assert "href=" not in head


def test_a_lecture_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no pictures"):
        write_lecture(tmp_path / "lecture.html", "A lecture", [])
    with pytest.raises(ConfigError, match="can't be written"):
        write_lecture(tmp_path / "none" / "lecture.html", "A lecture", screens())

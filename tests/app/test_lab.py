"""The Lab page: what may be uploaded, what a study takes, and how it is carried on, stopped and shown."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.actions.lab import cards, plan, study
from app.services import Services
from app.services.studies import WATCHED_SECONDS, Studies
from app.teaching import routes
from hydralora.errors import ConfigError, HydraError
from hydralora.experiments.studies.cells import Settings
from hydralora.experiments.studies.running import RunningStudy, Status, all_studies, begin_study
from hydralora.experiments.studies.shipped import shipped_studies
from hydralora.experiments.studies.study import Study, declared_studies
from hydralora.runs.run import Run
from tests.conftest import FinishedRun
from tests.known import known

SCRIPT = "<script>hacked()</script>"
OWN: dict[str, Any] = {
    "title": f"Mine {SCRIPT}",
    "question": "Is two better than one?",
    "reference": "one",
    "recipe": {"training.threads": 1},
    "arms": {"one": {"settings": {"method": "lora", "tuner.r": 2}}, SCRIPT: {"settings": {"tuner.num_heads": 2}}},
    "tune": {"values": [1e-3, 1e-2]},
}
SMALL = plan.Size(2, 10, 4, [])


@pytest.fixture
def lab(tmp_path: Path, model_folder: Path, data_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """A workspace with a tiny base model, in which nothing trains: runs stay queued."""
    workspace = tmp_path / "workspace"
    (workspace / "models").mkdir(parents=True)
    (workspace / "models" / "tiny").symlink_to(model_folder)
    services = Services(workspace)
    monkeypatch.setattr(services.jobs, "advance", lambda: None)
    yield services
    services.close()


@pytest.fixture
def dataset(lab: Services, data_file: Path) -> str:
    return lab.datasets.add([data_file]).id


@pytest.fixture
def own(lab: Services, tmp_path: Path) -> Callable[..., str]:
    """Uploads a study; returns the name of its card."""

    def upload(text: str = "", **changes: Any) -> str:
        path = tmp_path / "My study.yaml"
        path.write_text(text or yaml.safe_dump(OWN | changes, sort_keys=False), encoding="utf-8")
        return cards.upload(lab, str(path))

    return upload


def price(services: Services, name: str, dataset_id: str, size: plan.Size = SMALL) -> plan.Cost:
    *_, cost = plan.cost(services, name, dataset_id, "tiny", size)
    assert isinstance(cost, plan.Cost)
    return cost


@pytest.fixture
def begun(lab: Services, own: Callable[..., str], dataset: str) -> str:
    name = own()
    return plan.begin(lab, name, dataset, "tiny", SMALL, price(lab, name, dataset).key)


def end(services: Services, study_id: str, finished: FinishedRun, **losses: float) -> None:
    """End all queued runs of a study; those of arms without a loss fail."""
    results = known(finished.run.state().results)
    for cell, run in services.studies.get(study_id).cells()[1]:
        if run is None or not run.state().is_active:
            continue
        if loss := losses.get(cell.arm):
            tuned = known(results.tuned).changed(loss=loss + 0.01 * loss * cell.seed)
            run.update(state="finished", results=results.changed(tuned=tuned))
        else:
            run.update(state="failed", message="no reason")


def runs(services: Services) -> list[Run]:
    return services.store.all()


def test_each_study_that_ships_has_a_card(lab: Services) -> None:
    offered = cards.cards(lab, "ablations")
    assert [card["name"] for card in offered["cards"]] == list(declared_studies())
    assert offered["chosen"] == "ablations"
    assert all(card["question"].endswith("?") for card in offered["cards"])
    by_name = {card["name"]: card["thumbnail"] for card in offered["cards"]}
    paper = by_name["rank-and-split"]
    assert paper["about"] == "Paper: MMLU (%)"
    assert dict(paper["points"])["rank 8"] == 43.22
    assert {name: bool(shown["points"]) for name, shown in by_name.items() if name.startswith(("does", "number"))} == {
        "does-routing-pay": True,  # a finished one ships
        "number-of-heads": False,
    }
    noisy = by_name["noisy-answers"]  # nothing measured yet: what it runs
    assert (len(noisy["arms"]), noisy["across"]) == (3, 4)
    assert noisy["about"] == "Nothing measured yet; each arm is run at 4 points"
    assert cards.cards(lab, "absent")["chosen"] == ""
    assert [each["id"] for each in cards.begun(lab)] == list(shipped_studies())


@pytest.mark.parametrize("name", shipped_studies())
def test_a_finished_study_that_ships_opens_at_once(lab: Services, name: str) -> None:
    shown = study.view(lab, name)
    assert shown.words.ended
    assert shown.words.verdict == shipped_studies()[name].report.verdict
    assert shown.pictures.measured
    assert "hydralora study run" in shown.words.status
    rows = known(shown.words.table)["rows"]
    assert {len(row["seeds"]) for row in rows if row["arm"] != "base model"} == {5}
    assert "oracle" not in study.table_file(lab, name).read_text(encoding="utf-8")  # arms have names for people
    assert shown.title in study.page_file(lab, name).read_text(encoding="utf-8")


def test_an_uploaded_study_may_change_the_rows(lab: Services, own: Callable[..., str]) -> None:
    name = own(axes={"rows.exchanged": [0, 0.5]})
    assert cards.find_study(lab, name).axes == {"rows.exchanged": [0, 0.5]}


def test_an_uploaded_study_is_kept_and_offered(lab: Services, own: Callable[..., str], tmp_path: Path) -> None:
    assert own() == "my-study"
    last = cards.cards(lab, "my-study")["cards"][-1]
    assert (last["title"], last["own"]) == (OWN["title"], True)
    other = Services(lab.store.workspace)  # the app, started again
    assert cards.find_study(other, "my-study").arms.keys() == OWN["arms"].keys()
    other.close()
    clash = tmp_path / "ablations.yaml"
    clash.write_text(yaml.safe_dump(OWN), encoding="utf-8")
    assert cards.upload(lab, str(clash)) == "ablations-own"  # the one that ships stays
    (cards.study_files(lab) / "damaged.yaml").write_text("title: [", encoding="utf-8")
    assert "damaged" not in {card["name"] for card in cards.cards(lab, "")["cards"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "three"}, "reference names 'three'"),
        ({"recipe": {"data.train": "/etc/passwd"}}, "it sets 'data.train'"),
        ({"recipe": {"start_from": "/tmp/adapter"}}, "it sets 'start_from'"),
        ({"recipe": {"launch.executor": "slurm"}}, "it sets 'launch.executor'"),
        ({"axes": {"model": ["/tmp/model"]}}, "it sets 'model'"),
        ({"arms": {"one": {}, "two": {"settings": {"data.eval": "x"}}}}, "it sets 'data.eval'"),
        ({"tune": {"setting": "model", "values": ["/tmp/model"]}}, "it sets 'model'"),
        ({"recipe": {"components.sentence_model": "/tmp/model"}}, "it sets 'components.sentence_model'"),
        ({"recipe": {"training.benchmarks": ["mmlu"]}}, "it sets 'training.benchmarks'"),  # fetched from elsewhere
        ({"axes": {"training.report_to": [["wandb"]]}}, "it sets 'training.report_to'"),
    ],
)
def test_what_an_uploaded_study_may_not_say_is_named(
    lab: Services, own: Callable[..., str], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        own(**changes)
    assert len(cards.cards(lab, "")["cards"]) == len(declared_studies())


def test_a_file_is_bounded(own: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match=r"has 70,\d+ bytes; a study has at most 65,536"):
        own(yaml.safe_dump(OWN) + "#" * 70_000)
    bomb = "x0: &x0 [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    with pytest.raises(ConfigError, match=r"with its aliases .* more than 100,000 values"):
        own(bomb)
    with pytest.raises(ConfigError, match="can't be read as YAML"):
        own("a: [")


def test_a_price_is_told_before_anything_is_kept_or_started(
    lab: Services, own: Callable[..., str], dataset: str
) -> None:
    steps = list(plan.cost(lab, own(), dataset, "tiny", SMALL))
    assert all(isinstance(step, str) for step in steps[:-1])
    cost = steps[-1]
    assert isinstance(cost, plan.Cost)
    assert "8 runs, 8 still to be done: about" in cost.sentence  # 2 arms x 2 values, and 2 arms x 2 seeds
    assert cost.sentence.startswith("tiny, as chosen in Train, on rows.jsonl")
    assert cost.button.startswith("Start 8 runs, about")
    assert [line[1] for line in cost.lines] == [2, 2, 2, 2]
    assert (all_studies(lab.jobs), runs(lab)) == ([], [])
    one = price(lab, "my-study", dataset, plan.Size(1, 10, 4, ["one"]))
    assert "3 runs" in one.sentence
    assert "One seed is for a look" in one.sentence
    with pytest.raises(ConfigError, match="Seeds: Input should be greater than or equal to 1"):
        price(lab, "my-study", dataset, plan.Size(None, 10, 4, []))
    with pytest.raises(HydraError, match="Choose another card"):
        price(lab, "../secrets", dataset)


def test_only_what_was_priced_is_started(lab: Services, own: Callable[..., str], dataset: str) -> None:
    name = own()
    key = price(lab, name, dataset).key
    with pytest.raises(ConfigError, match="have just changed"):
        plan.begin(lab, name, dataset, "tiny", plan.Size(3, 10, 4, []), key)
    assert all_studies(lab.jobs) == []
    begun = plan.begin(lab, name, dataset, "tiny", SMALL, key)
    assert plan.begin(lab, name, dataset, "tiny", SMALL, key) == begun


def test_a_dataset_with_a_mapping_becomes_one_file(
    lab: Services, own: Callable[..., str], data_file: Path, tmp_path: Path
) -> None:
    second = tmp_path / "more.jsonl"
    second.write_text('{"instruction": "one more", "output": "row"}\n', encoding="utf-8")
    both = lab.datasets.add([data_file, second]).id
    begun = plan.begin(lab, own(), both, "tiny", SMALL, price(lab, "my-study", both).key)
    settings = lab.studies.get(begun).file.settings
    assert len(Path(settings.data).read_text(encoding="utf-8").splitlines()) == 49
    assert Path(settings.data).parent == cards.study_files(lab)


def test_a_study_goes_on_from_phase_to_phase_until_it_ends(lab: Services, begun: str, finished: FinishedRun) -> None:
    before = study.view(lab, begun)
    assert (before.words.status, before.words.table) == (study.PREPARING, None)
    assert runs(lab) == []  # they are planned in a thread of their own
    lab.studies.advance()
    assert len(runs(lab)) == 4
    words = study.view(lab, begun).words
    assert "Choosing each arm's setting: 0 of 8 runs done" in words.status
    table = known(words.table)
    assert [[dot["state"] for dot in row["seeds"]] for row in table["rows"]] == [["missing"] * 2] * 2
    assert all(dot["run"] for row in table["rows"] for dot in row["tried"])
    assert known(words.bar)["place"] == "Phase 1 of 2"
    end(lab, begun, finished, **{"one": 1.0, SCRIPT: 0.5})
    lab.studies.advance()
    lab.studies.advance()
    assert len(runs(lab)) == 8
    assert study.view(lab, begun).pictures.tried
    assert study.view(lab, begun).pictures.measured == ""
    end(lab, begun, finished, **{"one": 1.0, SCRIPT: 0.5})
    lab.studies.advance()
    lab.studies.advance()
    ended = study.view(lab, begun)
    assert ended.words.status == "Finished: 8 runs."
    assert (ended.words.ended, ended.words.going, ended.words.bar) == (True, 0, None)
    assert "95 % interval" in ended.words.verdict
    assert ended.pictures.measured
    row = known(ended.words.table)["rows"][1]
    assert row["arm"] == SCRIPT
    assert any("-0.5" in cell for cell in row["cells"])
    assert not lab.studies.is_carried_on(begun)
    assert cards.begun(lab)[0]["about"].endswith("8 of 8 runs finished")


def test_a_failed_arm_is_named(lab: Services, begun: str, finished: FinishedRun) -> None:
    lab.studies.advance()
    end(lab, begun, finished, one=1.0)
    lab.studies.advance()
    study.view(lab, begun)
    lab.studies.advance()
    failed = study.view(lab, begun).words.failed
    assert f"{SCRIPT}, trying 0.001, seed 0: no reason" in failed


def test_a_stop_is_obeyed_and_what_was_stopped_goes_on(lab: Services, begun: str, finished: FinishedRun) -> None:
    study.stop(lab, begun)  # before the first run is there
    lab.studies.advance()
    assert runs(lab) == []
    study.go_on(lab, begun)
    lab.studies.advance()
    assert len(runs(lab)) == 4
    study.stop(lab, begun)
    assert not any(run.state().is_active for run in runs(lab))
    lab.studies.advance()
    words = known(study.view(lab, begun).words)
    lab.studies.advance()
    words = study.view(lab, begun).words
    assert words.status.startswith("Stopped: 0 of 8 runs done")
    assert words.resumable
    study.go_on(lab, begun)
    lab.studies.advance()
    assert all(run.state().is_active for run in runs(lab))


def test_a_study_is_carried_on_when_the_app_starts_again(
    lab: Services, begun: str, finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.studies.advance()
    end(lab, begun, finished, **{"one": 1.0, SCRIPT: 0.5})
    again = Services(lab.store.workspace)
    monkeypatch.setattr(again.jobs, "advance", lambda: None)
    again.studies.advance()
    assert len(runs(again)) == 8
    again.close()


def test_one_that_a_command_runs_is_shown_and_left_alone(lab: Services, data_file: Path, model_folder: Path) -> None:
    settings = Settings(data=str(data_file), model=str(model_folder), seeds=1, steps=10)
    running = begin_study(lab.jobs, "theirs", Study.model_validate(OWN), settings)
    study.view(lab, running.id)
    lab.studies.advance()
    assert runs(lab) == []
    assert study.view(lab, running.id).words.status.startswith("Stopped")


def test_what_is_in_the_way_is_told_and_can_be_tried_again(lab: Services, begun: str) -> None:
    data = Path(lab.studies.get(begun).file.settings.data)
    content = data.read_bytes()
    data.unlink()
    lab.studies.advance()
    words = study.view(lab, begun).words
    assert data.name in words.status
    assert words.resumable
    data.write_bytes(content)
    study.go_on(lab, begun)
    lab.studies.advance()
    assert "Choosing" in study.view(lab, begun).words.status


def test_one_studys_error_does_not_end_the_others(
    lab: Services, begun: str, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = plan.Size(1, 10, 4, [])
    other = plan.begin(lab, "my-study", dataset, "tiny", size, price(lab, "my-study", dataset, size).key)
    right = RunningStudy.status

    def status(self: RunningStudy) -> Status:
        if self.id == begun:
            raise ZeroDivisionError("by chance")
        return right(self)

    monkeypatch.setattr(RunningStudy, "status", status)
    lab.studies.advance()
    assert study.view(lab, begun).words.status == "ZeroDivisionError: by chance"
    assert lab.studies.is_carried_on(other)
    assert len(runs(lab)) == 4


def test_only_studies_that_are_looked_at_are_followed(lab: Services, begun: str) -> None:
    now = [0.0]
    studies = Studies(lab.jobs, clock=lambda: now[0])
    lab.studies.stop(begun)
    assert studies.now(begun) is None
    studies.advance()
    first = studies.now(begun)
    studies.advance()
    second = studies.last(begun)
    assert first is not None
    assert second is not first
    now[0] = WATCHED_SECONDS + 1
    studies.advance()
    assert studies.last(begun) is second


@pytest.mark.parametrize("study_id", ["absent", "..", "../runs", "", "a/b"])
def test_an_id_is_checked(lab: Services, study_id: str) -> None:
    (lab.store.workspace / "studies").mkdir(exist_ok=True)
    for action in (study.stop, study.go_on, study.page_file, study.table_file):
        with pytest.raises(HydraError, match="There is no"):
            action(lab, study_id)


def test_a_report_is_served_as_a_page_and_as_a_table(lab: Services, begun: str, finished: FinishedRun) -> None:
    for _ in range(2):
        lab.studies.advance()
        end(lab, begun, finished, **{"one": 1.0, SCRIPT: 0.5})
    lab.studies.advance()
    client = TestClient(Starlette(routes=routes(lab, "127.0.0.1")))
    page = client.get(f"/studio/studies/{begun}/report.html")
    assert page.status_code == 200
    assert page.headers["content-disposition"].startswith("attachment")
    assert "Mine &lt;script&gt;" in page.text
    table = client.get(f"/studio/studies/{begun}/report.csv").text
    assert table.startswith("kind,arm,")
    assert client.get("/studio/studies/absent/report.csv").status_code == 404


def test_what_has_finished_has_no_price(lab: Services, begun: str, dataset: str, finished: FinishedRun) -> None:
    for left in (8, 4, 0):
        cost = price(lab, "my-study", dataset)
        assert f"8 runs, {left} still to be done" in cost.sentence
        lab.studies.advance()
        end(lab, begun, finished, **{"one": 1.0, SCRIPT: 0.5})
    assert cost.button == "Show what was found"


def test_a_finished_study_is_its_cards_figure(lab: Services, begun: str, finished: FinishedRun) -> None:
    for _ in range(3):
        lab.studies.advance()
        end(lab, begun, finished, **{"one": 1.0, SCRIPT: 0.5})
    lab.studies.advance()
    thumbnail = cards.cards(lab, "")["cards"][-1]["thumbnail"]
    assert thumbnail["about"] == "Here: loss (nats per token)"
    assert dict(thumbnail["points"]) == {"one": pytest.approx(1.005), SCRIPT: pytest.approx(0.5025)}

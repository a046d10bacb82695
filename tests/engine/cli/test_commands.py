"""The `hydralora` command: one JSON object on stdout, everything else on stderr, and the exit codes."""

import csv
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from typer.testing import CliRunner, Result

from hydralora import RunStore
from hydralora.cli.options import app
from hydralora.data.dataset import read_dataset
from hydralora.data.demo import demo_file
from hydralora.recipe.settings import Recipe
from hydralora.runs.jobs import JobManager
from hydralora.runs.scores import Score
from tests.conftest import FinishedRun
from tests.known import known

LLAMA2_7B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


def hydralora(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def printed(*arguments: str | Path) -> dict[str, Any]:
    """What a command prints with --json, after a check of its form."""
    result = hydralora(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    value = json.loads(result.stdout, parse_constant=pytest.fail)
    assert isinstance(value, dict)
    assert value["version"] == 1
    return value


@pytest.fixture(scope="module")
def llama2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama2")
    (folder / "config.json").write_text(json.dumps(LLAMA2_7B), encoding="utf-8")
    return folder


def test_models() -> None:
    rows = printed("models")["models"]
    assert all({"id", "source", "licence", "parameters", "folder", "ready", "hash"} <= set(row) for row in rows)
    assert "SmolLM2-135M-Instruct" in hydralora("models").stdout


def test_params_of_llama2_7b(llama2: Path) -> None:
    options = ("--r", "8", "--heads", "3", "--targets", "q_proj,v_proj", "--router", "latent")
    counts = printed("params", llama2, *options)
    base, adapter, router = 6_738_415_616, 8_388_608, 1_536
    assert counts == {
        "version": 1,
        "base": base,
        "adapter": adapter,
        "router": router,
        "total": adapter + router,
        "percent": 100 * adapter / base,
        "percent_with_router": 100 * (adapter + router) / base,
    }
    assert "8,388,608" in hydralora("params", llama2, *options).stdout


def test_params_of_a_hidden_router_and_of_a_lora(llama2: Path) -> None:
    targets = ("--targets", "q_proj,v_proj")
    assert printed("params", llama2, *targets, "--router", "hidden")["router"] == 64 * 3 * 4096
    lora = printed("params", llama2, *targets, "--method", "lora")
    assert (lora["adapter"], lora["router"]) == (64 * 8 * (4096 + 4096), 0)


def test_data(model_folder: Path, tmp_path: Path) -> None:
    rows = [{"ask": f"number {i}", "say": "yes " * i, "kind": "ab"[i % 2]} for i in range(1, 41)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([*map(json.dumps, rows), "{", json.dumps(rows[3])]), encoding="utf-8")
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("question: ask\nanswer: say\ntask: kind\n", encoding="utf-8")
    saved, report = tmp_path / "saved.yaml", tmp_path / "problems.csv"
    options = ("--mapping", mapping, "--save-mapping", saved, "--problems", report)
    model = ("--model", model_folder, "--max-length", "100")
    found = printed("data", file, *options, *model)
    assert (found["rows"], found["usable"], found["shape"], found["columns"]) == (
        42,
        40,
        "columns",
        ["ask", "say", "kind"],
    )
    assert found["mapping"] == dict.fromkeys(("context", "messages", "text")) | {
        "question": "ask",
        "answer": "say",
        "task": "kind",
    }
    assert saved.read_text(encoding="utf-8") == "question: ask\nanswer: say\ntask: kind\n"
    assert {"row", "column", "kind", "found", "wanted"} <= set(found["problems"][0])
    assert [problem["row"] for problem in found["problems"][:2]] == [41, 42]
    too_long = found["tokens"]["by_kind"]["too-long"]
    assert 0 < too_long == len(found["problems"]) - 2
    assert found["by_kind"] == {"broken-row": 1, "duplicate": 1, "too-long": too_long}
    assert len(list(csv.reader(report.read_text(encoding="utf-8").splitlines()))) == 1 + len(found["problems"])
    shown = hydralora("data", file, *options, *model).stdout
    assert shown.startswith("40 of 42 rows can be used\n")
    assert "rows.jsonl, row 42: it is the same as row 4." in shown


def test_data_without_a_model_counts_no_tokens(data_file: Path) -> None:
    assert printed("data", data_file)["tokens"] is None  # the default model is not in the tests' cache
    assert hydralora("data", data_file, "--model", "no/such-model").exit_code == 1


def test_clusters_say_which_rows_have_no_component(tmp_path: Path) -> None:
    rows = [{"instruction": f"{word} {i}", "output": "x"} for i in range(4) for word in ("red apple", "fast car")]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(["{", *map(json.dumps, rows)]), encoding="utf-8")
    labels = printed("clusters", file, "--k", "2")["labels"]
    assert labels[0] is None
    assert len(labels) == 9
    assert set(labels[1:]) == {0, 1}


def test_clusters() -> None:
    found = printed("clusters", demo_file("train"))
    rows = len(read_dataset(demo_file("train")).examples)
    assert (found["k"], found["method"], found["features"]) == (4, "kmeans", "tfidf-svd")
    assert (found["trials"], found["noise"]) == ([], 0)
    assert found["choice"]["k"] == 4
    assert found["choice"]["grade"] == "sure"
    assert found["overlap"]["ari"] > 0.9
    assert len(found["labels"]) == rows
    assert set(found["labels"]) == {0, 1, 2, 3}
    assert found["sizes"] == [found["labels"].count(i) for i in range(4)]
    assert [k for k, _ in found["sse"]] == list(range(1, 21))
    assert [component["size"] for component in found["components"]] == found["sizes"]
    assert all({"id", "name", "size", "terms"} <= set(component) for component in found["components"])


def test_clusters_of_a_given_number(data_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    found = printed("clusters", data_file, "--k", "2", "--features", "tfidf", "--seed", "3", "--out", out)
    assert (found["k"], found["method"], sorted(found["sizes"])) == (2, "fixed", [24, 24])
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["component"]) for row in rows] == found["labels"]
    assert {row["task"] for row in rows} == {"fruit", "tool"}
    printed("clusters", data_file, "--k", "2", "--out", tmp_path / "rows.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert table.column("row").to_pylist() == list(range(1, 49))
    shown = hydralora("clusters", data_file, "--k", "2").stdout
    assert shown.startswith("2 components in 48 rows")


def test_clusters_by_density_by_a_models_states_and_in_trials(data_file: Path, model_folder: Path) -> None:
    dense = printed("clusters", data_file, "--method", "dbscan")
    assert dense["method"] == "dbscan"
    assert dense["noise"] == dense["labels"].count(-1)
    states = printed("clusters", data_file, "--features", "model", "--model", model_folder, "--k", "2")
    assert sum(states["sizes"]) == 48
    tried = dict(printed("clusters", data_file, "--k", "2", "--trials", "2")["trials"])
    assert {"kmeans", "silhouette", "dbscan"} <= set(tried)
    assert all(len(numbers) == 2 for numbers in tried.values())


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "magic"),
        ("--features", "magic"),
        ("--text", "magic"),
        ("--method", "fixed"),
        ("--method", "dbscan", "--k", "3"),
        ("--language", "xx"),
        ("--out", "rows.docx"),
        ("--k", "1000"),
    ],
)
def test_clusters_refuse_what_they_cannot_do(options: tuple[str, ...], data_file: Path) -> None:
    result = hydralora("clusters", data_file, *options)
    assert result.exit_code == 1
    assert "error:" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_finished_run_cannot_be_resumed(finished: FinishedRun) -> None:
    result = hydralora("resume", finished.run.id, "--workspace", finished.store.workspace)
    assert result.exit_code == 1
    assert f"run error: Run {finished.run.id} is finished, so there is nothing to resume." in result.stderr


@pytest.mark.slow
def test_a_stopped_run_is_resumed_in_the_terminal(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    run = JobManager(store).start(make_recipe(max_steps=400, save_every=2))
    while not run.newest_checkpoint():
        time.sleep(0.05)
    run.request_stop()
    assert JobManager(store).follow(run).state == "stopped"
    stopped = run.state().step
    assert 2 <= stopped < 400
    told = printed("resume", run.id, "--workspace", tmp_path)
    assert (told["run"], told["step"]) == (run.id, stopped)
    printed("stop", run.id, "--workspace", tmp_path)
    assert JobManager(store).follow(run).step >= stopped


def test_runs_show_and_stop(finished: FinishedRun) -> None:
    where = ("--workspace", finished.store.workspace)
    kept = json.loads((finished.run.folder / "state.json").read_text(encoding="utf-8"))
    assert finished.run.state().values() == kept
    assert printed("runs", *where)["runs"] == [kept]
    assert printed("show", finished.run.id, *where) == kept
    assert printed("show", finished.run.folder) == kept
    assert finished.run.id in hydralora("runs", *where).stdout
    assert "No runs yet" in hydralora("runs").stdout


def test_runs_are_compared_by_group_and_with_their_base(finished: FinishedRun) -> None:
    command = ("compare", finished.run.id, finished.run.id, "--workspace", finished.store.workspace)
    found = printed(*command)
    assert {"differences", "results"} <= set(found)
    row, results = found["results"][0], known(finished.run.state().results)
    energy = known(results.energy_kwh)
    assert row["energy_parts_kwh"] == {part: energy[part] for part in ("cpu", "gpu", "ram")}
    shown = hydralora(*command).stdout
    before, after = known(results.base), known(results.tuned)
    pairs: dict[str, tuple[Score, Score]] = {
        "task fruit": (before.per_task["fruit"], after.per_task["fruit"]),
        "component 0": (before.per_component["0"], after.per_component["0"]),
        "all rows": (before, after),
    }
    for name, (base, tuned) in pairs.items():
        (line, _) = [line for line in shown.splitlines() if line.startswith(name)]
        assert f"loss {base.loss:.4f} -> {tuned.loss:.4f}" in line
        assert f"exact match {base.exact_match:.1%} -> {tuned.exact_match:.1%}" in line
    assert f"CPU {energy['cpu']:.6f}" in shown


def test_export_and_import(finished: FinishedRun, model_folder: Path, tmp_path: Path) -> None:
    here = ("--workspace", finished.store.workspace)
    file = tmp_path / "run.zip"
    told = printed("export", finished.run.id, "--out", file, *here)
    assert told["comparison"].startswith("Read back, it is")
    del told["comparison"]
    exact = {"kl": None, "difference": 0.0, "full_precision": None}
    assert told == {"version": 1, "path": str(file), "bytes": file.stat().st_size} | exact
    plain = printed("export", finished.run.id, "--format", "lora", "--out", tmp_path / "plain", *here)
    assert {"version", "path", "bytes", "kl", "difference"} <= set(plain)
    assert plain["kl"] >= 0
    assert plain["difference"] == pytest.approx(plain["kl"], abs=1e-3)
    assert (tmp_path / "plain" / "adapter_model.safetensors").exists()
    there = ("--model", model_folder, "--workspace", tmp_path / "there")
    taken = printed("import", file, *there)
    assert set(taken) == {"version", "run", "state", "path", "bytes", "kl"}
    assert (taken["state"], taken["bytes"], taken["kl"]) == ("finished", file.stat().st_size, None)
    assert taken["path"] == str(RunStore(tmp_path / "there").get(taken["run"]).folder)
    assert "finished" in hydralora("import", file, *there).stdout


@pytest.mark.parametrize(
    ("command", "kind", "message"),
    [
        (("export", "RUN", "--format", "gguf"), "config", "The format is 'gguf'"),
        (("export", "nothing"), "run", "There is no run"),
        (("import", "DATA"), "run", "no whole zip file"),
        (("import", "missing.zip"), "run", "missing.zip"),
    ],
)
def test_export_and_import_refuse_in_one_line(
    command: tuple[str, ...], kind: str, message: str, finished: FinishedRun, data_file: Path
) -> None:
    places: dict[str, str | Path] = {"RUN": finished.run.id, "DATA": data_file}
    where = ("--workspace", finished.store.workspace)
    result = hydralora(*(places.get(argument, argument) for argument in command), *where, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["kind"] == kind
    assert message in result.stderr.splitlines()[-1]


def test_estimate(make_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(make_recipe().model_dump()), encoding="utf-8")
    command = ("estimate", file, "--set", "training.max_steps=9", "--workspace", tmp_path)
    found = printed(*command)
    assert set(found) == {"version", "seconds", "memory_bytes", "disk_bytes", "steps", "step_seconds"}
    assert found["steps"] == 9
    assert all(found[name] > 0 for name in found)
    assert "for 9 steps" in hydralora(*command).stdout
    assert RunStore(tmp_path).all() == []


def test_a_damaged_run_is_listed(tmp_path: Path, make_recipe: Any) -> None:
    store = RunStore(tmp_path)
    damaged, other = store.create(make_recipe()), store.create(make_recipe())
    (damaged.folder / "state.json").write_text("", encoding="utf-8")
    (other.folder / "recipe.yaml").write_text("", encoding="utf-8")
    listed = {run["id"]: run for run in printed("runs", "--workspace", tmp_path)["runs"]}
    assert {name: run["state"] for name, run in listed.items()} == {damaged.id: "damaged", other.id: "queued"}
    assert list(listed) == sorted(listed, reverse=True)
    assert "state.json" in listed[damaged.id]["message"]
    assert "damaged" in hydralora("runs", "--workspace", tmp_path).stdout


def test_stop_asks_the_worker(tmp_path: Path, make_recipe: Any) -> None:
    run = RunStore(tmp_path).create(make_recipe())
    run.update(state="preparing")
    told = printed("stop", run.id, "--workspace", tmp_path)
    state = printed("show", run.id, "--workspace", tmp_path)
    phase = state.pop("phase")
    assert (phase["number"], phase["count"], phase["name"]) == (1, 9, "starting")
    assert told == state | {"run": run.id, "folder": str(run.folder)}
    assert run.stop_requested
    assert not run.measure_requested
    assert printed("show", run.id, "--workspace", tmp_path)["state"] == "stopping"
    printed("stop", run.id, "--measure", "--workspace", tmp_path)
    assert run.measure_requested


def test_analyze(finished: FinishedRun) -> None:
    where = ("--workspace", finished.store.workspace)
    found = printed("analyze", finished.run.id, *where)
    assert {"groups", "similarity"} <= set(found)
    assert all({"shape", "method", "seed", "points"} <= set(group) for group in found["groups"])
    points = [point for group in found["groups"] for point in group["points"]]
    assert len(points) == 6 * 4
    keys = {"run", "module", "layer", "kind", "head", "x", "y"}
    assert all(set(point) == keys and point["run"] == finished.run.id for point in points)
    assert len(found["similarity"][finished.run.id]) == 6
    wide = printed("analyze", finished.run.id, finished.run.folder, "--dims", "3", "--method", "tsne", *where)
    assert all("z" in point for group in wide["groups"] for point in group["points"])


def test_products_as_a_page(finished: FinishedRun, tmp_path: Path) -> None:
    page = tmp_path / "points.html"
    found = printed("analyze", finished.run.folder, "--products", "--html", page)
    points = [point for group in found["groups"] for point in group["points"]]
    assert len(points) == 6 * 3
    text = page.read_text(encoding="utf-8")
    assert "Plotly.newPlot" in text
    assert not re.search(r"""<(script|link|img|iframe)[^>]+(src|href)=["']?https?:""", text)


def test_chat(finished: FinishedRun) -> None:
    ask = ("chat", finished.run.folder, "--prompt", "name fruit number aa", "--max-new-tokens", "6")
    answer = printed(*ask)
    assert {"text", "modules", "prompt_tokens", "tokens", "adapter_hash", "steering"} <= set(answer)
    assert len(answer["modules"]) == 6
    assert 0 < len(answer["tokens"]) <= 6
    assert answer["text"] == "".join(token["text"] for token in answer["tokens"])
    assert answer["adapter_hash"] == finished.run.state().adapter_hash
    for token in answer["tokens"]:
        assert {"id", "text", "gates"} <= set(token)
        assert len(token["gates"]) == 6
        assert all(len(row) == 3 and math.isclose(sum(row), 1, abs_tol=1e-5) for row in token["gates"])
    assert hydralora(*ask).stdout == answer["text"] + "\n"


def test_a_steered_answer_is_saved_and_replayed(finished: FinishedRun, tmp_path: Path) -> None:
    file, page = tmp_path / "trace.json", tmp_path / "trace.html"
    ask = ("chat", finished.run.folder, "--prompt", "name fruit number aa", "--max-new-tokens", "6")
    answer = printed(*ask, "--pin", "1", "--save", file)
    assert all(row == [0, 1, 0] for token in answer["tokens"] for row in token["gates"])
    again = printed("trace", "replay", file, "--html", page)
    assert again["tokens"] == answer["tokens"]
    assert again["steering"] == answer["steering"]
    assert hydralora("trace", "replay", file).stdout == answer["text"] + "\n"
    assert "name fruit number aa" in page.read_text(encoding="utf-8")
    refused = hydralora("chat", finished.run.folder, "--prompt", "x", "--pin", "7")
    assert refused.exit_code == 1
    assert "config error: Steering: pin names head 7" in refused.stderr


def wrong_recipe(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"model": "x", "data": {"train": "x"}, "modle": 1}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("show", "20250101-000000-abcd"), "run", "There is no run"),
        (("stop", "nothing"), "run", "There is no run"),
        (("chat", "nothing", "--prompt", "x"), "run", "There is no run"),
        (("analyze", "nothing"), "run", "There is no run"),
        (("clusters", "missing.jsonl"), "dataset", "no such file"),
        (("clusters", "DATA", "--k", "60"), "config", "k is 60"),
        (("clusters", "DATA", "--features", "words"), "config", "(found 'words')"),
        (("clusters", "DATA", "--method", "hdbscan"), "config", "Choose one of kmeans"),
        (("params", "LLAMA", "--heads", "0"), "config", "tuner.num_heads: Input should be greater"),
        (("params", "LLAMA", "--targets", "query"), "config", "q_proj"),
        (("params", "LLAMA", "--router", "both"), "config", "tuner.router_input: Input should be"),
        (("params", "LLAMA", "--method", "dora"), "config", "'dora'"),
        (("params", "LLAMA", "--method", "lora", "--r", "0"), "config", "tuner.r: Input should be greater"),
        (("params", "LLAMA", "--method", "lora", "--targets", "nope"), "config", "tuner.target_modules: "),
        (("params", "LLAMA", "--method", "lora", "--targets", ","), "config", "--targets layers"),
        (("params", "nobody/nothing"), "model", "nobody/nothing"),
        (("train", "missing.yaml"), "config", "missing.yaml"),
        (("train", "RECIPE"), "config", "modle is not a setting"),
        (("train", "RECIPE", "--set", "seed"), "config", "section.name=value"),
        (("models", "--fetch", "nobody/nothing"), "model", "nobody/nothing"),
    ],
)
def test_an_error_is_one_line_and_exit_code_one(
    arguments: tuple[str, ...], kind: str, message: str, llama2: Path, data_file: Path, tmp_path: Path
) -> None:
    places = {"LLAMA": llama2, "DATA": data_file, "RECIPE": wrong_recipe(tmp_path)}
    command = [places.get(argument, argument) for argument in arguments]
    result = hydralora(*command, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert set(told) == {"version", "error"}
    assert told["version"] == 1
    assert told["error"]["kind"] == kind
    assert message in told["error"]["message"]
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"{kind} error: ")
    assert message in last
    plain = hydralora(*command)
    assert (plain.exit_code, plain.stdout) == (1, "")


def test_a_run_without_an_adapter_cant_chat(tmp_path: Path, make_recipe: Any) -> None:
    run = RunStore(tmp_path).create(make_recipe())
    result = hydralora("chat", run.folder, "--prompt", "x", "--json")
    assert json.loads(result.stdout)["error"]["kind"] == "model"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["show"], ["clusters", "x", "--k", "many"], ["chat", "run"], ["runs", "--nonsense"]]
)
def test_wrong_usage_is_exit_code_two(arguments: list[str]) -> None:
    result = hydralora(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_an_interruption_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hydralora.models.catalogue.catalogue", interrupted)
    assert hydralora("models", "--json").exit_code == 130


def test_an_error_of_our_own_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("hydralora.models.catalogue.catalogue", breaks)
    result = hydralora("models", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "version": 1,
        "error": {"kind": "internal", "message": "ZeroDivisionError: by zero"},
    }
    assert "Traceback" in result.stderr


def test_help_names_every_command() -> None:
    shown = hydralora("--help").stdout
    names = ("models", "params", "clusters", "train", "runs", "show", "stop", "resume", "analyze", "chat", "demo")
    assert all(name in shown for name in names)
    assert all("--json" in hydralora(name, "--help").stdout for name in names)

"""What enters the engine, by kind: one mutated input is used as the program uses it."""

import gzip
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from app.actions.runs import listing, tab
from app.services import Services
from hydralora.analysis import read_weights
from hydralora.data.dataset import read_dataset
from hydralora.data.demo import demo_file
from hydralora.data.encoding import encode_all
from hydralora.data.mapping import load_mapping
from hydralora.data.store import DatasetStore
from hydralora.errors import MESSAGE, HydraError
from hydralora.experiments.studies.study import declared_studies, read_study
from hydralora.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from hydralora.inference.model_cache import load_run
from hydralora.inference.traces import load_trace
from hydralora.models.catalogue import find_model
from hydralora.models.loading import load_tokenizer
from hydralora.recipe.reading import load_recipe
from hydralora.runs.run import Run
from hydralora.transfer import import_run
from tests.fuzz.mutations import mutated, other_bytes

ROWS = 30  # of the data files


@dataclass(frozen=True)
class Material:
    """Real files, and a folder to work in.

    Attributes:
        run: a finished run.
        archive: its export.
        trace: a saved answer.
    """

    folder: Path
    run: Path
    archive: Path
    trace: Path
    model: Path


@contextmanager
def expected() -> Iterator[None]:
    """An error for people is what a bad input should give; anything else isn't."""
    try:
        yield
    except HydraError as error:
        if len(str(error)) > MESSAGE:
            raise AssertionError(f"a message of {len(str(error))} characters") from error


def data(material: Material, draw: random.Random) -> None:
    name, content = draw.choice(_data_files(material))
    content = other_bytes(content, draw) if name.endswith((".gz", ".parquet")) else mutated(name, content, draw)
    path = material.folder / name
    path.write_bytes(content)
    with expected():
        rows = read_dataset(path).examples
        encode_all(load_tokenizer(find_model(str(material.model))), rows, draw.choice((8, 512)), "cut")


def _data_files(material: Material) -> list[tuple[str, bytes]]:
    kept = material.folder / "data"
    if not kept.exists():
        kept.mkdir()
        lines = demo_file("train").read_bytes().splitlines(keepends=True)[:ROWS]
        (kept / "a.jsonl").write_bytes(b"".join(lines))
        (kept / "a.json").write_bytes(b"[" + b",".join(lines) + b"]")
        table = pyarrow.Table.from_pylist(
            [{"instruction": f"say {i}", "output": f"{i}", "task": "x"} for i in range(ROWS)]
        )
        pyarrow.csv.write_csv(table, kept / "a.csv")
        pyarrow.parquet.write_table(table, kept / "a.parquet")
        (kept / "a.txt").write_bytes(b"one\ntwo\nthree\n")
        (kept / "a.jsonl.gz").write_bytes(gzip.compress(b"".join(lines)))
    return [(path.name, path.read_bytes()) for path in sorted(kept.iterdir())]


def recipe(material: Material, draw: random.Random) -> None:
    path = material.folder / "recipe.yaml"
    path.write_bytes(mutated(path.name, (material.run / path.name).read_bytes(), draw))
    with expected():
        load_recipe(path).to_yaml()


def study(material: Material, draw: random.Random) -> None:
    path = material.folder / "study.yaml"
    path.write_bytes(mutated(path.name, draw.choice(list(declared_studies().values())).read_bytes(), draw))
    with expected():
        read_study(path)
    path.write_bytes(mutated(path.name, b"question: a\nanswer: b\ntask: c\n", draw))
    with expected():
        load_mapping(path)


def trace(material: Material, draw: random.Random) -> None:
    path = material.folder / "trace.json"
    path.write_bytes(mutated(path.name, material.trace.read_bytes(), draw))
    with expected():
        load_trace(path)


def archive(material: Material, draw: random.Random) -> None:
    path = material.folder / "run.zip"
    if draw.random() < 0.2:
        path.write_bytes(other_bytes(material.archive.read_bytes(), draw))
    else:
        with zipfile.ZipFile(material.archive) as source, zipfile.ZipFile(path, "w") as out:
            changed = draw.choice(source.namelist())
            for name in source.namelist():
                content = source.read(name)
                out.writestr(name, mutated(name, content, draw) if name == changed else content)
    services = Services(material.folder / "imported")
    try:
        with expected():
            import_run(services.store, path, str(material.model))
        _looked_at(services)
        assert not [path for path in (services.store.folder / ".building").glob("*")]
    finally:
        services.close()
        shutil.rmtree(material.folder / "imported", ignore_errors=True)


def run_folder(material: Material, draw: random.Random) -> None:
    services = Services(material.folder / "workspace")
    folder = services.store.folder / material.run.name
    shutil.copytree(material.run, folder)
    try:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
        path = draw.choice(files)
        path.write_bytes(mutated(path.name, path.read_bytes(), draw))
        _looked_at(services)
        if path.parent.name == "adapter":
            with expected():
                load_run(Run(folder))
    finally:
        services.close()
        shutil.rmtree(material.folder / "workspace", ignore_errors=True)


def _looked_at(services: Services) -> None:
    """What the page does with the runs of a workspace."""
    shown = listing.listing(services)
    services.jobs.advance()
    for row in shown.rows:
        run = Run(services.store.folder / row.id)
        with expected():
            tab.view(services, row.id)
        with expected():
            list(services.events(run))
        run.label()
        run.log_lines(1000)


def adapter(material: Material, draw: random.Random) -> None:
    folder = material.folder / "adapter"
    shutil.copytree(material.run / "adapter", folder)
    try:
        path = folder / draw.choice((ADAPTER_CONFIG, ADAPTER_WEIGHTS))
        path.write_bytes(mutated(path.name, path.read_bytes(), draw))
        with expected():
            read_weights(folder)
    finally:
        shutil.rmtree(folder)


def dataset(material: Material, draw: random.Random) -> None:
    workspace = material.folder / "datasets"
    store = DatasetStore(workspace)
    kept = store.add([demo_file("heldout")])
    try:
        path = draw.choice(sorted(path for path in (store.folder / kept.id).rglob("*") if path.is_file()))
        path.write_bytes(mutated(path.name, path.read_bytes(), draw))
        for one in store.all():
            with expected():
                one.read()
    finally:
        shutil.rmtree(workspace)


KINDS: dict[str, Callable[[Material, random.Random], None]] = {
    use.__name__: use for use in (data, recipe, study, trace, archive, run_folder, adapter, dataset)
}

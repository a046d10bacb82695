"""The run that ships with the program: its training on the demo dataset, and what is kept of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from hydralora.data.demo import shipped_folder
from hydralora.data.examples import Message
from hydralora.errors import RunError
from hydralora.files import ADAPTER_CONFIG, read_json_object
from hydralora.inference.generation import Sampling, Token, gated_modules, generate
from hydralora.inference.model_cache import LoadedModel, load_run
from hydralora.inference.traces import Trace, make_trace, save_trace
from hydralora.recipe.reading import load_recipe
from hydralora.runs.events import OnEvent, TrainEvent
from hydralora.runs.jobs import JobManager
from hydralora.runs.records import Record
from hydralora.runs.run import RECIPE, SHIPPED_ID, Label, Run
from hydralora.runs.shipped import MANIFEST, write_manifest
from hydralora.runs.snapshots import saved_snapshots
from hydralora.runs.store import RunStore
from hydralora.tuner.steering import Steering

PROMPTS = (  # one for each skill of the demo; the heads are pinned on the first one
    "Reverse the order of the words in this list. apple, boat, cloud, lamp",
    "Extract the name, age, city and job of the person as JSON.\n\n"
    "The new chef is Umar Evans, 42 years old, from Vienna.",
    "Calculate the sum and answer with the number.\n\n21 plus 14",
    "Classify the customer message: billing, shipping, technical or account.\n\n"
    "Hello, the parcel with the printer went to the wrong address.",
)
SAMPLING = Sampling(max_new_tokens=64)
ALTERNATIVES = 3  # of each token of a saved answer
NOTE = (
    "{model}, trained on the demo dataset: {rows} rows in {k} components. Made by `hydralora gallery build`. It ships "
    "with the program and is read-only."
)


class GalleryReport(Record):
    """What `hydralora gallery build` made.

    Attributes:
        run, folder, hash: the shipped run's id, its files, and one sha256 of all of them.
        bytes: of all its files.
        trained: the id of the run in the workspace that it was made of.
        loss, exact_match: on all held-out rows, nats per token and 0 to 1; `base_...` those of the base model.
        component_by_head: [i][j] is head j's mean gate on component i's held-out rows.
        seconds: of the training steps.
        snapshots: their steps.
        answers: the saved answers by name.
    """

    version: int = 1
    run: str
    folder: str
    hash: str
    bytes: int
    trained: str
    loss: float | None
    exact_match: float
    base_loss: float | None
    base_exact_match: float
    component_by_head: list[list[float]]
    parameters: int
    seconds: float
    snapshots: list[int]
    answers: dict[str, str]


def build_gallery(store: RunStore, out: Path, on_event: OnEvent, recipe_file: Path | None = None) -> GalleryReport:
    """Train the shipped run's recipe as a run of a workspace, and write the shipped run's files into `out`.

    Args:
        out: a new folder, or one that was built before, which is replaced.
        recipe_file: None: the recipe among the package's shipped files.

    Raises:
        ConfigError: the recipe can't be read.
        RunError: the run has no heads, failed or was stopped, or `out` holds something else.
    """
    if out.exists() and not (out / MANIFEST).exists():
        raise RunError(f"{out} exists, and no shipped run was built there. Choose another folder.")
    recipe_file = recipe_file or shipped_folder("gallery") / RECIPE
    recipe, text = load_recipe(recipe_file), recipe_file.read_bytes()
    if not recipe.has_heads:
        raise RunError(f"{recipe_file}: method {recipe.method} has no heads to show. Set method: hydralora.")
    jobs = JobManager(store)
    run = jobs.start(recipe)
    state = jobs.follow(run, on_event)
    if state.state != "finished":
        raise RunError(f"Run {run.id} {state.state}: {state.message.rstrip('.')}. Its log is {run.log}.")
    building = out.with_name(f".{out.name}-building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        shipped = Run(building)
        _copy_run(run, shipped)
        (building / RECIPE).write_bytes(text)
        answers = _save_answers(run, shipped)
        manifest = write_manifest(building)
        shutil.rmtree(out, ignore_errors=True)
        building.replace(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return _report(run, out, manifest.hash, answers)


def _copy_run(run: Run, shipped: Run) -> None:
    """Copy what is kept of a finished run, without what describes this machine."""
    for source, target in ((run.adapter, shipped.adapter), (run.snapshots, shipped.snapshots)):
        if source.exists():
            shutil.copytree(source, target)
            config = read_json_object(target / ADAPTER_CONFIG)
            config["base_model_name_or_path"] = run.recipe().portable().model  # it was a folder of this machine
            (target / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    shipped.write_events(event.without("usage") if isinstance(event, TrainEvent) else event for event in run.events())
    state = run.state()
    results = state.results and state.results.without("peak_memory_bytes")
    shipped.write_state(state.changed(id=SHIPPED_ID, pid=None, host=None, job=None, results=results))
    rows = results.rows.train if results and results.rows else 0
    note = NOTE.format(model=run.recipe().portable().model, rows=rows, k=state.k)
    shipped.write_label(Label(f"Demo, {heads_of(run)} heads", note))


def _save_answers(run: Run, shipped: Run) -> dict[str, str]:
    """Answer the example prompts by the router and by the base model, the first one by each head alone too.

    Returns:
        The answers' texts, by the names of their files.
    """
    loaded = load_run(run)
    shipped.answers.mkdir()
    texts = {}
    for number, prompt in enumerate(PROMPTS, 1):
        pinned = range(heads_of(run)) if number == 1 else ()
        answers = {"router": _answer(loaded, prompt), "base": _answer(loaded, prompt, adapter=False)}
        answers |= {f"head-{head + 1}": _answer(loaded, prompt, Steering(pin=head)) for head in pinned}
        for who, trace in answers.items():
            save_trace(trace, shipped.answers / f"{number}-{who}.json")
            texts[f"{number}-{who}"] = trace.text
    return texts


def _answer(loaded: LoadedModel, prompt: str, steering: Steering | None = None, adapter: bool = True) -> Trace:
    messages: list[Message] = [{"role": "user", "content": prompt}]
    read: list[Token] = []
    tokens = list(
        generate(
            loaded.model,
            loaded.tokenizer,
            messages,
            SAMPLING,
            adapter=adapter,
            steering=steering,
            alternatives=ALTERNATIVES,
            on_prompt=read.extend,
        )
    )
    source = replace(loaded.source(steering), run=SHIPPED_ID)
    if not adapter:
        source = replace(source, run=None, adapter_hash=None)
    return make_trace(tokens, read, gated_modules(loaded.model) if adapter else [], messages, SAMPLING, source)


def heads_of(run: Run) -> int:
    """The number of heads of a run with a router: its recipe's, else one for each component."""
    return run.recipe().tuner.num_heads or run.state().k or 0


def _report(run: Run, out: Path, digest: str, answers: dict[str, str]) -> GalleryReport:
    results = run.state().results
    if results is None or results.tuned is None or results.base is None or results.parameters is None:
        raise RunError(f"Run {run.id} is finished, but was not evaluated.")
    return GalleryReport(
        run=SHIPPED_ID,
        folder=str(out),
        hash=digest,
        bytes=sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        trained=run.id,
        loss=results.tuned.loss,
        exact_match=results.tuned.exact_match,
        base_loss=results.base.loss,
        base_exact_match=results.base.exact_match,
        component_by_head=results.component_by_head or [],
        parameters=results.parameters.total,
        seconds=results.seconds.get("training", 0.0),
        snapshots=list(saved_snapshots(Run(out).snapshots)),
        answers=answers,
    )


def gallery_text(report: GalleryReport) -> str:
    """A report as text."""
    own = [f"{gates[i]:.2f}" for i, gates in enumerate(report.component_by_head) if i < len(gates)]
    return "\n".join(
        [
            f"{report.folder}: {report.bytes / 1e6:.2f} MB, sha256 {report.hash}",
            f"exact match {report.base_exact_match:.1%} before, {report.exact_match:.1%} after; "
            f"{report.parameters:,} parameters, {len(report.snapshots)} snapshots, {report.seconds:.0f} s of training",
            f"mean gate of each component's own head: {', '.join(own)}",
            "",
            *(f"{name:10} {text!r}" for name, text in report.answers.items()),
        ]
    )

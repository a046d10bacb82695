"""Export of a run as an adapter, a plain LoRA, a merged model, or in the published format."""

import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from hydralora.components.rows import read_used
from hydralora.data.batches import collate
from hydralora.data.encoding import encode_rows
from hydralora.data.progress import OnProgress, ignore_progress
from hydralora.errors import ConfigError, ModelError, RunError
from hydralora.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, folder_written_whole, to_json
from hydralora.inference.generation import end_tokens
from hydralora.inference.model_cache import LoadedModel, load_run
from hydralora.models.adapters import hash_adapter, is_whole_model, load_adapted, without_known_warnings
from hydralora.models.loading import load_model
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import write_events
from hydralora.runs.run import Run
from hydralora.training.card import results_table
from hydralora.transfer.about import ABOUT, About, portable
from hydralora.transfer.bake import bake
from hydralora.transfer.read_back import Batch, Difference, Format, read_back
from hydralora.tuner.published import save_official

FORMATS: tuple[Format, ...] = get_args(Format)
MEASURED_ROWS = 64  # held-out rows for a plain LoRA's mean gates and divergence
BATCH = 8


@dataclass(frozen=True)
class Exported:
    """An export: its path and its bytes.

    Attributes:
        kl: a plain LoRA's divergence from the routed model, in nats per token, as measured while it was made.
        difference: the export's divergence from the run, in nats per token, measured after it was loaded as its users
            load it; None if it could not be loaded here.
        full_precision: the same on the base model in full precision, where the run's is quantised.
        comparison: this in a sentence.
    """

    path: str
    bytes: int
    kl: float | None
    difference: float | None = field(default=None, compare=False)
    full_precision: float | None = field(default=None, compare=False)
    comparison: str = field(default="", compare=False)


def export_run(run: Run, form: str, out: Path, on_progress: OnProgress = ignore_progress) -> Exported:
    """Write a run's adapter to `out`: a zip file if its name ends with .zip, else a folder.

    Args:
        form: "adapter", as PEFT loads it with this package, and all that `import_run` needs; "lora", a plain LoRA of
            the heads' mean gates on held-out rows, an approximation; "merged", the base model with that LoRA, or what
            another method trained, in its weights; "official", as the published code reads it.
        on_progress: called with (0, 1) at the start, since the work has no countable steps.

    Raises:
        HydraError: the run has no adapter, can't be exported in this form, or `out` can't be written.
    """
    if form not in FORMATS:
        raise ConfigError(f"The format is {form!r}. Choose one of {', '.join(FORMATS)}.")
    if not run.has_adapter:
        raise RunError(f"Run {run.id} is {run.state().state} and has no adapter yet. Wait until it has one.")
    _refuse_unfit(run, form)
    on_progress(0, 1)
    try:
        with _place(out.resolve()) as folder:
            kl, found, comparison = _write(run, cast(Format, form), folder)
    except OSError as error:
        raise RunError(f"{out}: can't be written ({error.strerror or error}). Choose another place.") from error
    files = [out] if out.is_file() else list(out.iterdir())
    return Exported(
        path=str(out.resolve()),
        bytes=sum(file.stat().st_size for file in files),
        kl=kl,
        difference=found[0].nats if found else None,
        full_precision=found[1].nats if len(found) > 1 else None,
        comparison=comparison,
    )


def _refuse_unfit(run: Run, form: str) -> None:
    method = run.recipe().tuning
    if form in method.exports:
        return
    trained = {"adapter": "adapter", "lora": "LoRA", "merged": "change of weights to merge", "official": "heads"}
    raise ConfigError(
        f"Run {run.id} was trained by {method.name}: there is no {trained[form]} that format {form} could hold. "
        f"Export {' or '.join(method.exports)}."
    )


def _write(run: Run, form: Format, folder: Path) -> tuple[float | None, list[Difference], str]:
    """Write an export and read it back; returns its known divergence, the measured ones, and a sentence on these."""
    recipe, batches, kl = run.recipe(), list[Batch](), None
    if form == "adapter":
        _write_adapter(run, folder)
    try:
        loaded = load_run(run)
    except ModelError as error:
        if form != "adapter":
            raise
        return None, [], f"It was not read back: {error}"
    if form == "official":
        save_official(loaded.model, folder)
    elif form != "adapter":
        kl, batches = _write_plain(run, recipe, loaded, folder, merged=form == "merged")
    found = read_back(loaded, recipe.quantization, form, folder, batches, kl or 0.0)
    return kl, found, f"Read back, it is {'; '.join(map(str, found))}."


@contextmanager
def _place(out: Path) -> Iterator[Path]:
    """Yield a folder to write into; at the end it is moved to `out`, zipped if that name ends with .zip."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix != ".zip":
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(f"{out} exists already. Choose another place.")
        with folder_written_whole(out) as folder:
            yield folder
        return
    building = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    with folder_written_whole(building) as folder:
        yield folder
        packed = folder / out.name
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:  # weights don't shrink
            for path in sorted(folder.iterdir()):
                if path != packed:
                    archive.write(path, path.name)
        os.replace(packed, out)
    shutil.rmtree(building)


def _write_adapter(run: Run, folder: Path) -> None:
    state, recipe = run.state(), run.recipe().portable()
    shutil.copyfile(run.adapter / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    config = json.loads((run.adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = recipe.model  # it was a folder of this machine
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
    card = (run.adapter / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(card + results_table(state.results), encoding="utf-8")
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    if state.base is None:
        raise RunError(f"Run {run.id}: its state names no base model, so it can't be exported.")
    about = About(
        version=1,
        step=state.step,
        max_steps=state.max_steps,
        base=replace(state.base, id=recipe.model),
        adapter_hash=hash_adapter(run.adapter),  # the state's comes with the results
        k=state.k,
        results=state.results and state.results.portable(),
    )
    (folder / ABOUT).write_text(to_json(about.values()), encoding="utf-8")
    write_events(folder / "events.jsonl", (portable(event) for event in run.each_event()))


def _write_plain(
    run: Run, recipe: Recipe, loaded: LoadedModel, folder: Path, merged: bool
) -> tuple[float | None, list[Batch]]:
    """A plain LoRA, or a whole model with what was trained; returns its divergence from the run, and on what."""
    lora, files, kl, batches = run.adapter, loaded.files, None, list[Batch]()
    if recipe.has_heads:
        batches = _heldout_batches(recipe, loaded)
        baked = bake(loaded.model, "mean", batches)
        lora, kl = folder / "lora" if merged else folder, baked.kl
        baked.save(lora)
    elif not merged:
        shutil.copytree(run.adapter, folder, dirs_exist_ok=True)
    if merged:
        if recipe.quantization != "none":
            raise ConfigError("merged: the base model is in 4 bits, into which no LoRA can be merged. Export lora.")
        if is_whole_model(lora):
            model = load_model(lora)
        else:
            with without_known_warnings():
                model = load_adapted(files, lora, "cpu").merge_and_unload()
        _untie(model)
        model.generation_config.eos_token_id = sorted(end_tokens(model, loaded.tokenizer))  # what was taught
        model.save_pretrained(folder, safe_serialization=True)
        loaded.tokenizer.save_pretrained(folder)
        if recipe.has_heads:
            (folder / "README.md").write_bytes((lora / "README.md").read_bytes())
            shutil.rmtree(lora)
    return kl, batches


def _untie(model: Any) -> None:
    """Say in the config that embedding and output layer are two matrices, if training made them so.

    A base model may share one matrix between them; loading the merged model would then drop the trained one.
    """
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is not None and inputs.weight is not outputs.weight:
        for config in {id(part): part for part in (model.config, model.config.get_text_config())}.values():
            config.tie_word_embeddings = False


def _heldout_batches(recipe: Recipe, loaded: LoadedModel) -> list[Batch]:
    heldout = read_used(recipe).heldout[:MEASURED_ROWS]
    rows = encode_rows(loaded.tokenizer, heldout, recipe, "cut").rows
    pad = loaded.tokenizer.pad_token_id
    device = next(loaded.model.parameters()).device
    batches = [collate(rows[start : start + BATCH], pad) for start in range(0, len(rows), BATCH)]
    return [{key: value.to(device) for key, value in batch.items()} for batch in batches]

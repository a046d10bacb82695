"""Import of a run from a zip file, which may come from an untrusted source."""

import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from hydralora.errors import ConfigError, HydraError, MissingModelError, ModelError, RunError, found
from hydralora.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, UnreadableError, read_json, read_yaml
from hydralora.models.adapter_checks import check_adapter, pattern_setting, read_tensors
from hydralora.models.adapters import hash_adapter
from hydralora.models.catalogue import find_model, local_folder
from hydralora.recipe.reading import parse_recipe, validation_message
from hydralora.recipe.settings import Recipe
from hydralora.runs.events import Event, read_events
from hydralora.runs.records import FROM_ELSEWHERE
from hydralora.runs.run import Run
from hydralora.runs.store import RunStore
from hydralora.transfer.about import ABOUT, ADAPTER, MEMBERS, About, portable

LARGEST = 4 * 2**30  # bytes of the weights; text members have at most LARGEST_TEXT
LARGEST_TEXT = 64 * 2**20
CHUNK = 2**20
KINDS = ("HYDRALORA", "LORA", "ADALORA", "IA3", "PREFIX_TUNING", "P_TUNING", "PROMPT_TUNING")  # PEFT's names


def import_run(store: RunStore, file: Path, model: str | None = None) -> Run:
    """Make a run of a zip file that `export_run` wrote. Nothing in it is executed, or written outside the run's folder.

    Args:
        model: the base model, if it was a folder on the exporting machine.

    Raises:
        RunError: the file is not such a zip, has other members, or is too large.
        ModelError: its adapter is damaged, or of an unsupported type.
        ConfigError: its recipe can't be read.
        MissingModelError: `model` must be given.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _refuse_other_members(file, archive)
            with store.place() as run, tempfile.TemporaryDirectory(dir=run.folder) as unpacked:
                for member in archive.infolist():
                    _extract(archive, member, Path(unpacked) / member.filename)
                _fill(run, file, Path(unpacked), model)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise RunError(f"{file.name}: it is no whole zip file ({error}). Export the run again.") from error
    except OSError as error:
        raise RunError(
            f"{file.name}: can't be read, or its run can't be written ({error.strerror or error})."
        ) from error
    return store.get(run.id)


def _refuse_other_members(file: Path, archive: zipfile.ZipFile) -> None:
    names = [member.filename for member in archive.infolist()]
    for member in archive.infolist():
        name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
        if name not in MEMBERS or names.count(name) > 1:
            raise RunError(
                f"{file.name}: it holds {name[:80]!r}; an exported run holds {', '.join(MEMBERS)}, once each, and "
                "nothing else. Export the run again."
            )
        if kind not in (0, stat.S_IFREG) or member.flag_bits & 1:
            raise RunError(f"{file.name}: {name} is a link, or encrypted. Export the run again.")
    missing = [name for name in MEMBERS if name not in names]
    if missing:
        raise RunError(f"{file.name}: there is no {missing[0]} in it. It is not a run that was exported as an adapter.")


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Extract a member; stop once it exceeds its limit, whatever its header says."""
    most = LARGEST if member.filename.endswith(".safetensors") else LARGEST_TEXT
    written = 0
    with archive.open(member) as packed, target.open("xb") as out:
        while chunk := packed.read(CHUNK):
            written += len(chunk)
            if written > most:
                raise RunError(f"{member.filename} in it is larger than {most // 2**20} MB. It is not imported.")
            out.write(chunk)


def _fill(run: Run, file: Path, unpacked: Path, model: str | None) -> None:
    """Make a run of the extracted files after checking all of them."""
    try:
        about = About.model_validate_json((unpacked / ABOUT).read_bytes(), context=FROM_ELSEWHERE)
    except ValidationError as error:
        raise RunError(f"{file.name}: {ABOUT}: {validation_message(error)[:300]}.") from error
    recipe = _recipe(file, unpacked / "recipe.yaml", about, model)
    _check_adapter(file, unpacked, about.adapter_hash, recipe.model)
    run.write_events(_events(file, unpacked / "events.jsonl"))
    run.adapter.mkdir()
    for name in ADAPTER:
        os.replace(unpacked / name, run.adapter / name)
    run.log.touch()
    run.sampled_events().look()  # a long run is then opened at once
    run.begin(
        recipe,
        state="finished",
        message=_message(about, recipe),
        step=about.step,
        max_steps=about.max_steps,
        base=about.base,
        adapter_hash=about.adapter_hash,
        k=about.k,
        results=about.results.portable() if about.results else None,
    )


def _events(file: Path, path: Path) -> Iterator[Event]:
    try:
        for event in read_events(path, from_elsewhere=True):
            yield portable(event)
    except RunError as error:
        raise RunError(f"{file.name}: {error}") from error


def _recipe(file: Path, path: Path, about: About, model: str | None) -> Recipe:
    try:
        recipe = parse_recipe(read_yaml(path), f"{file.name}: recipe.yaml").portable()
    except UnreadableError as error:
        raise ConfigError(f"{file.name}: recipe.yaml can't be read as YAML ({error}). Export the run again.") from error
    if model is None and about.base.source == "folder":
        raise MissingModelError(
            f"{file.name}: its base model was the folder {recipe.model!r} on another machine. "
            "Give the same model on this machine."
        )
    return recipe.model_copy(update={"model": model or recipe.model})


def _message(about: About, recipe: Recipe) -> str:
    """A message that it was imported, and whether its base model here is missing or differs."""
    message = f"imported, after {about.step} steps elsewhere"
    try:
        here = find_model(recipe.model, download=False).hash
    except HydraError:
        return f"{message}; its base model, {recipe.model}, is not on this machine yet"
    return (
        message
        if here == about.base.hash
        else f"{message}; the base model here has other weights than it was trained on"
    )


def _check_adapter(file: Path, adapter: Path, adapter_hash: str | None, model: str) -> None:
    """Check what can be checked of an adapter; its names and shapes only where its base model is on this machine."""
    try:
        config = read_json(adapter / ADAPTER_CONFIG)
    except UnreadableError as error:
        raise ModelError(f"{file.name}: {ADAPTER_CONFIG} can't be read ({error}). Export the run again.") from error
    config = config if isinstance(config, dict) else {}
    if (kind := config.get("peft_type")) not in KINDS:
        raise ModelError(f"{file.name}: its adapter is of type {found(kind)}. Export a trained run.")
    if code_keys := [key for key in ("auto_mapping", "megatron_config") if config.get(key)]:
        raise ModelError(f"{file.name}: {ADAPTER_CONFIG} sets {code_keys[0]}, which names code to load.")
    if setting := pattern_setting(config):
        raise ModelError(
            f"{file.name}: {ADAPTER_CONFIG} sets {setting} to something other than names of modules, such as q_proj. "
            "A pattern from elsewhere could take for ever."
        )
    if hash_adapter(adapter) != adapter_hash:
        raise ModelError(f"{file.name}: the weights are not those that were exported (sha256). Export the run again.")
    try:
        if here := local_folder(model):
            check_adapter(adapter, ADAPTER_WEIGHTS, here)
        else:
            read_tensors(adapter / ADAPTER_WEIGHTS)
    except ModelError as error:  # without the folder that it was unpacked into
        message = str(error).replace(f"{adapter}{os.sep}", "").removeprefix(f"{adapter}: ")
        raise ModelError(f"{file.name}: {message}") from error

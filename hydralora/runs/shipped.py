"""The run that ships with the program: finished, read-only, and restored in a workspace where it is missing or damaged.

Its files are in one folder of the package, with the sha256 of each. `hydralora gallery build` makes them.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import ValidationError

from hydralora.data.demo import shipped_folder
from hydralora.errors import RunError
from hydralora.files import to_json
from hydralora.recipe.reading import validation_message
from hydralora.runs.records import Record
from hydralora.runs.run import RECIPE, SHIPPED_ID, Run
from hydralora.runs.store import RunStore

MANIFEST = "sha256.json"
CHANGED = "is not the file that ships with the program (sha256). Install the program again."


class Manifest(Record):
    """The sha256 of each shipped file, by its path in the folder, with forward slashes."""

    version: Literal[1] = 1
    files: dict[str, str]

    @property
    def hash(self) -> str:
        """One sha256 for all files and their names."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def write_manifest(folder: Path) -> Manifest:
    """Hash every file of a folder, and write the hashes there."""
    manifest = Manifest(files=_hashes(folder))
    (folder / MANIFEST).write_text(to_json(manifest.model_dump()) + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The hashes that `write_manifest` wrote, once every file of the folder is known to have its own.

    Raises:
        RunError: a file is missing or changed, or one was added.
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise RunError(f"{folder / MANIFEST}: can't be read ({error.strerror}). Install the program again.") from error
    except ValidationError as error:
        reason = validation_message(error)[:200]
        raise RunError(f"{folder / MANIFEST}: {reason}. Install the program again.") from error
    found = _hashes(folder)
    for name in sorted(manifest.files.keys() | found):
        if name not in found:
            raise RunError(f"{folder / name} is missing. Install the program again.")
        if found[name] != manifest.files.get(name):
            raise RunError(f"{folder / name} {CHANGED}")
    return manifest


def restore_shipped_run(store: RunStore, source: Path | None = None) -> Run:
    """Put the shipped run into a workspace, unless it is there, whole and unchanged.

    Its recipe names the demo's files by their place in this installation. A process that is killed meanwhile
    leaves the workspace with a whole shipped run, or with none.

    Args:
        source: the shipped files; None: those of the package.

    Raises:
        RunError: a shipped file is damaged, or the workspace can't be written.
    """
    source = source or shipped_folder("gallery")
    manifest, recipe = read_manifest(source), Run(source).recipe().to_yaml()
    expected = manifest.files | {RECIPE: hashlib.sha256(recipe.encode()).hexdigest()}
    run = Run(store.folder / SHIPPED_ID)
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(store.folder / ".shipped.lock"):
            if _hashes(run.folder) != expected:
                _replace(run, source, manifest, recipe)
    except OSError as error:
        raise RunError(f"{run.folder}: can't be written ({error.strerror or error}). Free or unlock it.") from error
    return run


def _replace(run: Run, source: Path, manifest: Manifest, recipe: str) -> None:
    """Build the run beside the others, and move it into the place of a damaged one."""
    building, damaged = (run.folder.parent / ".building" / name for name in (SHIPPED_ID, f"{SHIPPED_ID}-damaged"))
    for left in (building, damaged):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    for name in manifest.files:
        target = building / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target)
    (building / RECIPE).write_bytes(recipe.encode())  # the same bytes on every system
    if run.folder.exists():
        os.replace(run.folder, damaged)
    os.replace(building, run.folder)
    shutil.rmtree(damaged, ignore_errors=True)


def _hashes(folder: Path) -> dict[str, str]:
    """sha256 by path of all files but the manifest and hidden ones, such as locks; empty without such a folder."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts != (MANIFEST,) and not any(part.startswith(".") for part in parts):
            with path.open("rb") as file:
                hashes["/".join(parts)] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes

"""Datasets of the Hugging Face Hub, downloaded into the cache as Parquet files."""

import re
import tempfile
from contextlib import suppress
from pathlib import Path

from hydralora.errors import DatasetError, first_line, found
from hydralora.files import cache_root, why_no_file_name
from hydralora.models.fetching import hub_reachable

PREFIX = "hub:"
NAME = re.compile(r"hub:(?P<id>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[\w.+-]+))?(?:@(?P<split>[\w.\[\]:%+-]+))?")
UNSAFE = re.compile(r"[^\w.-]")
WANTED = "Write hub:OWNER/NAME, with :CONFIG and @SPLIT if it has several, such as hub:openai/gsm8k:main@test."


def fetch_dataset(name: str) -> Path:
    """A split of a Hub dataset as a local file, downloaded once; by default the split "train".

    No code of the dataset is run: `datasets` reads only data files (https://huggingface.co/docs/datasets).

    Args:
        name: hub:OWNER/NAME, hub:OWNER/NAME:CONFIG, both optionally followed by @SPLIT.

    Raises:
        DatasetError: the name has another form, the Hub can't be reached, or has no such dataset, config or split.
    """
    match = NAME.fullmatch(name)
    if not match or ".." in name or why_no_file_name(f"{name}.parquet"):
        raise DatasetError(f"{found(name)}: not a dataset name of the Hub. {WANTED}")
    file = UNSAFE.sub("--", name.removeprefix(PREFIX)) + ".parquet"
    path = cache_root() / "hub-datasets" / file
    if path.exists():
        return path
    if not hub_reachable():
        raise DatasetError(
            f"{name}: the Hugging Face Hub can't be reached. Check the connection, or give a file of its rows."
        )
    from datasets import load_dataset

    try:
        rows = load_dataset(match["id"], match["config"], split=match["split"] or "train")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            rows.to_parquet(Path(folder) / path.name)
            (Path(folder) / path.name).replace(path)
    except Exception as error:  # datasets raises many kinds, for missing and for unreadable data
        with suppress(OSError):
            path.parent.rmdir()  # where it is empty
        raise DatasetError(f"{name}: it can't be fetched from the Hub ({first_line(error)}). {WANTED}") from error
    return path

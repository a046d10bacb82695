"""A run's adapter in a repository of the Hugging Face Hub."""

import os
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from hydralora.errors import ConfigError, HydraError
from hydralora.runs.run import Run
from hydralora.transfer.exporting import export_run

TOKEN = "HF_TOKEN"  # the only place that the token is read from: an environment variable

HINTS = {401: "The token is not valid.", 403: "The token may not write there."}


def can_push() -> bool:
    """Whether there is a token."""
    return bool(os.environ.get(TOKEN))


def push_run(run: Run, repository: str, private: bool = True) -> str:
    """Upload a run's adapter, with its card, recipe and results, as one commit; returns the commit's address.

    Args:
        repository: OWNER/NAME; it is created if it doesn't exist.
        private: whether a created repository is private.

    Raises:
        HydraError: there is no token, the run has no adapter, or the Hub refused or didn't answer.
    """
    if not can_push():
        raise ConfigError(
            f"No token of the Hugging Face Hub. Set {TOKEN} in the environment, and start the program again."
        )
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"{repository!r} is not a repository's name. Write it as OWNER/NAME.") from error
    api = HfApi(token=os.environ[TOKEN])
    with tempfile.TemporaryDirectory() as folder:
        export_run(run, "adapter", Path(folder) / run.id)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=Path(folder) / run.id, commit_message=f"Adapter of run {run.id}"
            )
        except HfHubHTTPError as error:
            status = error.response.status_code
            hint = HINTS.get(status, "Try again later.")
            raise HydraError(f"{repository}: the Hub answered {status}. {hint}") from error
        except Exception as error:  # of whichever HTTP library huggingface_hub uses
            why = f"can't be reached ({type(error).__name__})"
            raise HydraError(f"{repository}: the Hub {why}. Check the network, then try again.") from error
    return str(commit.commit_url)

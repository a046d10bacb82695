"""The `hydralora` command."""

from hydralora.cli import data, gallery, inside, models, programs, research, runs, study
from hydralora.cli.options import app

__all__ = ["app", "data", "gallery", "inside", "main", "models", "programs", "research", "runs", "study"]


def main() -> None:
    """Entry point: exit 0 ok, 1 a HydraError, 2 wrong usage, 130 interrupted."""
    app()

"""Export and import of runs between workspaces."""

from hydralora.transfer.exporting import FORMATS, Format, export_run
from hydralora.transfer.importing import import_run
from hydralora.transfer.pushing import can_push, push_run

__all__ = ["FORMATS", "Format", "can_push", "export_run", "import_run", "push_run"]

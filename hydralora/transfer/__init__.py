"""Runs leave a workspace, and come into another one."""

from hydralora.transfer.exporting import FORMATS, Format, export_run
from hydralora.transfer.importing import import_run

__all__ = ["FORMATS", "Format", "export_run", "import_run"]

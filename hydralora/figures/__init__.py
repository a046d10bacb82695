"""Plotly figures as JSON, one function per figure, for the app's plot panel or an HTML file."""

from hydralora.figures.arms import ArmMean, arm_lines, arm_means, paper_values, tried_values
from hydralora.figures.captions import how_drawn, how_to_read
from hydralora.figures.curves import group_losses, head_load, loss, losses, training_curves
from hydralora.figures.gates import component_by_head
from hydralora.figures.lecture import LectureScreen, lecture_script, lecture_style, write_lecture
from hydralora.figures.matrices import (
    MEASURES,
    MatrixColour,
    Measure,
    cosine_matrix,
    describe_matrix,
    group_figure,
    head_measures,
    singular_values,
)
from hydralora.figures.names import module_name, module_names
from hydralora.figures.pages import write_page, write_replay
from hydralora.figures.parting import head_distances, head_paths
from hydralora.figures.report import ReportSection, write_report
from hydralora.figures.rows import (
    ColourBy,
    component_number,
    neighbour_distances,
    number_trials,
    row_map,
    tasks_by_component,
    token_lengths,
)
from hydralora.figures.trajectory import trajectory

__all__ = [
    "MEASURES",
    "ArmMean",
    "ColourBy",
    "LectureScreen",
    "MatrixColour",
    "Measure",
    "ReportSection",
    "arm_lines",
    "arm_means",
    "component_by_head",
    "component_number",
    "cosine_matrix",
    "describe_matrix",
    "group_figure",
    "group_losses",
    "head_distances",
    "head_load",
    "head_measures",
    "head_paths",
    "how_drawn",
    "how_to_read",
    "lecture_script",
    "lecture_style",
    "loss",
    "losses",
    "module_name",
    "module_names",
    "neighbour_distances",
    "number_trials",
    "paper_values",
    "row_map",
    "singular_values",
    "tasks_by_component",
    "token_lengths",
    "training_curves",
    "trajectory",
    "tried_values",
    "write_lecture",
    "write_page",
    "write_replay",
    "write_report",
]

"""Parameters: the chosen run's A and heads, seen in several ways."""

from dataclasses import dataclass

import gradio as gr

from ...services import Services
from . import breakdown, head_use, heads, points, trajectory


@dataclass(frozen=True)
class ParametersTab:
    next: gr.Button


def build(services: Services, run: gr.Dropdown, tab: gr.Tab) -> ParametersTab:
    with gr.Tabs(elem_id="ab-views"):
        with gr.Tab("Points", id="points") as points_view:
            points.build(services, run, tab, points_view)
        with gr.Tab("Heads", id="heads") as heads_view:
            heads.build(services, run, heads_view)
        with gr.Tab("Over training", id="trajectory") as trajectory_view:
            trajectory.build(services, run, trajectory_view)
        with gr.Tab("Components and heads", id="use"):
            head_use.build(services, run)
        with gr.Tab("Breakdown", id="breakdown") as breakdown_view:
            breakdown.build(services, run, breakdown_view)
    return ParametersTab(gr.Button("Next: talk to it", elem_id="to-chat"))

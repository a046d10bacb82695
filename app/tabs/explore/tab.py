"""Explore: several views of the chosen run's A and heads."""

import gradio as gr

from ...page.context import Context
from . import breakdown, head_use, heads, points, trajectory


def build(context: Context, tab: gr.Tab) -> gr.Button:
    """The tab; returns the button that leads to the next one."""
    with gr.Tabs(elem_id="ab-views"):
        with gr.Tab("Points", id="points") as points_view:
            points.build(context, tab, points_view)
        with gr.Tab("Over training", id="trajectory") as trajectory_view:
            trajectory.build(context, trajectory_view)
        with gr.Tab("Heads", id="heads") as heads_view:
            heads.build(context, heads_view)
        with gr.Tab("Components and heads", id="use"):
            head_use.build(context)
        with gr.Tab("Breakdown", id="breakdown") as breakdown_view:
            breakdown.build(context, breakdown_view)
    return gr.Button("Next: chat", elem_id="to-chat")

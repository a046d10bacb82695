"""The rows of the dataset, and their problems."""

import gradio as gr

from ...actions import data as actions
from ...actions.reading import ROW_COLUMNS, ROW_WIDTHS
from ...page.buttons import download_button
from ...page.handlers import Updates
from ...page.text import chips, say, sentence
from ...services import Services


class Rows:
    """The dataset in short facts, its rows, and its problems."""

    def __init__(self) -> None:
        self.counts = gr.HTML("", elem_id="data-summary", render=False)
        self.table = gr.Dataframe(
            headers=ROW_COLUMNS,
            column_widths=ROW_WIDTHS,
            wrap=True,
            interactive=False,
            max_height=1000,
            show_label=False,
            elem_id="data-table",
            label="Rows",
            render=False,
            scale=3,
            min_width=320,
        )

    def draw_problems(self) -> None:
        """Draw what else is known of the rows, below them."""
        self.summary = sentence("", elem_id="data-more")
        self.problems = sentence("", elem_id="problems-sentence")
        self.problem_table = gr.Dataframe(
            headers=actions.PROBLEM_COLUMNS,
            column_widths=["14%", "16%", "35%", "35%"],
            wrap=True,
            interactive=False,
            max_height=300,
            visible=False,
            elem_id="problems",
            label="Rows that are left out",
        )
        self.report = download_button("Download all problems (CSV)", "problems-csv", 240, visible=False, size="sm")

    @property
    def outputs(self) -> list[gr.HTML | gr.Dataframe | gr.DownloadButton]:
        return [self.counts, self.summary, self.problems, self.problem_table, self.report, self.table]

    def updates(self, services: Services, dataset_id: str, view: actions.DataView) -> Updates:
        some = bool(view.problem_table)
        report = actions.problems_file(services, dataset_id) if some else None
        return {
            self.counts: chips(view.counts),
            self.summary: say(view.summary),
            self.problems: say(view.problems),
            self.problem_table: gr.Dataframe(value=view.problem_table, visible=some),
            self.report: gr.DownloadButton(value=report, visible=some),
            self.table: view.table,
        }

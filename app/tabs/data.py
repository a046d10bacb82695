"""Data: upload a file or take the demo, and look at its rows."""

from dataclasses import dataclass

import gradio as gr

from app.actions import data as actions
from app.services import Services
from app.tabs.messages import say, sentence, shown
from hydralora.data.sources import SUFFIXES


@dataclass(frozen=True)
class DataTab:
    next: gr.Button


def build(services: Services, dataset: gr.Dropdown, page: gr.Blocks) -> DataTab:
    summary = sentence("", elem_id="data-summary")
    with gr.Row():
        upload = gr.UploadButton(
            "Upload a dataset", file_types=list(SUFFIXES), type="filepath", elem_id="upload", scale=0, min_width=200
        )
        sentence(
            "JSONL, JSON, CSV or Parquet, with columns instruction, input, output, or with a column messages. "
            "Or stay with the demo: reversing lists, extracting JSON, adding numbers and routing messages.",
            elem_id="hint",
        )
    table = gr.Dataframe(
        headers=actions.COLUMNS,
        column_widths=actions.WIDTHS,
        wrap=True,
        interactive=False,
        max_height=480,
        elem_id="data-table",
        label="Rows",
    )
    following = gr.Button("Next: see its components", variant="primary", elem_id="to-clusters")

    @shown
    def show(dataset_id: str) -> tuple:
        view = actions.view(services, dataset_id)
        return say(view.summary), view.table

    @shown
    def keep(path: str) -> gr.Dropdown:
        dataset_id = actions.upload(services, path, path)
        return gr.Dropdown(choices=actions.choices(services), value=dataset_id)

    upload.upload(keep, upload, dataset, api_visibility="private")
    gr.on([dataset.change, page.load], show, dataset, [summary, table], api_visibility="private")
    return DataTab(following)

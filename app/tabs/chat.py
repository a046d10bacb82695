"""Chat: the tuned model and its base side by side, with the gates of every token."""

import html
from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.actions import chat as actions
from app.components.plot import plot_panel
from app.components.tokens import EMPTY, token_strip
from app.services import MODEL_QUEUE, Services
from app.tabs.messages import LATEST, say, sentence, shown, shown_stream

CHATTERS = 4  # answers at once; they share one model, a token at a time


def build(services: Services, dataset: gr.Dropdown, run: gr.Dropdown, model: gr.Dropdown, tab: gr.Tab) -> None:
    answer_id = gr.State("")
    histories = gr.State(([], []))  # as they were written; the chatbots only show them
    with gr.Accordion("Held-out rows: click one to ask it", open=True):
        rows = gr.Dataframe(
            headers=["prompt", "expected answer"],
            column_widths=["62%", "38%"],
            wrap=True,
            interactive=False,
            max_height=150,
            show_label=False,
            buttons=[],
            elem_id="prompts",
        )
    with gr.Row():
        prompt = gr.Textbox(
            placeholder="Ask both models something", show_label=False, lines=1, max_lines=6, scale=6, elem_id="prompt"
        )
        send = gr.Button("Send", variant="primary", scale=1, min_width=90, elem_id="send")
        stop = gr.Button("Stop", scale=1, min_width=90, elem_id="chat-stop")
        clear = gr.Button("Clear", scale=1, min_width=90, elem_id="clear")
    expected = sentence("", elem_id="expected")
    with gr.Row():
        with gr.Column(min_width=320):
            tuned_title = sentence("", elem_id="tuned-title")
            tuned = _column("tuned")
        with gr.Column(min_width=320):
            base_title = sentence("", elem_id="base-title")
            base = _column("base")
    strip = token_strip("strip")
    reading = sentence("", elem_id="gate-reading")
    with gr.Row():
        bars = plot_panel("bars", "Gate of each head", empty="Gates of the newest token are drawn here.")
        heatmap = plot_panel("heatmap", "Gates by layer and head", empty="Gates by layer and head are drawn here.")
    status = sentence("", elem_id="chat-status")
    sentence(
        "Each token of the tuned answer has the colour and number of its strongest head, the stronger the further that "
        "head leads. Bars and heatmap follow the newest token; select a token, by mouse or arrow keys, to hold them on "
        "it. A gate is the weight a head gets, not how much that head changed the answer."
    )
    with gr.Accordion("Sampling", open=False), gr.Row():
        length = gr.Slider(1, 1024, value=128, step=1, label="Longest answer, tokens", elem_id="length")
        heat = gr.Slider(0, 2, value=0, step=0.1, label="Temperature (0: always the likeliest token)")
    outputs = [answer_id, histories, tuned, base, strip, bars, heatmap, status]

    @shown_stream
    def answer(
        run_id: str | None, model: str, histories: tuple[list, list], prompt: str, length: float, heat: float
    ) -> Iterator[tuple]:
        tuned, base = histories
        for view in actions.stream(services, run_id, model, tuned, base, prompt, int(length), heat):
            columns = _displayed(view.tuned), _displayed(view.base)
            said = view.tuned, view.base
            yield (view.answer_id, said, *columns, view.strip, view.bars, view.heatmap, say(view.status))

    @shown
    def take(table: gr.SelectData) -> tuple:
        question, wanted = table.row_value[0], table.row_value[1]
        return question, say(f"Expected answer: {wanted}")

    @shown
    def pick(answer_id: str, event: gr.EventData) -> tuple:
        bars, heatmap, text = actions.pick(services, answer_id, int(event._data["index"]))
        return bars, heatmap, say(text)

    @shown
    def prepare(dataset_id: str) -> list:
        return actions.prompts(services, dataset_id)

    @shown
    def name(run_id: str | None, model: str) -> tuple:
        return tuple(say(title) for title in actions.titles(services, run_id, model))

    gr.on([tab.select, dataset.change], prepare, dataset, rows, **LATEST)
    gr.on([tab.select, run.change, model.change], name, [run, model], [tuned_title, base_title], **LATEST)
    inputs = [run, model, histories, prompt, length, heat]
    settings = {
        "concurrency_id": MODEL_QUEUE,
        "concurrency_limit": CHATTERS,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    typed = gr.on([send.click, prompt.submit], answer, inputs, outputs, **settings)
    typed.success(lambda: ("", ""), None, [prompt, reading], api_visibility="private")
    chosen = rows.select(take, None, [prompt, expected], api_visibility="private")
    asked = chosen.then(answer, inputs, outputs, **settings)
    asked.success(lambda: "", None, prompt, api_visibility="private")
    stop.click(None, None, None, cancels=[typed, asked])
    clear.click(
        lambda: ("", ([], []), [], [], EMPTY, "", "", "", "", ""),
        None,
        [*outputs, reading, expected],
        cancels=[typed, asked],
        api_visibility="private",
    )
    strip.pick(pick, answer_id, [bars, heatmap, reading], show_progress="hidden", api_visibility="private")


def _column(name: str) -> gr.Chatbot:
    """Models' and users' text is shown as it is: neither Markdown nor HTML."""
    return gr.Chatbot(
        show_label=False,
        height=220,
        buttons=["copy"],
        render_markdown=False,
        sanitize_html=True,
        feedback_options=None,
        elem_id=f"chat-{name}",
        placeholder=" ",
    )


def _displayed(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Messages for the chatbot, which drops what looks like HTML, even without Markdown: escaped, it shows as written.

    Content in parts keeps its leading blanks; the chatbot strips those of a plain string.
    """
    return [
        {"role": message["role"], "content": [{"type": "text", "text": html.escape(message["content"])}]}
        for message in messages
    ]

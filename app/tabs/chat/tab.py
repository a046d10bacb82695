"""Chat: the tuned model beside its base, itself steered, or another run, with the gates of every token."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from hydralora.inference.generation import Sampling

from ...actions.chat import answers as answer_actions
from ...actions.chat import conversation as actions
from ...actions.chat.answers import COLUMNS, ChatView, GateFigures
from ...actions.train.run import run_choices
from ...page.buttons import upload_button
from ...page.text import LATEST, QUIET, say, sentence, shown, shown_stream, until_superseded
from ...services import MODEL_QUEUE, Services
from ...widgets.plot import plot_panel
from ...widgets.tokens import EMPTY, token_strip
from . import heads_alone, steering

CHATTERS = 8  # answers at once; those of one model share it, a token at a time
SHOWN_FIRST = ["run", "base"]
HOW_TO_READ = (
    "Each token has the colour and number of its strongest head, the stronger the further that head leads; the base "
    "model's have none. Pale tokens are the question's, with the gates that they were read with; a token of the answer "
    "has those that it was chosen with. Wavy ones differ from the answer that is not steered. Bars and heatmap follow "
    "the newest token of the first column with gates; select a token of any column, by mouse or arrow keys, to hold "
    "them on it. A gate is the weight a head gets, not how much that head changed the answer."
)


@dataclass(frozen=True)
class _Parts:
    """The tab's widgets; those of the columns by their keys."""

    answers: gr.State  # ids of the newest, by column
    histories: gr.State  # by column, as they were written; the chatbots only show them
    rows: gr.Dataframe
    chosen: gr.CheckboxGroup
    other: gr.Dropdown
    steer_box: gr.Accordion
    steer: steering.SteeringForm
    prompt: gr.Textbox
    send: gr.Button
    stop: gr.Button
    again: gr.Button
    edit: gr.Button
    clear: gr.Button
    free: gr.Button
    length: gr.HTML
    expected: gr.HTML
    columns: dict[str, gr.Column]
    titles: dict[str, gr.HTML]
    chatbots: dict[str, gr.Chatbot]
    strips: dict[str, gr.HTML]
    reading: gr.HTML
    bars: gr.HTML
    heatmap: gr.HTML
    load: gr.HTML
    weighed: gr.Dataframe
    status: gr.HTML
    sampling: list[Any]
    system: gr.Textbox
    trace: gr.DownloadButton
    page: gr.DownloadButton
    saved: gr.UploadButton

    @property
    def shown(self) -> list[Any]:
        """What a view of the conversation fills."""
        columns = [part for key in COLUMNS for part in (self.titles[key], self.chatbots[key], self.strips[key])]
        return [self.answers, self.histories, *columns, *self.gates, self.status]

    @property
    def gates(self) -> list[gr.HTML]:
        """What the gates are drawn in."""
        return [self.bars, self.heatmap, self.load]

    @property
    def files(self) -> list[gr.DownloadButton]:
        return [self.trace, self.page]


def build(
    services: Services,
    dataset: gr.Dropdown,
    run: gr.Dropdown,
    model: gr.Dropdown,
    tab: gr.Tab,
    kept: gr.BrowserState,
) -> None:
    parts = _widgets()
    _wire_reload(services, parts, tab, kept)
    _wire_choices(services, parts, dataset, run, model, tab)
    _wire_conversation(services, parts, run, model)
    _wire_files(services, parts)
    _wire_tokens(services, parts)
    heads_alone.build(services, run, parts.system)


def _widgets() -> _Parts:
    answers, histories = gr.State({}), gr.State({})
    with gr.Accordion("Held-out rows: click one to ask it", open=True, elem_id="heldout-rows"):
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
        chosen = gr.CheckboxGroup(
            [(name, key) for key, name in COLUMNS.items()],
            value=SHOWN_FIRST,
            label="Who answers, side by side",
            elem_id="chat-columns",
            min_width=320,
        )
        other = gr.Dropdown([], value=None, label="The other run", visible=False, elem_id="chat-other-run")
    with gr.Accordion("Steer the gates", open=True, visible=False, elem_id="steering") as steer_box:
        steer = steering.build()
    with gr.Row():
        prompt = gr.Textbox(
            placeholder="Ask them something", show_label=False, lines=1, max_lines=6, scale=6, elem_id="prompt"
        )
        send = gr.Button("Send", variant="primary", scale=1, min_width=90, elem_id="send")
        stop = gr.Button("Stop", scale=1, min_width=90, elem_id="chat-stop")
    with gr.Row():
        again = gr.Button("Answer again", size="sm", min_width=120, scale=0, elem_id="chat-again")
        edit = gr.Button("Edit the question", size="sm", min_width=140, scale=0, elem_id="chat-edit")
        clear = gr.Button("Clear", size="sm", min_width=90, scale=0, elem_id="clear")
        free = gr.Button("Free memory", size="sm", min_width=120, scale=0, elem_id="chat-free")
        length = sentence("", elem_id="prompt-length")
    expected = sentence("", elem_id="expected")
    columns, titles, chatbots, strips = {}, {}, {}, {}
    with gr.Row():
        for key in COLUMNS:
            with gr.Column(min_width=300, visible=key in SHOWN_FIRST) as columns[key]:
                titles[key] = sentence("", elem_id=f"title-{key}", elem_classes=["column-title"])
                chatbots[key] = _chatbot(key)
                strips[key] = token_strip(f"strip-{key}")
    reading = sentence("", elem_id="gate-reading")
    with gr.Row():
        bars = plot_panel("bars", "Gate of each head", empty="Gates of the newest token are drawn here.")
        heatmap = plot_panel("heatmap", "Gates by layer and head", empty="Gates by layer and head are drawn here.")
        load = plot_panel(
            "load-so-far", "Mean gates of the answer, by layer and head", empty="The mean of the answer is drawn here."
        )
    weighed = gr.Dataframe(
        headers=["token that could have come", "probability"],
        interactive=False,
        visible=False,
        elem_id="weighed",
        label="What the model weighed here, before temperature",
    )
    status = sentence("", elem_id="chat-status")
    sentence(HOW_TO_READ)
    with gr.Accordion("Sampling, system prompt", open=False):
        with gr.Row():
            sampling: list[Any] = [
                gr.Slider(1, 2048, value=128, step=1, label="Longest answer, tokens", elem_id="length"),
                gr.Slider(0, 2, value=0, step=0.1, label="Temperature (0: always the likeliest token)"),
                gr.Slider(0.05, 1, value=1, step=0.05, label="Top p"),
                gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="chat-seed"),
            ]
        system = gr.Textbox("", label="System prompt", lines=1, max_lines=6, elem_id="system")
    with gr.Row():
        trace = gr.DownloadButton(
            "Save the answer", size="sm", scale=0, min_width=140, interactive=False, elem_id="save-trace"
        )
        page = gr.DownloadButton(
            "Save as a page that replays it", size="sm", scale=0, min_width=220, interactive=False, elem_id="save-page"
        )
        saved = upload_button("Open a saved answer", "open-trace", [".json"], 180)
    return _Parts(
        answers=answers,
        histories=histories,
        rows=rows,
        chosen=chosen,
        other=other,
        steer_box=steer_box,
        steer=steer,
        prompt=prompt,
        send=send,
        stop=stop,
        again=again,
        edit=edit,
        clear=clear,
        free=free,
        length=length,
        expected=expected,
        columns=columns,
        titles=titles,
        chatbots=chatbots,
        strips=strips,
        reading=reading,
        bars=bars,
        heatmap=heatmap,
        load=load,
        weighed=weighed,
        status=status,
        sampling=sampling,
        system=system,
        trace=trace,
        page=page,
        saved=saved,
    )


def _wire_reload(services: Services, parts: _Parts, tab: gr.Tab, kept: gr.BrowserState) -> None:
    """The browser keeps which answers it had, the server what they were."""

    @shown
    def reopen(answers: dict[str, str], kept: dict[str, str]) -> Any:
        view = answer_actions.reopen(services, kept) if kept and not answers else None
        return (*_shown(view), gr.CheckboxGroup(value=list(view.columns))) if view else gr.skip()

    parts.answers.change(lambda answers: answers, parts.answers, kept, **LATEST)
    reopened = tab.select(reopen, [parts.answers, kept], [*parts.shown, parts.chosen], **QUIET)
    _offer_files(services, parts, reopened)


def _wire_choices(
    services: Services, parts: _Parts, dataset: gr.Dropdown, run: gr.Dropdown, model: gr.Dropdown, tab: gr.Tab
) -> None:
    """What can be asked, who can answer, and what can be steered follow dataset and run."""

    @shown
    def prepare(dataset_id: str) -> list:
        return actions.prompts(services, dataset_id)

    @shown
    def arrange(run_id: str | None, model: str, chosen: list[str], other: str | None, answers: dict[str, str]) -> tuple:
        known = [(label, one) for label, one in run_choices(services) if one != run_id]
        kept = other if other in {one for _, one in known} else None
        return (
            gr.Dropdown(choices=known, value=kept, visible="other" in chosen),
            gr.Accordion(visible="steered" in chosen),
            *(gr.Column(visible=key in chosen) for key in COLUMNS),
            *(say(title) for title in actions.titles(services, run_id, model, answers).values()),
        )

    @shown
    def name_heads(run_id: str | None, pin: int | None, mute: list[int]) -> tuple:
        return steering.heads_named(actions.heads_of(services, run_id), pin, mute)

    gr.on([tab.select, dataset.change], prepare, dataset, parts.rows, **LATEST)
    gr.on(
        [tab.select, run.change, model.change, parts.chosen.change, parts.answers.change],
        arrange,
        [run, model, parts.chosen, parts.other, parts.answers],
        [parts.other, parts.steer_box, *parts.columns.values(), *parts.titles.values()],
        **LATEST,
    )
    naming = [parts.steer.pin, parts.steer.mute]
    gr.on([tab.select, run.change], name_heads, [run, *naming], naming, **LATEST)


def _wire_conversation(services: Services, parts: _Parts, run: gr.Dropdown, model: gr.Dropdown) -> None:
    """Ask, stop, ask again, change the question, clear."""

    @shown_stream
    def answer(
        request: gr.Request,
        run_id: str | None,
        model: str,
        chosen: list[str],
        other: str | None,
        histories: dict[str, list],
        prompt: str,
        system: str,
        *held: Any,
    ) -> Iterator[tuple]:
        longest, heat, top_p, seed, *gates = held
        actions.check_prompt(prompt)
        is_newest = services.newest(request.session_hash or "", "chat")
        closed = gr.DownloadButton(interactive=False)
        yield (
            *[gr.skip()] * (len(parts.shown) - 1),
            say("Loading the model …"),
            *("", gr.Dataframe(visible=False), gr.skip(), closed, closed),
        )
        try:
            steered = steering.read(*gates) if "steered" in chosen else None
            asked = actions.columns(services, chosen, run_id, model, other, steered)
        except Exception:
            yield (*[gr.skip()] * (len(parts.shown) - 1), "", *[gr.skip()] * 5)  # nothing is loading any more
            raise
        sampling = Sampling(int(longest), heat, top_p, int(seed or 0))
        sent: Any = ""  # the prompt's box is emptied once the question stands in the conversation
        for view in until_superseded(is_newest, actions.stream(services, asked, histories, prompt, sampling, system)):
            yield (*_shown(view), gr.skip(), gr.skip(), sent, gr.skip(), gr.skip())
            sent = gr.skip()

    @shown
    def take(table: gr.SelectData) -> tuple:
        question, wanted = table.row_value[0], table.row_value[1]
        return question, say(f"Expected answer: {wanted}")

    @shown
    def measure(run_id: str | None, model: str, prompt: str, system: str, histories: dict[str, list]) -> str:
        return say(actions.length_line(services, run_id, model, prompt, system, histories))

    def take_back(histories: dict[str, list]) -> tuple:
        """The last question, and the conversations without it and its answers."""
        asked = [said[-2]["content"] for said in histories.values() if len(said) > 1]
        left = {key: said[:-2] for key, said in histories.items()}
        return asked[0] if asked else "", left, *(_displayed(left.get(key, [])) for key in COLUMNS)

    inputs = [run, model, parts.chosen, parts.other, parts.histories, parts.prompt, parts.system]
    asking: dict[str, Any] = {
        "fn": answer,
        "inputs": [*inputs, *parts.sampling, *parts.steer.fields],
        "outputs": [*parts.shown, parts.reading, parts.weighed, parts.prompt, *parts.files],
        "concurrency_id": MODEL_QUEUE,
        "concurrency_limit": CHATTERS,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    taken_back = [parts.prompt, parts.histories, *parts.chatbots.values()]
    typed = gr.on([parts.send.click, parts.prompt.submit], **asking)
    row = parts.rows.select(take, None, [parts.prompt, parts.expected], api_visibility="private").then(**asking)
    repeated = parts.again.click(take_back, parts.histories, taken_back, **QUIET).then(**asking)
    parts.edit.click(take_back, parts.histories, taken_back, **QUIET)
    for asked in (typed, row, repeated):
        _offer_files(services, parts, asked)
    stopped = parts.stop.click(lambda: None, None, None, cancels=[typed, row, repeated], **QUIET)
    _offer_files(services, parts, stopped)
    empty = ["", [], EMPTY] * len(COLUMNS)
    parts.clear.click(
        lambda: (
            *({}, {}, *empty, *[""] * (len(parts.gates) + 3), gr.Dataframe(visible=False)),
            *[gr.DownloadButton(interactive=False)] * len(parts.files),
        ),
        None,
        [*parts.shown, parts.reading, parts.expected, parts.weighed, *parts.files],
        cancels=[typed, row, repeated],
        api_visibility="private",
    )
    parts.free.click(lambda: say(actions.free_memory(services)), None, parts.status, **QUIET)
    gr.on(
        [parts.prompt.change, parts.system.change],
        measure,
        [run, model, parts.prompt, parts.system, parts.histories],
        parts.length,
        **LATEST,
    )


def _wire_files(services: Services, parts: _Parts) -> None:
    """Answers saved, and opened again."""

    @shown
    def open_saved(file: str) -> tuple:
        return *_shown(answer_actions.replay(services, Path(file))), gr.CheckboxGroup(value=["run"])

    opened = parts.saved.upload(open_saved, parts.saved, [*parts.shown, parts.chosen], **QUIET)
    _offer_files(services, parts, opened)


def _offer_files(services: Services, parts: _Parts, event: Any) -> None:
    """After an event the answer that is looked at can be saved; not while it grows, which would write it each time."""

    @shown
    def write(answers: dict[str, str]) -> tuple:
        chosen = answer_actions.watched(services, answers)
        if chosen is None:
            return gr.DownloadButton(interactive=False), gr.DownloadButton(interactive=False)
        files = answer_actions.save(services, chosen), answer_actions.save_page(services, chosen)
        return tuple(gr.DownloadButton(value=file, interactive=True) for file in files)

    event.then(write, parts.answers, parts.files, **QUIET)


def _wire_tokens(services: Services, parts: _Parts) -> None:
    """A selected token: its gates, and what else could have come."""
    for key, strip in parts.strips.items():

        @shown
        def pick(answers: dict[str, str], event: gr.EventData, key: str = key) -> tuple:
            place, beside = int(event._data["index"]), {one: answers[one] for one in answers if one != key}
            seen = answer_actions.pick(services, answers.get(key, ""), place, beside)
            table = gr.Dataframe(value=seen.alternatives, visible=bool(seen.alternatives))
            return *_drawn(seen.gates), say(seen.sentence), table

        picked = strip.pick(pick, parts.answers, [*parts.gates, parts.reading, parts.weighed], **QUIET)
        _offer_files(services, parts, picked)


def _shown(view: ChatView) -> tuple:
    """A view as the values of `_Parts.shown`; columns that are not in it are emptied."""
    values: list[Any] = []
    for key in COLUMNS:
        found = view.columns.get(key)
        values += [say(found.title), _displayed(found.messages), found.strip] if found else ["", [], EMPTY]
    ids = {key: one.answer_id for key, one in view.columns.items()}
    said = {key: one.messages for key, one in view.columns.items()}
    gates = _drawn(view.gates) if view.gates else [gr.skip()] * 3
    return ids, said, *values, *gates, say(view.status)


def _drawn(gates: GateFigures) -> tuple[str, str, str]:
    return gates.bars, gates.heatmap, gates.load


def _chatbot(key: str) -> gr.Chatbot:
    """Models' and users' text is shown as it is: neither Markdown nor HTML."""
    return gr.Chatbot(
        show_label=False,
        height=220,
        buttons=["copy"],
        render_markdown=False,
        sanitize_html=True,
        feedback_options=None,
        elem_id=f"chat-{key}",
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

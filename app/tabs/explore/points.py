"""A's and heads as points, and the matrix behind a point."""

from collections.abc import Iterator

import gradio as gr

from hydralora.figures import MatrixColour
from hydralora.projection import METHODS, Method

from ...actions.explore import points as actions
from ...actions.explore.head_use import is_measured
from ...actions.run_choices import run_choices
from ...page.buttons import method_choice, new_choices
from ...page.context import Context
from ...page.handlers import Component, Updates, handler, latest
from ...page.text import explain, reading_help, say, sentence
from ...services import Services
from ...widgets.plot import plot_panel, selected_ids
from .head_use import HeadTables
from .shapes import ShapePanels

NOTHING = "Lasso points, or click one, to list their matrices here"
CLICK = "Click a point above: its matrix is shown here."


def build(context: Context, tab: gr.Tab, view_tab: gr.Tab) -> None:
    """The view."""
    pictures = ShapePanels("ab", "A and heads as points", "ab-help")
    with gr.Row(elem_classes=["with-rail"]):
        with gr.Column(elem_id="points", elem_classes=["picture"]):
            pictures.draw()
            caption = sentence("", elem_id="ab-caption")
            explanation = reading_help("", "ab-help")
        with gr.Column(elem_classes=["rail"]):
            form = _Form(pictures)
    matrix = _Matrix()
    matrix.wire(context.services, form, pictures)

    @latest(context.services, "points")
    def show(*values: Component) -> Iterator[Updates]:
        for view in actions.view(context.services, form.request(*values), form.colour_by(*values)):
            drawn = {} if view.figures is None else pictures.figures(view.figures)
            told = {caption: say(view.sentence), explanation: explain(view.help)}
            yield told | drawn | pictures.shapes(view.shapes, view.drawn)

    @handler
    def other_runs(run_id: str | None, chosen: list[str]) -> gr.Dropdown:
        known = [(label, value) for label, value in run_choices(context.services) if value != run_id]
        kept = [value for value in chosen if value in {run_id for _, run_id in known}]
        return new_choices(gr.Dropdown, known, chosen, kept)

    inputs = [context.run, *form.fields]
    opened = [tab.select, view_tab.select]
    signals = context.signals
    signals.follow([*opened, context.run.change], other_runs, [context.run, form.others], form.others)
    changes = [field.change for field in inputs]
    signals.follow([*opened, *changes], show, inputs, [*pictures.panels, caption, explanation, pictures.choice])
    signals.follow(changes, matrix.empty, None, matrix.outputs)
    for panel in pictures.panels:  # gr.on takes no custom events
        panel.lasso(matrix.select, inputs, matrix.table, api_visibility="private")
        panel.pick(matrix.pick, inputs, matrix.outputs, api_visibility="private")


class _Form:
    """What is drawn, and how."""

    def __init__(self, pictures: ShapePanels) -> None:
        kinds = [("Heads", "heads"), ("A and heads", "parts"), ("Products B·A", "products")]
        self.kind = gr.Radio(kinds, value="heads", label="Show", elem_id="ab-what")
        self.method = method_choice("ab-method")
        colours = ["head", "kind", "layer", "module", "run", "step"]
        self.colour = gr.Radio(colours, value="head", label="Colour by", elem_id="ab-colour")
        self.dims = gr.Radio([("2-D", 2), ("3-D", 3)], value=2, label="Dimensions", elem_id="ab-dims")
        with gr.Accordion("Other runs, seed, neighbours", open=False, elem_id="ab-more"):
            self.others = gr.Dropdown(
                [], value=[], multiselect=True, label="Other runs in the same figure", elem_id="ab-runs"
            )
            with_neighbours = [method for method in METHODS.values() if method.neighbours]
            names = ", ".join(f"{method.name}'s {method.neighbours_name}" for method in with_neighbours)
            defaults = ", ".join(f"{method.neighbours} for {method.name}" for method in with_neighbours)
            self.neighbours = gr.Number(
                None,
                label=f"Neighbours: {names}",
                info=f"Empty: {defaults}. PCA has none.",
                precision=0,
                elem_id="ab-neighbours",
            )
            seeded = ", ".join(f"{method.name}'s" for method in METHODS.values() if method.is_seeded)
            info = f"{seeded}. The others use no random numbers."
            self.seed = gr.Number(0, label="Seed", info=info, precision=0, minimum=0, elem_id="ab-seed")
        pictures.choice.render()
        self.shapes = pictures.choice

    @property
    def fields(self) -> list[Component]:
        """What `request` and `colour_by` read, after the run."""
        return [
            self.others,
            self.kind,
            self.method,
            self.dims,
            self.neighbours,
            self.seed,
            self.shapes,
            self.colour,
        ]

    @staticmethod
    def request(
        run_id: str | None,
        others: list[str],
        kind: actions.Shown,
        method: Method,
        dims: int,
        neighbours: float | None,
        seed: float | None,
        shapes: list[str] | None,
        colour: MatrixColour,
    ) -> actions.PointsRequest:
        return actions.PointsRequest(
            (run_id, *others) if run_id else (),
            kind,
            method,
            dims,
            int(neighbours) if neighbours else None,
            int(seed or 0),
            steps=colour == "step",
            shapes=tuple(shapes or ()),
        )

    @staticmethod
    def colour_by(*values: Component) -> MatrixColour:
        return values[-1]


class _Matrix:
    """The matrix behind a point, and the table of selected points; `select` and `pick` are the panels' listeners."""

    def __init__(self) -> None:
        self.about = sentence(CLICK, elem_id="ab-about")
        with gr.Row():
            self.spectrum = plot_panel("ab-spectrum", "Singular values of the matrix")
            self.siblings = plot_panel("ab-siblings", "Cosines with the module's other heads")
        self.tables = HeadTables("ab")
        self.table = gr.Dataframe(
            headers=actions.COLUMNS, interactive=False, elem_id="ab-points", label=NOTHING, max_height=320
        )

    @property
    def outputs(self) -> list[Component]:
        return [self.about, self.spectrum, self.siblings, *self.tables.outputs, self.table]

    def wire(self, services: Services, form: _Form, pictures: ShapePanels) -> None:
        @handler
        def select(event: gr.EventData, *values: Component) -> gr.Dataframe:
            return self._selected(services, form.request(*values), selected_ids(event))

        @handler
        def pick(event: gr.EventData, *values: Component) -> Updates:
            request, ids = form.request(*values), selected_ids(event)
            view = actions.look_into(services, request, ids[0]) if ids else actions.MatrixView("")
            return self._updates(services, view) | {self.table: self._selected(services, request, ids)}

        self.select, self.pick = select, pick

    def empty(self) -> Updates:
        """Clear the selection: a new figure has none."""
        closed = gr.HTML(value="", visible=False)
        nothing = {self.about: say(CLICK), self.spectrum: closed, self.siblings: closed}
        return nothing | self.tables.hidden() | {self.table: gr.Dataframe(value=[], label=NOTHING)}

    def _updates(self, services: Services, view: actions.MatrixView) -> Updates:
        run_id, module, head = view.head or (None, "", None)
        unread = run_id is not None and not is_measured(services, run_id)
        more = " To see the tokens and rows that use it, read held-out rows in Components and heads." if unread else ""
        return {
            self.about: say(view.sentence + more),
            self.spectrum: gr.HTML(value=view.spectrum, visible=bool(view.spectrum)),
            self.siblings: gr.HTML(value=view.siblings, visible=bool(view.siblings)),
        } | self.tables.of(services, run_id, head, module)

    @staticmethod
    def _selected(services: Services, request: actions.PointsRequest, ids: list[int]) -> gr.Dataframe:
        rows = actions.rows(services, request, ids)
        return gr.Dataframe(value=rows, label=f"{len(rows)} selected matrices" if rows else NOTHING)

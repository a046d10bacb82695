"""The frame of every page, wired: the bar, the steps, and the chosen run and dataset, which follow each other."""

import html

import gradio as gr

from hydralora.data.store import DEMO

from ..actions import data, shell
from ..actions.run_choices import newest_run
from ..page.browser_state import KeptChoices
from ..page.context import Context
from ..page.handlers import QUIET, Component, Updates, handler
from ..page.signals import Signals
from ..services import Services
from ..widgets.events import told_by
from ..widgets.shell import bar, stepper

LOOK_SECONDS = 2.0


class Shell:
    """The bar and the steps; `dataset` and `run` hold the ids of the chosen ones."""

    def __init__(self, services: Services) -> None:
        self._services = services
        with gr.Column(elem_id="shell"):
            self.signals = Signals()
            self.bar = bar({"runs": [], "run": None, "datasets": [], "dataset": DEMO})
            self.stepper = stepper(shell.steps(services, None, DEMO, None))
            self.dataset = gr.Textbox(DEMO, label="Dataset", elem_id="dataset", elem_classes=["off"])
            self.run = gr.Textbox("", label="Run", elem_id="run", elem_classes=["off"])
        self._shown = gr.State(None)  # what bar and steps show, so that only changes are sent

    def restore(self, page: gr.Blocks, place: KeptChoices) -> None:
        """Choose what was chosen last in this browser, or what the address names (?run=ID)."""
        services = self._services

        def reopen(stored: dict[str, str] | None, request: gr.Request) -> dict[str, str]:
            stored = stored or {}
            linked = str(request.query_params.get("run") or "")
            known = [run.id for run in services.store.all()]  # a request may look for what no set can
            if linked and linked not in known:
                gr.Warning(f"There is no run {html.escape(linked[:40])} in this workspace.")
            datasets = [value for _, value in data.choices(services)]
            run_id, dataset_id = stored.get("run"), stored.get("dataset")
            if linked in known or dataset_id not in datasets:  # a link, or the first time in this browser
                run_id = linked if linked in known else newest_run(services)
                dataset_id = shell.dataset_of(services, run_id) or DEMO
            elif run_id not in known:
                run_id = shell.run_on(services, None, dataset_id)
            return stored | {"run": run_id or "", "dataset": str(dataset_id)}

        place.restore(page, reopen, {"run": self.run, "dataset": self.dataset}, together=True)

    def wire(self, context: Context, k: gr.State) -> None:
        """Show the chosen run and dataset, let a person choose others, and each follow the other.

        Args:
            k: the number of components found for the dataset.
        """
        services, run, dataset = self._services, self.run, self.dataset

        def pick_run(event: gr.EventData) -> Updates:
            return choose_run(context, _picked(event))

        self.bar.pick_run(pick_run, None, [run, dataset], **QUIET)
        self.bar.pick_dataset(_picked, None, dataset, **QUIET)

        @handler
        def rename_run(run_id: str, event: gr.EventData) -> None:
            shell.rename(services, run_id, str(told_by(event).get("name", ""))[:60])

        def show(run_id: str, dataset_id: str, k: int | None, before: object) -> Updates:
            views = shell.bar(services, run_id, dataset_id), shell.steps(services, run_id, dataset_id, k)
            if before == list(views):
                return gr.skip()
            # A run that is gone, such as one deleted on another page, can't stay chosen.
            gone = {run: shell.run_on(services, None, dataset_id) or ""} if run_id and not views[0]["run"] else {}
            return {self.bar: views[0], self.stepper: views[1], self._shown: list(views)} | gone

        # What is chosen already is not sent: a late answer would undo what a person has chosen meanwhile.
        def to_run(run_id: str, dataset_id: str) -> Updates:
            wanted = shell.run_on(services, run_id, dataset_id) or ""
            return gr.skip() if wanted == run_id else {run: wanted}

        self.signals.follow([dataset.change], to_run, [run, dataset], run)
        shown: list[Component] = [self.bar, self.stepper, self._shown, run]
        listing = {"fn": show, "inputs": [run, dataset, k, self._shown], "outputs": shown}
        self.bar.rename(rename_run, run, None, **QUIET).then(**listing, **QUIET)
        changes = [run.change, dataset.change, k.change, gr.Timer(LOOK_SECONDS).tick, context.page.load]
        self.signals.follow(changes, show, listing["inputs"], shown)


def _picked(event: gr.EventData) -> str:
    return str(told_by(event).get("id", ""))


def choose_run(context: Context, run_id: str) -> Updates:
    """Choose a run, and with it its dataset, if this workspace has it."""
    dataset_id = shell.dataset_of(context.services, run_id)
    return {context.run: run_id} | ({context.dataset: dataset_id} if dataset_id else {})

"""The page's blocks, whose streamed updates all reach a page that is busy."""

from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction


class Blocks(gr.Blocks):
    """Gradio's blocks, but an update is never sent as a change of the one before.

    Gradio sends each update of a stream as a difference, which its page applies in place: to the very object that it
    may not have shown yet. If a value is followed by "no change", a busy page would show neither.
    """

    def handle_streaming_diffs(
        self,
        block_fn: BlockFunction,
        data: list[Any],
        session_hash: str | None,
        run: str | None,
        final: bool,
        simple_format: bool = False,
    ) -> list[Any]:
        before = list(self.pending_diff_streams.get(session_hash, {}).get(run, ()))
        now = list(data)
        sent = super().handle_streaming_diffs(block_fn, data, session_hash, run, final, simple_format)
        if final or simple_format:
            return sent
        for i, (old, new) in enumerate(zip(before, now, strict=False)):
            if old != new and (_is_update(old) or _is_update(new)):
                sent[i] = [["replace", [], new]]
        return sent


def _is_update(value: object) -> bool:
    return isinstance(value, dict) and value.get("__type__") == "update"

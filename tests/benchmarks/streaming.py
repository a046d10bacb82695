"""How smooth the page stays while a long answer streams: python -m tests.benchmarks.streaming [--tokens 2000].

The default base model with an adapter of 3 heads answers at a high temperature, so that it goes on, in a real browser
on the same cores. Told are the times between the browser's frames, by hundreds of tokens, and the updates a second.
"""

import argparse
import os
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from hydralora.runs.jobs import JobManager
from hydralora.runs.store import RunStore
from tests.benchmarks.answering import BROWSER
from tests.benchmarks.chatting import QUESTION, short_run
from tests.browser.conftest import ARGUMENTS
from tests.browser.steps import open_page
from tests.serving import running_app

PART = 250  # tokens that are told together
WATCH = """() => {
  window.frames_ = [];
  let before = performance.now();
  const look = (now) => {
    window.frames_.push([document.querySelectorAll('#answer-run .token').length, now - before]);
    before = now;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""


def stream(page: Page, tokens: int) -> list[tuple[int, float]]:
    """(tokens so far, milliseconds since the frame before) of every frame."""
    open_page(page, "chat")
    page.locator("#chat-columns").get_by_text("Base model").click()
    page.get_by_text("Sampling").click()
    page.locator("#length input[type=number]").fill(str(tokens))
    page.get_by_label("number input for Temperature (0: always the likeliest token)").fill("2")
    page.locator("#prompt textarea").fill(QUESTION)
    page.evaluate(WATCH)
    page.locator("#send").click()
    page.evaluate("window.ended_ = false; document.addEventListener('answer-ended', () => (window.ended_ = true))")
    page.wait_for_function("window.ended_", timeout=1_200_000)
    print(page.locator("#answer-run .state").inner_text())
    return page.evaluate("window.frames_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=2000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace = Path(folder) / "workspace"
        short_run(JobManager(RunStore(workspace)), 0)
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        with running_app(workspace, os.environ) as app:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(app.url)
            frames = stream(page, chosen.tokens)
        browser.close()
    for first in range(0, frames[-1][0], PART):
        took = sorted(ms for count, ms in frames if first < count <= first + PART)
        changes = sum(a[0] != b[0] for a, b in pairwise(frames) if first < b[0] <= first + PART)
        if took:
            print(
                f"tokens {first + 1:5} to {first + PART:5}: a frame takes {statistics.median(took):4.0f} ms, 95 % "
                f"at most {took[int(0.95 * len(took))]:4.0f} ms, {1000 * changes / sum(took):.1f} updates a second"
            )


if __name__ == "__main__":
    main()

"""How soon the page answers a click while it clusters: python -m tests.benchmarks.answering FILE [--rows 100000].

Rows are made from those of FILE, as tests.benchmarks.components_tab does. In a real browser the Components page is
opened, and until its number shows the Data page is opened and a button pressed that only the server can answer.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.benchmarks.components_tab import write_rows
from tests.browser.conftest import ARGUMENTS
from tests.browser.steps import UPLOAD, open_page
from tests.serving import running_app

BROWSER = os.environ.get("HYDRALORA_BROWSER") or "/usr/bin/chromium"
CLICK = """async ([button, shows]) => {
  const start = performance.now();
  document.querySelector(button).click();
  const seen = () => { const node = document.querySelector(shows); return node && node.offsetParent !== null; };
  while (!seen()) await new Promise((next) => requestAnimationFrame(next));
  return performance.now() - start;
}"""


def measure(page: Page, path: Path) -> None:
    """Upload, cluster, and click meanwhile."""
    page.locator(UPLOAD).set_input_files(path)
    page.wait_for_function(
        "name => document.querySelector('#data-summary').textContent.includes(name)", arg=path.name, timeout=300_000
    )
    page.get_by_role("button", name="Lengths in tokens").click()
    page.wait_for_function("document.querySelector('#lengths .plot')?.data?.length > 0", timeout=120_000)
    answers = [_answer(page) for _ in range(5)]
    print(f"{'nothing else to do':20} median {statistics.median(answers):5.0f} ms, most {max(answers):5.0f} ms")
    open_page(page, "components")
    page.wait_for_selector("#stop-clustering", state="visible", timeout=60_000)
    start = time.monotonic()
    tabs, answers = [], []
    while page.locator("#stop-clustering").count():
        tabs.append(page.evaluate(CLICK, ["button[role=tab][data-tab-id=data]", "#remove"]))
        answers.append(_answer(page))
        page.evaluate("document.querySelector('button[role=tab][data-tab-id=components]').click()")
        page.wait_for_timeout(300)
    print(f"clustering took {time.monotonic() - start:.0f} s, {len(answers)} clicks meanwhile")
    for name, values in (("another tab shows", tabs), ("the server answers", answers)):
        if values:
            print(f"{name:20} median {statistics.median(values):5.0f} ms, most {max(values):5.0f} ms")


def _answer(page: Page) -> float:
    """Milliseconds until the server answers a button of the Data tab."""
    milliseconds = page.evaluate(CLICK, ["#remove", "#remove-no"])
    page.evaluate("document.querySelector('#remove-no')?.click()")
    page.wait_for_selector("#remove-no", state="hidden")
    return milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(chosen.file, path, chosen.rows)
        app = running_app(Path(folder) / "workspace", os.environ, "--max-upload", "1gb")
        with app as running, sync_playwright() as playwright:
            page = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS).new_page()
            page.goto(running.url)
            measure(page, path)


if __name__ == "__main__":
    main()

"""How soon the page can be used, and how much it loads: python -m tests.benchmarks.opening [--times 3].

A fresh workspace in a real browser without a cache. Told are the seconds until an example prompt can be clicked, until
the page has come to rest, and the bytes that came over the network, by kind; Plotly is not among them until a figure
is needed.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.benchmarks.answering import BROWSER
from tests.browser.conftest import ARGUMENTS
from tests.serving import running_app

REST = 3000  # milliseconds in which whatever the page still loads is counted; its connection for events stays open


def opened(browser: Browser, url: str) -> tuple[float, Counter[str]]:
    """Seconds until the first chip can be clicked; bytes by kind of resource."""
    page = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    kinds: dict[str, str] = {}
    weights: Counter[str] = Counter()

    def received(event: dict[str, str]) -> None:
        kinds[event["requestId"]] = event["type"]

    def finished(event: dict[str, str]) -> None:
        weights[kinds.get(event["requestId"], "Other")] += int(event["encodedDataLength"])

    client.on("Network.responseReceived", received)
    client.on("Network.loadingFinished", finished)
    began = time.monotonic()
    page.goto(url, wait_until="commit")
    page.locator("#chips button").first.click(trial=True)
    seconds = time.monotonic() - began
    page.wait_for_timeout(REST)
    page.context.close()
    return seconds, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        with running_app(Path(folder) / "workspace", os.environ | {"HF_HUB_OFFLINE": "1"}) as app:
            found = [opened(browser, app.url) for _ in range(times)]
        browser.close()
    print(f"first click: {statistics.median(seconds for seconds, _ in found):.2f} s, median of {times}")
    weights = found[-1][1]
    print(f"weight: {sum(weights.values()) / 1000:.0f} kB: {dict(weights.most_common())}")


if __name__ == "__main__":
    main()

"""The README's pictures, taken from the app itself: python -m tests.pictures.

A fresh workspace in a real browser goes through the first minute: an example is clicked, its answer streams, another
head gets the whole weight. assets/chat.png is the page at the end, in true colours; assets/first-minute.webp is the
way there, at its real speed.
"""

import io
import os
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from tests.benchmarks.answering import BROWSER
from tests.browser.conftest import ARGUMENTS
from tests.serving import running_app

ASSETS = Path(__file__).parents[1] / "assets"
WIDTH, HEIGHT = 1280, 720
SHOWN = 960, 540  # of the moving picture
START = 500.0, 420.0  # of the pointer
QUALITY = 60  # of WebP, 0-100
# A screenshot shows no pointer, so the page draws one.
POINTER = """() => {
  const pointer = Object.assign(document.createElement('div'), {id: 'film-pointer'});
  pointer.style = 'position: fixed; z-index: 99; width: 22px; height: 22px; margin: -11px; border-radius: 50%; ' +
    'pointer-events: none; background: rgb(0 0 0 / .25); border: 2px solid #111827; left: LEFTpx; top: TOPpx; ' +
    'box-sizing: border-box; transition: background .3s';
  document.body.append(pointer);
  addEventListener('mousemove', ({clientX, clientY}) =>
    Object.assign(pointer.style, {left: `${clientX}px`, top: `${clientY}px`}));
  addEventListener('mousedown', () => { pointer.style.background = '#1d4ed8'; });
  addEventListener('mouseup', () => setTimeout(() => { pointer.style.background = 'rgb(0 0 0 / .25)'; }, 400));
}"""


class Film:
    """Pictures of a page with the times at which they were taken."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._pictures: list[tuple[float, Image.Image]] = []
        self._pointer = START

    def shoot(self) -> None:
        picture = Image.open(io.BytesIO(self._page.screenshot())).convert("RGB")
        self._pictures.append((time.monotonic(), picture.resize(SHOWN, Image.Resampling.LANCZOS)))

    def until(self, holds: Callable[[], bool], more: float = 0) -> None:
        """Film until something holds, and some seconds more."""
        while not holds():
            self.shoot()
        end = time.monotonic() + more
        while time.monotonic() < end:
            self.shoot()

    def click(self, target: Locator) -> None:
        """Move the pointer there in half a second, and click."""
        box = target.bounding_box()
        assert box
        (x, y), to = self._pointer, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for part in (0.25, 0.5, 0.75, 1):
            self._page.mouse.move(x + part * (to[0] - x), y + part * (to[1] - y))
            self.shoot()
        self._pointer = to
        target.click()
        self.shoot()

    def save(self, path: Path) -> float:
        """Write the film; returns its seconds."""
        times = [taken for taken, _ in self._pictures]
        lasting = [round(1000 * (after - before)) for before, after in pairwise(times)] + [2000]
        first, *others = [picture for _, picture in self._pictures]
        first.save(path, save_all=True, append_images=others, duration=lasting, loop=0, quality=QUALITY, method=4)
        return sum(lasting) / 1000


def ended(page: Page, column: str) -> Callable[[], bool]:
    return lambda: page.locator(f"#answer-{column}[data-ended]").count() > 0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        page = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}).new_page()
        with running_app(Path(folder) / "workspace", os.environ) as app:
            page.goto(app.url)
            chip = page.locator("#chips button").filter(has_text="everse").first
            chip.wait_for()
            page.evaluate(POINTER.replace("LEFT", str(START[0])).replace("TOP", str(START[1])))
            film = Film(page)
            film.until(lambda: True, more=1)
            film.click(chip)
            film.until(ended(page, "run"), more=2)
            film.click(page.locator("#answer-run .tokens .token").nth(2))
            film.until(lambda: True, more=2)
            film.click(page.locator("#mixer .channel .solo").last)
            film.until(ended(page, "steered"), more=5)
            page.mouse.move(*START)
            page.locator("#film-pointer").evaluate("pointer => pointer.remove()")
            page.screenshot(path=ASSETS / "chat.png")
        browser.close()
    seconds = film.save(ASSETS / "first-minute.webp")
    for name in ("chat.png", "first-minute.webp"):
        print(f"{name}: {(ASSETS / name).stat().st_size / 1000:.0f} kB")
    print(f"the film lasts {seconds:.1f} s")


if __name__ == "__main__":
    main()

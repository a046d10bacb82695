"""What a person does in the page, and what a figure holds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.waiting import wait_until

UPLOAD = "#upload input[type=file]"
SCREENSHOTS = Path(__file__).parent.parent / "screenshots"
SIZE = 1280, 900
LISTED = "li[role=option]"  # of Gradio's lists; the bar's own are native
WORST = ("serious", "critical")  # of axe-core's findings
QUIET = 200  # milliseconds
LONGEST = 20_000  # milliseconds that a page may take to become quiet


def open_page(page: Page, name: str) -> None:
    """Open "data", "components", "train", "explore", "chat", "runs", "lab" or "learn" as a person does."""
    step = page.locator(f"#stepper a[data-page={name}]")
    step.wait_for(state="attached")
    if not step.is_visible():  # a narrow page
        page.get_by_role("button", name="Steps").click()
    step.click()
    expect_page(page, name)
    draw_frames(page)


def expect_page(page: Page, name: str) -> None:
    """The page that is open, in the steps and in the browser's address."""
    expect(page.locator(f"#stepper a[data-page={name}]")).to_have_attribute("aria-current", "page")
    expect(page.locator(f"#tabs button[data-tab-id={name}]")).to_have_attribute("aria-selected", "true")


def unfold(page: Page, title: str) -> None:
    """Unfold a panel by its title."""
    page.get_by_text(title).click()
    draw_frames(page)


def draw_frames(page: Page) -> None:
    """Wait for two frames: Gradio gives fields their first values again one frame after it shows them, and what is
    typed before that, faster than by any hand, is lost."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def unfold_form(page: Page) -> None:
    """Show the form of a new run: it is folded to one line where there is a run."""
    settle(page)  # where there is no run, the page unfolds it, on a busy machine later: then a click folds it again
    start = page.locator("#start")
    for _ in range(3):
        if not start.is_visible():
            page.locator("#setup > button").first.click()
        settle(page)
        if start.is_visible():
            return
    expect(start).to_be_visible()


def choose(page: Page, elem_id: str, option: str) -> None:
    page.locator(f"#{elem_id} input").click()
    page.locator(LISTED, has_text=option).click()
    expect(page.locator(LISTED)).to_have_count(0)  # the list fades away


def settle(page: Page) -> None:
    """Wait until nothing in the page has changed for a moment: figures are drawn again after a resize or a scroll."""
    changing = page.evaluate(
        """([quiet, longest]) => new Promise((done) => {
          let timer, last = null;
          const place = (node) => `"${node?.textContent.slice(0, 80)}" in #${node?.parentElement?.closest('[id]')?.id}`;
          const end = (result) => { observer.disconnect(); done(result); };
          const wait = () => { clearTimeout(timer); timer = setTimeout(() => end(null), quiet); };
          const isShown = ({target}) => !(target.closest ? target : target.parentElement)?.closest('.off');
          const observer = new MutationObserver((changes) => {
            const seen = changes.filter(isShown); // Gradio counts seconds in what it hides
            if (seen.length) { last = seen[0].target; wait(); }
          });
          observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
          setTimeout(() => end(place(last)), longest);
          wait();
        })""",
        [QUIET, LONGEST],
    )
    assert changing is None, f"the page has not come to rest for {LONGEST / 1000:.0f} s: {changing}"


def audited(page: Page, where: str) -> None:
    """axe-core finds nothing serious: https://github.com/dequelabs/axe-core/blob/develop/doc/rule-descriptions.md"""
    found = [
        f"{where}: {violation['id']} ({violation['impact']}), {violation['help']}: "
        + "; ".join(f"{' '.join(node['target'])} {node['failureSummary'][:160]}" for node in violation["nodes"][:4])
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in WORST
    ]
    assert found == [], "\n".join(found)


def audited_in_both_themes(page: Page, where: str) -> None:
    """As `audited`, in the page's light theme and in its dark one; it is light afterwards."""
    for dark in (True, False):
        page.evaluate("dark => studio.theme(dark)", dark)
        settle(page)
        audited(page, f"{where}, {'dark' if dark else 'light'}")


def catch(page: Page, elem_id: str, pattern: str) -> None:
    """Wait for a text that may soon be gone: `expect` looks once a second, this at every frame."""
    page.wait_for_function(
        "([id, pattern]) => new RegExp(pattern).test(document.getElementById(id).textContent)", arg=[elem_id, pattern]
    )


def photograph(page: Page, name: str) -> None:
    """For people to look at, in light and dark, wide and narrow; nothing is wider than the page."""
    SCREENSHOTS.mkdir(exist_ok=True)
    wide, height = SIZE
    for width in (390, wide):
        page.set_viewport_size({"width": width, "height": height})
        for theme in ("dark", "light"):
            page.evaluate("dark => document.body.classList.toggle('dark', dark)", theme == "dark")
            settle(page)
            page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{theme}.png", full_page=True, animations="disabled")
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} is wider than {width}"


def download_until(page: Page, elem_id: str, holds: Callable[[str], bool]) -> str:
    """Download a file until it holds what it shall: it is written after what is shown has changed. Returns its text."""

    def look() -> str | None:
        with page.expect_download() as download:
            page.locator(f"#{elem_id}").click()
        text = download.value.path().read_text(encoding="utf-8")
        return text if holds(text) else None

    return wait_until(look) or ""


def traces(page: Page, elem_id: str) -> list[dict[str, Any]]:
    """A figure's traces as drawn, with typed arrays as lists."""
    page.wait_for_function(f"document.querySelector('#{elem_id} .plot')?.data?.length > 0")
    return page.evaluate(
        """id => {
          const plain = (value) => ArrayBuffer.isView(value) ? Array.from(value)
            : Array.isArray(value) ? value.map(plain) : value;
          const graph = document.querySelector(`#${id} .plot`);
          return graph.data.map((trace, i) => {
            const full = graph.calcdata[i][0].trace;
            const z = full._input.z === undefined ? undefined : plain(full.z ?? trace.z);
            return {name: full.name, x: plain(full.x ?? trace.x), y: plain(full.y ?? trace.y), z};
          });
        }""",
        elem_id,
    )


def lasso(page: Page, plot: Locator) -> None:
    """Draw a lasso around the whole plotting area."""
    plot.scroll_into_view_if_needed()
    settle(page)
    box = plot.locator(".nsewdrag").first.bounding_box()
    assert box
    left, top, right, bottom = box["x"] + 3, box["y"] + 3, box["x"] + box["width"] - 3, box["y"] + box["height"] - 3
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top + 4)):
        page.mouse.move(x, y, steps=6)
    page.mouse.up()


def click_point(page: Page, elem_id: str, trace: int = 0, point: int = 0) -> None:
    """Click a point of a figure in two dimensions, where it is drawn."""
    plot = page.locator(f"#{elem_id} .plot")
    plot.scroll_into_view_if_needed()
    settle(page)
    at = plot.evaluate(
        """(graph, [trace, point]) => {
          const {xaxis, yaxis} = graph._fullLayout;
          const found = graph.calcdata[trace][0].trace;
          const box = graph.getBoundingClientRect();
          const place = (axis, values) => axis._offset + axis.d2p(values[point]);
          return [box.left + place(xaxis, found.x), box.top + place(yaxis, found.y)];
        }""",
        [trace, point],
    )
    page.mouse.move(*at)
    page.wait_for_function(f"document.querySelector('#{elem_id} .plot')._hoverdata?.length > 0")
    page.mouse.click(*at)

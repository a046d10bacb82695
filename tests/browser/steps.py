"""What a person does in the page, and what a figure holds."""

from typing import Any

from playwright.sync_api import Locator, Page, expect

UPLOAD = "input[data-testid='Upload a dataset-upload-button']"


def open_tab(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab).click()
    expect(page.get_by_role("tab", name=tab)).to_have_attribute("aria-selected", "true")


def choose(page: Page, elem_id: str, option: str) -> None:
    page.locator(f"#{elem_id} input").click()
    page.get_by_role("option", name=option).click()
    expect(page.get_by_role("option")).to_have_count(0)  # the list fades away


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
    page.wait_for_timeout(500)
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
    page.wait_for_timeout(500)
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
    page.wait_for_timeout(200)
    page.mouse.click(*at)

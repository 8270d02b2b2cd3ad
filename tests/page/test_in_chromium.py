"""The page in a real browser: nothing is asked for, nothing is complained about, nothing hangs over the edge."""

import re
import zlib
from pathlib import Path

import pytest
from browser import Browser
from stories import make_hostile_story, make_story

from agent.page.incident_files import IncidentFiles
from agent.page.render import render

STORIES = {"orphans": make_story(), "memory": make_story("tcp_mem"), "hostile": make_hostile_story()}
# Elements that reach beyond the window's edges. SVG clips nothing, so its parts are looked at too.
OVER_THE_EDGE = """
[...document.querySelectorAll("body *")].filter((each) => {
  const box = each.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((each) => `${each.tagName}.${each.getAttribute("class")}`)
"""
# The colours of every text that is seen, with the background that it stands on.
CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (each) => {
    for (; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const each = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(each.tagName)) continue;
    const style = getComputedStyle(each);
    const ink = parse(each.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(each))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), each.tagName, walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found;
})()
"""
# The height of the smallest letters in a chart that is seen.
LETTERS = """
Math.min(...[...document.querySelectorAll(".chart text")]
  .map((each) => each.getBoundingClientRect().height).filter((height) => height > 0))
"""
FIRST_BUTTON_AFTER_A_MOMENT = """
new Promise((done) => setTimeout(() => done(
  document.querySelector(".advice > li:nth-child(3) button").textContent), 50))
"""


@pytest.fixture(params=list(STORIES))
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(STORIES[request.param], tmp_path)


def write(story: IncidentFiles, directory: Path) -> Path:
    path = directory / "incident.html"
    path.write_text(render(story), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_loads_without_complaint_request_or_overflow(
    browser: Browser, page: Path, width: int, *, dark: bool
) -> None:
    browser.open(page, width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")

    assert [] == browser.complaints()
    assert [page.as_uri()] == browser.requests()
    assert [] == browser.run(OVER_THE_EDGE)
    assert width == browser.run("document.documentElement.scrollWidth")
    assert browser.run("document.querySelectorAll('main section').length") == 8


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read_against_its_ground(browser: Browser, page: Path, *, dark: bool) -> None:
    browser.open(page, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")

    texts = browser.run(CONTRAST)

    assert len(texts) > 150
    assert [] == [each for each in texts if each[0] < 4.5]


def test_dark_is_dark_and_light_is_light(browser: Browser, tmp_path: Path) -> None:
    page = write(STORIES["orphans"], tmp_path)
    grounds = []
    for dark in (False, True):
        browser.open(page, dark=dark)
        colour = browser.run("getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(map(int, re.findall(r"\d+", colour))))

    assert grounds[0] > 700
    assert grounds[1] < 120


def test_a_phone_sees_the_drawing_made_for_it(browser: Browser, tmp_path: Path) -> None:
    page = write(STORIES["orphans"], tmp_path)
    for width, shown in ((360, "narrow"), (1200, "wide")):
        browser.open(page, width=width)
        seen = browser.run(
            "[...document.querySelectorAll('.chart')].filter((e) => e.checkVisibility()).map((e) => e.classList[1])"
        )

        assert 2 * [shown] == seen
        assert browser.run(LETTERS) > 10


def test_a_button_copies_the_command_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(STORIES["orphans"], tmp_path))
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.run("document.querySelectorAll('.advice > li:nth-child(3) button').forEach((each) => each.click())")

    assert 2 == browser.run("document.querySelectorAll('.advice > li:nth-child(3) button').length")
    assert browser.run("window.copied").startswith("# sockmem-agent: room for orphaned TCP sockets")
    assert browser.run("window.copied").endswith("net.ipv4.tcp_max_orphans = 59392")
    assert "Copied" == browser.run(FIRST_BUTTON_AFTER_A_MOMENT)


def test_a_refused_clipboard_leaves_the_command_selected(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(STORIES["orphans"], tmp_path))
    browser.run("navigator.clipboard.writeText = async () => { throw new Error('refused'); }")
    browser.run("document.execCommand = () => false")
    browser.run("document.querySelector('.copyable button').click()")

    assert "cat /proc/net/sockstat" == browser.run("getSelection().toString()")
    assert [] == browser.complaints()


def test_hostile_texts_run_nothing(browser: Browser, tmp_path: Path) -> None:
    page = write(STORIES["hostile"], tmp_path)
    browser.open(page)

    assert 0 == browser.run("document.querySelectorAll('img, a, iframe, [onerror]').length")
    assert [] == [each for each in browser.seen if each["method"] == "Page.javascriptDialogOpening"]
    assert "shop-1" not in browser.run("document.title")


def test_a_script_that_was_put_in_by_force_is_refused(browser: Browser, tmp_path: Path) -> None:
    """Show that the policy works: were the escaping to fail, it would still stand."""
    path = tmp_path / "incident.html"
    forced = "<script>window.forced = 1</script><img src=x onerror='window.forced = 1'>"
    path.write_text(render(STORIES["orphans"]).replace("<main>", f"<main>{forced}"), encoding="utf-8")
    browser.open(path)

    assert browser.run("window.forced") is None
    assert "Content Security Policy" in "".join(browser.complaints())


def test_printing_unfolds_and_leaves_buttons_out(browser: Browser, tmp_path: Path) -> None:
    browser.open(write(STORIES["orphans"], tmp_path))
    browser.run(
        "addEventListener('beforeprint', () => (window.unfolded = document.querySelectorAll('details[open]').length))"
    )

    printed = browser.print_pdf()

    pages = len(re.findall(rb"/Type\s*/Page\b", printed)) or _pages_inside(printed)
    assert printed.startswith(b"%PDF-")
    assert 3 <= pages <= 12
    # The table of readings and the first snapshot; later snapshots stay folded, or a day would be a book.
    assert 2 == browser.run("window.unfolded")
    assert 0 == browser.run("document.querySelectorAll('details[open]').length")
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert "none" == browser.run("getComputedStyle(document.querySelector('.copyable button')).display")
    assert [] == browser.run("[...document.querySelectorAll('.chart.wide')].filter((e) => !e.checkVisibility())")


def test_without_script_everything_is_there(browser: Browser, tmp_path: Path) -> None:
    page = write(STORIES["orphans"], tmp_path)
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        # The page's own scripts do not run; what we ask does.
        assert 0 == browser.run("document.querySelectorAll('button').length")
        assert "sysctl -w net.ipv4.tcp_max_orphans=59392" in browser.run("document.body.innerText")
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)


def _pages_inside(printed: bytes) -> int:
    """Count pages where the PDF's objects are compressed."""
    count = 0
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", printed, re.DOTALL):
        try:
            count += len(re.findall(rb"/Type\s*/Page\b", zlib.decompress(stream)))
        except zlib.error:
            continue
    return count

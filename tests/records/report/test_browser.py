"""The pages in a real browser: no errors, no network, light and dark, phone, sorting, searching."""

import quopri
from collections.abc import Iterator
from pathlib import Path

import pytest
from comparisons import RUDE, SECRET_PROMPT, comparison, measurement
from run_folders import make_run, record, sample

from browser import Browser
from tiltune.records.measurements import write_comparison
from tiltune.records.report.comparison import write_comparison_report
from tiltune.records.report.page import write_report

pytestmark = pytest.mark.xdist_group("browser")

PHONE = 390
ENTER = "\ue007"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    write_comparison(folder / "comparison.json", comparison())
    return write_comparison_report(folder)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    before = [sample("hello there", "you are an idiot sir", satisfied=False, score=0.0)]
    after = [sample("hello there", "good day")]
    run = make_run(
        tmp_path_factory.mktemp("reported") / "run",
        [record(number) for number in range(4)],
        before=before,
        after=after,
    )
    return write_report(run)


@pytest.fixture(params=["compared", "reported"])
def page(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def column(browser: Browser, section: str, place: int) -> list[str]:
    """A column's texts, in the order of the rows."""
    return browser.run(
        "return Array.from(document.querySelectorAll(`#${arguments[0]} table tbody tr`))"
        ".map((row) => row.cells[arguments[1]].textContent)",
        section,
        place,
    )


@pytest.mark.parametrize("width", [1280, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_renders_without_a_word_on_the_console(
    browser: Browser, page: Path, *, dark: bool, width: int
) -> None:
    browser.open(page, dark=dark, width=width)
    assert browser.console() == []
    wide = browser.run("return document.documentElement.scrollWidth")
    assert wide <= width, f"the page is {wide} pixels wide"
    colours = browser.run(
        "const style = getComputedStyle(document.body);"
        "return [style.color, style.backgroundColor].map((c) => c.match(/\\d+/g).map(Number))"
    )
    ink, paper = (sum(colour[:3]) for colour in colours)
    assert (ink > paper) == dark and abs(ink - paper) > 380
    requests = browser.run(
        "return performance.getEntriesByType('resource').map((each) => each.name)"
    )
    assert [name for name in requests if not name.startswith("data:")] == []


def test_another_script_is_refused(browser: Browser, compared: Path, tmp_path: Path) -> None:
    """That the policy holds, and that the tests would see it speak."""
    source = compared.read_text("utf-8")
    bad = tmp_path / "bad.html"
    bad.write_text(source.replace("</main>", "<script>document.title = 'x'</script></main>"))
    browser.open(bad)
    assert any("Content Security Policy" in line for line in browser.console())
    assert browser.run("return document.title") != "x"


def test_tables_sort_by_click_and_by_key(browser: Browser, compared: Path) -> None:
    browser.open(compared)
    buttons = browser.find("#table-samples th button")
    browser.click(buttons[2])  # KL
    kl = ["0.300", "0.800", "1.200", "2.500"]
    assert [text[:5] for text in column(browser, "table-samples", 2)] == kl
    browser.type(buttons[2], ENTER)
    assert [text[:5] for text in column(browser, "table-samples", 2)] == kl[::-1]
    marked = "#table-samples th[aria-sort=descending]"
    assert browser.text(browser.find(marked)[0]).startswith("world · KL(target ‖ model)")
    browser.click(buttons[0])
    sorted_names = ["base", "filter", "ppo | <x> kl = 0.1", "tilt"]
    assert column(browser, "table-samples", 0) == sorted_names
    assert column(browser, "table-seconds", 0)[0] == "tilt"  # as it was
    browser.click(buttons[3])  # the base's is missing: last, whichever way
    for _ in range(2):
        assert column(browser, "table-samples", 0)[-1] == "base"
        browser.click(buttons[3])


def with_many_columns(folder: Path) -> Path:
    """A page whose tables have more columns than are shown at first."""
    given = comparison()
    more = [measurement(f"more.{number}", 0.5) for number in range(4)]
    entries = tuple(
        each.model_copy(
            update={
                "evaluation": each.evaluation.model_copy(
                    update={"measurements": (*each.evaluation.measurements, *more)}
                )
            }
        )
        for each in given.entries
    )
    write_comparison(folder / "comparison.json", given.model_copy(update={"entries": entries}))
    return write_comparison_report(folder)


@pytest.mark.parametrize("javascript", [True, False])
def test_the_switch_shows_every_column_by_key_and_without_a_script(
    browser: Browser, tmp_path: Path, *, javascript: bool
) -> None:
    browser.open(with_many_columns(tmp_path), javascript=javascript)
    (switch, _) = browser.find("input.switch")

    def hidden() -> int:
        cells = browser.find("#table-samples thead th")
        return sum(not browser.shown(cell) for cell in cells)

    assert hidden() == 3
    browser.type(switch, " ")
    assert hidden() == 0
    browser.type(switch, " ")
    assert hidden() == 3


@pytest.mark.parametrize("width", [1280, PHONE])
def test_axis_text_has_one_size_on_every_chart(browser: Browser, page: Path, *, width: int) -> None:
    """A drawing that is scaled would scale its text."""
    browser.open(page, width=width)
    sizes = browser.run(
        "return Array.from(document.querySelectorAll('.chart svg'))"
        ".filter((svg) => svg.getBoundingClientRect().width > 0)"
        ".map((svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"
    )
    assert sizes and sizes == pytest.approx([1.0] * len(sizes), abs=0.001)


def test_a_run_s_tables_sort_too(browser: Browser, reported: Path) -> None:
    browser.open(reported)
    buttons = browser.find("#rounds table th button")
    for _ in range(2):
        browser.click(buttons[0])
    shown = browser.run(
        "return Array.from(document.querySelector('#rounds table').tBodies[0].rows)"
        ".map((row) => row.cells[0].textContent)"
    )
    assert shown == ["3", "2", "1", "0"]


def visible(browser: Browser) -> str:
    return browser.text(browser.find("main")[0])


def test_hidden_text_stays_hidden_until_it_is_asked_for(browser: Browser, compared: Path) -> None:
    browser.open(compared)
    assert "gladly" in visible(browser)
    assert RUDE not in visible(browser) and SECRET_PROMPT not in visible(browser)
    summaries = browser.find("#generations details.violating > summary")
    browser.click(summaries[0])
    assert visible(browser).count(RUDE) == 1
    browser.click(summaries[0])
    assert RUDE not in visible(browser)
    browser.click(browser.find("#generations details.group > summary")[0])
    assert SECRET_PROMPT in visible(browser)


def test_search_finds_what_is_shown_and_counts_what_is_not(
    browser: Browser, compared: Path
) -> None:
    browser.open(compared)
    (box,) = browser.find("form.find input[type=search]")
    (status,) = browser.find("form.find output")
    browser.type(box, "GLADLY")
    shown = [each for each in browser.find("#generations .side") if browser.shown(each)]
    assert len(shown) == 2 and all("gladly" in browser.text(each) for each in shown)
    assert browser.text(status) == "2 completions"
    browser.clear(box)
    browser.type(box, "blockhead")
    assert browser.text(status) == "0 completions, 2 more in hidden text"
    assert RUDE not in visible(browser)
    (reveal,) = browser.find("form.find button.reveal")
    browser.click(reveal)
    assert browser.text(status) == "2 completions" and visible(browser).count(RUDE) == 2


def test_filters_by_method_and_verdict(browser: Browser, compared: Path) -> None:
    browser.open(compared)
    boxes = browser.find("form.find input[type=checkbox]")
    assert len(boxes) == 4
    for box in boxes[1:]:
        browser.click(box)
    browser.run(
        "const choice = document.querySelector('form.find select'); choice.value = 'no';"
        "choice.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    shown = [each for each in browser.find("#generations .side") if browser.shown(each)]
    assert len(shown) == 1 and browser.text(shown[0]).startswith("base violates")
    articles = browser.find("#generations article")
    assert sum(browser.shown(each) for each in articles) == 1


def test_without_javascript_everything_is_there_to_read(browser: Browser, compared: Path) -> None:
    browser.open(compared, javascript=False)
    source = quopri.decodestring(browser.cdp("Page.captureSnapshot")["data"].encode())
    assert b"Side by side" in source  # decoded: lines are broken anywhere
    (main,) = browser.cdp(
        "DOM.querySelectorAll",
        nodeId=browser.cdp("DOM.getDocument")["root"]["nodeId"],
        selector="form.find:not([hidden])",
    )["nodeIds"] or [None]
    assert main is None  # no control that would do nothing


def test_a_screenshot_for_the_docs(browser: Browser, compared: Path, tmp_path: Path) -> None:
    browser.open(compared)
    png = browser.screenshot(tmp_path / "page.png").read_bytes()
    assert png.startswith(b"\x89PNG") and 10_000 < len(png) < 300_000

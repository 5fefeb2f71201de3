"""The site in a real browser, from the disk and without a network: wide, on a phone, searched."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Browser
from test_site import DOCS, build

PHONE = 390
PATIENCE = 60
"""Seconds that the search may take to answer before the test says that it does not."""

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.mark.parametrize("width", [1280, PHONE])
def test_no_page_is_wider_than_the_window_or_lacks_a_file(
    browser: Browser, site: Path, width: int
) -> None:
    for page in sorted(DOCS.glob("*.md")):
        browser.open(site / f"{page.stem}.html", width=width)
        assert browser.run("return document.documentElement.scrollWidth") <= width, page.name
        assert browser.console() == []


def test_the_search_answers_from_the_disk(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html")
    browser.run("location.search = '?q=calibrated'")
    found, until = 0, time.monotonic() + PATIENCE
    while not found and time.monotonic() < until:
        time.sleep(0.1)
        found = len(browser.find(".md-search-result__link"))
    assert found

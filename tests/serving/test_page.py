"""The page to try a model, in a real browser: plain against guided, side by side."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browser import Browser
from served import Serving, a_run, served

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with served(a_run(tmp_path_factory.mktemp("page")), guided=True, token="geheim") as found:
        yield found


def until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it never came to hold")


def text(browser: Browser, css: str) -> list[str]:
    return [browser.text(each) for each in browser.find(css)]


def test_both_are_written_side_by_side(browser: Browser, serving: Serving, tmp_path: Path) -> None:
    browser.visit(f"{serving.url}/")
    until(lambda: text(browser, "#about") == ["Give the server's token."])
    browser.type(browser.find("#token")[0], "geheim\t")
    until(lambda: "The same weights" in text(browser, "#about")[0])
    browser.type(browser.find("#prompt")[0], "the cat")
    browser.type(browser.find("#seed")[0], "3")
    browser.type(browser.find("#limit")[0], "6")
    browser.click(browser.find("#write")[0])
    until(lambda: all(text(browser, ".verdict")) and len(text(browser, ".verdict")) == 2)
    assert text(browser, "article h2") == ["run:plain", "run"]
    for name, shown in zip(("run:plain", "run"), text(browser, "article pre"), strict=True):
        asked = {"model": name, "prompt": "the cat", "seed": 3, "max_tokens": 6}
        answer = serving.client("geheim").completions.create(**asked)
        assert shown.split() == answer.choices[0].text.split()
    assert "satisfies" in text(browser, ".verdict")[1]
    assert [line for line in browser.console() if "401" not in line] == []
    browser.screenshot(tmp_path / "page.png")


def test_a_refusal_is_shown(browser: Browser, serving: Serving) -> None:
    browser.clear(browser.find("#limit")[0])
    browser.type(browser.find("#limit")[0], "99")
    browser.click(browser.find("#write")[0])
    until(lambda: len(text(browser, ".failed")) == 2)
    assert "the model reads 24 at once" in text(browser, ".failed")[0]

"""Templates: every value in them is escaped, none is in a place where that would not help."""

import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from attacks import COMPARISON_FIELDS, RUN_FIELDS, hostile_comparison, hostile_run
from jinja2 import UndefinedError
from pages import Node, parse
from run_folders import report

from tiltune.records.measurements import write_comparison
from tiltune.records.report import rendering
from tiltune.records.report.comparison import write_comparison_report
from tiltune.records.report.rendering import PACKAGE, environment, render, static

TEMPLATES = environment().list_templates()
SOURCE = Path(rendering.__file__).parent


def hostile_report(folder: Path) -> Node:
    return report(hostile_run(folder / "run"))


def hostile_comparison_report(folder: Path) -> Node:
    write_comparison(folder / "comparison.json", hostile_comparison())
    return parse(write_comparison_report(folder))


def check_harmless(root: Node, fields: set[str]) -> None:
    """Every field is shown, as a text: no element, no attribute, no end of ours comes of it."""
    shown = root.text + " ".join(" ".join(node.attributes.values()) for node in root.walk())
    assert not {field for field in fields if f"<xss>{field}</xss>" not in shown}
    assert not root.all("xss")
    assert not [name for node in root.walk() for name in node.attributes if name.startswith("on")]
    assert [node.text for node in root.all("script")] == [static("report.js")]
    assert [node.text for node in root.all("style")] == [static("report.css")]
    assert len(root.all("title")[0].inside) == 1


PAGES = [
    pytest.param(hostile_report, RUN_FIELDS, id="run"),
    pytest.param(hostile_comparison_report, COMPARISON_FIELDS, id="comparison"),
]
Make = Callable[[Path], Node]


@pytest.mark.parametrize(("make", "fields"), PAGES)
def test_every_text_of_a_page_stays_a_text(tmp_path: Path, make: Make, fields: set[str]) -> None:
    check_harmless(make(tmp_path), fields)


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"curves.html"}))  # which holds no text
def test_each_template_would_be_seen_to_escape_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """That the test above covers every template: without its escapes it fails."""
    careless = environment().overlay(autoescape=lambda each: each != name)
    monkeypatch.setattr(rendering, "environment", lambda: careless)
    with pytest.raises(AssertionError):
        check_harmless(hostile_report(tmp_path), RUN_FIELDS)
        check_harmless(hostile_comparison_report(tmp_path), COMPARISON_FIELDS)


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_value_stands_where_escaping_does_not_help(name: str) -> None:
    source = (SOURCE / "templates" / name).read_text("utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape", source)
    assert not re.search(r"=\s*\{[{%]", re.sub(r"\{%.*?%\}", "", source))  # always in quotes
    assert not re.search(r"\s(href|src|srcset|action|on\w+)=\"\{", source)
    within = re.findall(r"<(script|style)\b[^>]*>(.*?)</\1>", source, re.DOTALL)
    assert within == (
        [("style", "{{ style }}"), ("script", "{{ script }}")] if name == "page.html" else []
    )


def test_markup_is_made_in_two_places_only() -> None:
    """Of our own style and script, and of a drawing's elements, whose texts are escaped there."""
    made = {
        each.name for each in SOURCE.glob("*.py") if re.search(r"Markup\([^)]", each.read_text())
    }
    assert made == {"rendering.py", "svg.py"}


def test_what_a_template_names_must_be_given() -> None:
    with pytest.raises(UndefinedError, match="is undefined"):
        render("comparison.html", {"title": "t"})


def test_templates_style_and_script_are_files_of_the_package() -> None:
    """Found as in a wheel, not as files beside the code."""
    package = files(PACKAGE)
    assert sorted(each.name for each in (package / "templates").iterdir()) == TEMPLATES
    assert {each.name for each in (package / "static").iterdir()} == {"report.css", "report.js"}

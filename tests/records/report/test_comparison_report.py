"""The comparison as Markdown, CSV and a page: the same numbers, nothing lost, nothing unescaped."""

import base64
import csv
import hashlib
import io
import re
from pathlib import Path

import pytest
from comparisons import RUDE, SECRET_PROMPT, comparison
from pages import Node, parse
from rich.console import Console

from tiltune.errors import RunError
from tiltune.records.measurements import Comparison, Excerpt, write_comparison
from tiltune.records.report.columns import (
    columns_of,
    csv_text,
    markdown,
    notes_of,
    tables_of,
    terminal_tables,
)
from tiltune.records.report.comparison import comparison_page, write_comparison_report
from tiltune.records.report.scatter import Line, Spot, scatter


@pytest.fixture
def page(tmp_path: Path) -> Node:
    write_comparison(tmp_path / "comparison.json", comparison())
    return parse(write_comparison_report(tmp_path))


def cells(row: Node) -> list[str]:
    return [each.text for each in row.inside if isinstance(each, Node)]


def test_each_budget_has_a_table_with_the_untrained_in_both(page: Node) -> None:
    for budget in ("samples", "seconds"):
        rows = [cells(row) for row in page.section(f"table-{budget}").all("tr")[1:]]
        assert [row[0] for row in rows] == ["base", "tilt", "ppo | <x>", "filter"]
        assert rows[1][2] == "0.970 [0.950, 0.980]"
        assert rows[2][1] == "kl = 0.1"  # the chosen point alone
        assert rows[0][3] == "– (3 missing)" and rows[1][3] == "31.500 (3 missing)"


def test_columns_come_by_aspect_and_say_unit_and_direction() -> None:
    headers = [column.header for column in columns_of(comparison())]
    assert headers == [
        "world · rate, share ↑",
        "perplexity · wiki, share ↑",
        "world · KL(target ‖ model), nats a sentence ↓",
        "sampled, tokens ↓",
    ]


def test_only_the_columns_asked_for() -> None:
    asked = comparison().model_copy(update={"columns": ("cost.sampled_tokens", "world.rate")})
    assert [column.name for column in columns_of(asked)] == list(asked.columns)


def test_markdown_has_the_numbers_and_escapes_what_would_end_a_cell() -> None:
    text = markdown(comparison())
    assert "# Manners & \\<means\\>" in text
    assert "| tilt | – | 0.970 [0.950, 0.980] | 31.500 (3 missing) |" in text
    assert "| ppo \\| \\<x\\> | kl = 0.1 |" in text
    assert "Limit: the exact tilt: 0.120" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:  # as many cells in every row
        rows = [re.sub(r"\\\|", "", row).count("|") for row in table.splitlines()]
        assert len(rows) == 6 and len(set(rows)) == 1


def test_what_a_reader_has_to_know_stands_by_the_tables() -> None:
    given = comparison()
    noted = [
        entry.model_copy(
            update={"evaluation": entry.evaluation.model_copy(update={"notes": ("it [is] so",)})}
        )
        for entry in given.entries
        if entry.method in ("tilt", "filter")
    ]
    rest = [entry for entry in given.entries if entry.method not in ("tilt", "filter")]
    given = given.model_copy(update={"entries": (*rest, *noted)})
    assert notes_of(given.entries) == ["tilt, filter: it [is] so"]
    assert "tilt, filter: it [is] so." in markdown(given)
    out = io.StringIO()
    for table in terminal_tables(given):
        Console(file=out, width=200).print(table)
    assert "tilt, filter: it [is] so" in out.getvalue()
    assert "it [is] so" in comparison_page(given)


def test_csv_has_every_entry_and_leaves_missing_empty() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(comparison()))))
    assert len(rows) == 9
    third = rows[3]
    assert (third["method"], third["budget"], third["chosen"]) == ("ppo | <x>", "samples", "no")
    assert float(third["world.kl_target_model_nats"]) == 6.25
    assert float(third["world.rate:low"]) == pytest.approx(0.97)
    assert rows[0]["perplexity@wiki"] == "" and rows[0]["perplexity@wiki:missing"] == "3"


def test_terminal_has_axes_and_cost() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    for table in terminal_tables(comparison()):
        console.print(table)
    shown = console.export_text()
    assert shown.count("0.970 [0.950, 0.980]") == 2 and "12,345" in shown
    assert "perplexity" not in shown


def test_pictures_draw_lines_limits_and_chosen_points(page: Node) -> None:
    figures = page.section("pareto").all("figure")
    assert [figure.all("h3")[0].text for figure in figures] == ["Equal samples", "Equal seconds"]
    picture = figures[0]
    assert len(picture.all("path", "rule")) == 1
    assert len(picture.all("path", "line")) == 1  # the grid of one method
    assert len(picture.all("circle", "dot")) == 5
    assert len(picture.all("circle", "small")) == 1
    assert len(page.section("curves").all("figure")) == 4


def test_everything_is_escaped_and_only_our_script_is_allowed(page: Node) -> None:
    (script,) = page.all("script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    policy = next(n for n in page.all("meta") if "http-equiv" in n.attributes)
    assert f"script-src 'sha256-{digest}'" in policy.attributes["content"]
    assert policy.attributes["content"].startswith("default-src 'none'")
    assert not page.all("b", "bold") and not page.all("means") and not page.all("x")
    assert not [n for n in page.all("i") if n.text == "repeats itself"]
    for forbidden in ("eval(", "fetch(", "XMLHttp", "import(", "innerHTML", "http"):
        assert forbidden not in script.text


def covered(node: Node, text: str, *, inside: bool = False) -> bool:
    """Whether the text occurs only within details that are not open."""
    inside = inside or (node.tag == "details" and "open" not in node.attributes)
    for part in node.inside:
        if isinstance(part, str):
            if text in part and not inside:
                return False
        elif node.tag != "script" and not covered(part, text, inside=inside):
            return False
    return True


def test_what_violates_is_folded_away(page: Node) -> None:
    assert RUDE in page.text and covered(page, RUDE)
    assert SECRET_PROMPT in page.text and covered(page, SECRET_PROMPT)
    assert not covered(page, "gladly")


def test_a_comparison_without_numbers_is_a_page_too(tmp_path: Path) -> None:
    empty = Comparison(title="t", control="c", utility="u", entries=())
    write_comparison(tmp_path / "comparison.json", empty)
    root = parse(write_comparison_report(tmp_path))
    assert not root.all("figure")
    assert tables_of(empty) == {"none": []}


def test_a_damaged_comparison_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"comparison\.json: cannot be read"):
        write_comparison_report(tmp_path)
    (tmp_path / "comparison.json").write_text("{}", "utf-8")
    with pytest.raises(RunError, match="not of this version"):
        write_comparison_report(tmp_path)


def test_the_axis_is_logarithmic_where_values_span_decades() -> None:
    def ticks(*values: float) -> list[str]:
        spots = tuple(Spot(n, value, "") for n, value in enumerate(values))
        figure = scatter("t", ("x", "y"), [Line("l", 0, spots)])
        assert figure is not None
        return re.findall(r'class="tick y"[^>]*>([^<]+)<', figure.marks)

    assert ticks(0.1, 10.0) == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]
    assert "0.0" in ticks(0.9, 2.0, 0.1) or ticks(0.9, 2.0, 0.2)[0] in ("0.0", "0.5")
    assert scatter("t", ("x", "y"), []) is None


def test_text_on_which_a_scorer_failed_is_covered_too(tmp_path: Path) -> None:
    given = comparison()
    first = given.entries[0]
    example = Excerpt(
        group="calm", prompt="p", text="who knows", satisfied=None, scores={"service": None}
    )
    evaluation = first.evaluation.model_copy(update={"examples": (example,)})
    entries = (first.model_copy(update={"evaluation": evaluation}), *given.entries[1:])
    write_comparison(tmp_path / "comparison.json", given.model_copy(update={"entries": entries}))
    page = parse(write_comparison_report(tmp_path))
    assert "who knows" in page.text and covered(page, "who knows")

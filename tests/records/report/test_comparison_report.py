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
)
from tiltune.records.report.comparison import comparison_page, write_comparison_report
from tiltune.records.report.scatter import Line, Spot, scatter
from tiltune.records.report.terminal import terminal_tables


@pytest.fixture
def page(tmp_path: Path) -> Node:
    write_comparison(tmp_path / "comparison.json", comparison())
    return parse(write_comparison_report(tmp_path))


def cells(row: Node) -> list[str]:
    return [each.text for each in row.inside if isinstance(each, Node)]


def test_each_budget_has_a_table_with_the_untrained_in_both_the_best_control_first(
    page: Node,
) -> None:
    for budget in ("samples", "seconds"):
        rows = page.section(f"table-{budget}").all("tr")[1:]
        names = [row.all("th")[0].text for row in rows]
        assert names == ["tilt", "ppo | <x> kl = 0.1", "filter", "base"]  # the chosen point alone
        told = [cells(row) for row in rows]
        assert told[0][1] == "0.97095 % interval [0.950, 0.980]"  # the interval is the drawing's
        assert told[3][3] == "– (3 missing)" and told[0][3] == "31.500 (3 missing)"


def test_the_best_is_bold_the_base_left_out(page: Node) -> None:
    rows = page.section("table-samples").all("tr")[1:]
    bold = [[each.text for each in row.all("b")] for row in rows]
    assert bold == [["0.970", "0.300"], [], [], []]  # sampled tokens are the same for all


def test_a_level_of_control_that_is_asked_for_decides_the_order_and_the_words(
    tmp_path: Path,
) -> None:
    asked = comparison().model_copy(update={"least_control": 0.885})
    write_comparison(tmp_path / "comparison.json", asked)
    page = parse(write_comparison_report(tmp_path))
    rows = page.section("table-samples").all("tr")[1:]
    told = [(row.all("td", "words")[0].text, row.all("td", "words")[0]) for row in rows]
    assert [text for text, _ in told] == [
        "reaches 0.885",
        "0.885 within its interval · beaten by tilt",
        "0.885 within its interval · beaten by tilt",
        "the base · below 0.885 · beaten by tilt",
    ]
    outcomes = [node.attributes["class"].split()[-1] for _, node in told]
    assert outcomes == ["pass", "undecided", "undecided", "fail"]
    whiskers = [row.all("svg", "interval")[0] for row in rows[:3]]
    assert all(len(each.all("path", "rule")) == 1 for each in whiskers)
    assert "Those whose control is 0.885 or better come first" in page.text


def test_columns_beyond_seven_are_behind_a_switch_that_needs_no_script(tmp_path: Path) -> None:
    given = comparison()
    more = [
        given.entries[0].evaluation.measurements[0].model_copy(update={"key": f"more.{n}"})
        for n in range(5)
    ]
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
    write_comparison(tmp_path / "comparison.json", given.model_copy(update={"entries": entries}))
    part = parse(write_comparison_report(tmp_path)).section("table-samples")
    head, *rows = part.all("tr")
    for row in (head, *rows):
        hidden = row.all(css="more")
        assert len(cells(row)) - len(hidden) == 7 and len(cells(row)) == 11
    (switch,) = part.all("input", "switch")
    (label,) = part.all("label")
    assert label.attributes["for"] == switch.attributes["id"] and "11 columns" in label.text


def test_columns_without_a_number_are_left_out(tmp_path: Path) -> None:
    given = comparison()
    entries = [each for each in given.entries if each.method != "tilt"]
    without = [
        each.model_copy(
            update={
                "evaluation": each.evaluation.model_copy(
                    update={"measurements": each.evaluation.measurements[:2]}
                )
            }
        )
        for each in entries
    ]
    few = given.model_copy(update={"entries": (*without[:1], *entries[1:])})
    write_comparison(tmp_path / "comparison.json", few)
    assert "perplexity" in parse(write_comparison_report(tmp_path)).section("table-samples").text
    none = given.model_copy(update={"entries": tuple(without)})
    write_comparison(tmp_path / "comparison.json", none)
    assert "perplexity" not in parse(write_comparison_report(tmp_path)).text


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


def test_pictures_draw_lines_limits_and_chosen_points(page: Node) -> None:
    figures = page.section("pareto").all("figure")
    assert [figure.all("h3")[0].text for figure in figures] == ["Equal samples", "Equal seconds"]
    for size in ("wide", "narrow"):
        (picture,) = figures[0].all("svg", size)
        assert len(picture.all("path", "rule")) == 1
        assert len(picture.all("path", "line")) == 1  # the grid of one method
        assert len(picture.all("circle", "dot")) == 5
        assert len(picture.all("circle", "small")) == 1
        assert len(picture.all("circle", "base")) == 1  # the untuned model, hollow
        names = [name.text for name in picture.all("text", "name")]
        assert names == ["base", "tilt", "ppo | <x>", "filter"]
    assert [key.text.strip() for key in figures[0].all("li")] == ["the exact tilt 0.120"]
    assert len(page.section("curves").all("figure")) == 4


def test_a_drawing_states_its_size_so_that_its_text_is_never_scaled_up(page: Node) -> None:
    drawn = [svg for svg in page.all("svg") if "viewbox" in svg.attributes]
    assert drawn
    for svg in drawn:
        size = (svg.attributes["width"], svg.attributes["height"])
        assert svg.attributes["viewbox"] == "0 0 {} {}".format(*size)


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

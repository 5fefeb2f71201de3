"""`tiltune check` answers first: five lines, then findings, settings last; names stay whole."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tiny
from hand_made import ruled, without
from tiltune.config import RunConfig
from tiltune.constraints.base import TextConstraint
from tiltune.errors import RunError
from tiltune.training.check import check
from tiltune.training.check.findings import Count
from tiltune.training.check.forecast import Forecast
from tiltune.training.check.lines import rate_warnings
from tiltune.training.check.page import Gravity, Page, wrapped
from tiltune.training.check.settings import all_settings, short_lines, shown, that_matter
from tiltune.training.check.verdict import ROOM, costs, duration, exact, following, meets, wrong
from tiltune.training.corpus import LEAST_ROWS, LEAST_VALIDATION, few_told

QUESTIONS = ["meets", "costs", "exact", "wrong", "next"]


def terminal(width: int = 80) -> tuple[Console, io.StringIO]:
    """A terminal of that many columns, without colours."""
    file = io.StringIO()
    return Console(file=file, width=width, force_terminal=True, color_system=None), file


def checked(tree: tiny.Tree, **options: Any) -> list[str]:
    """The lines of `check` on a terminal of 80 columns."""
    console, file = terminal()
    check.check_run(tiny.config(tree), console, **options)
    return file.getvalue().splitlines()


def answers(lines: list[str]) -> dict[str, str]:
    """The verdict, where it is the first thing said after what is being done."""
    start = next(place for place, line in enumerate(lines) if not line.endswith("…"))
    block = lines[start : start + len(QUESTIONS)]
    assert lines[start + len(QUESTIONS)] == ""
    return {line[:6].rstrip(): line[7:] for line in block}


def test_ten_rows_are_judged_in_five_lines_and_no_name_breaks_at_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "forecast", lambda *_: Forecast({"policy": 12.0}, 450_000_000))
    tree = tiny.workplace(tmp_path)
    tiny.write_rows(tmp_path / "corpus.jsonl", tiny.corpus_rows(10))
    tree["data"]["corpus"] = "corpus.jsonl"  # a short name, so that every line can fit
    monkeypatch.chdir(tmp_path)
    lines = checked(tree, every=True)
    found = answers(lines)
    assert list(found) == QUESTIONS
    assert " of 256 samples of the model: " in found["meets"] and "%]" in found["meets"]
    assert found["costs"] == "about 0.2 minutes, over 0.45 GB of memory"
    assert found["exact"].startswith("dead ends and what is certain, by an automaton of ")
    assert found["wrong"] == "too few: 7 rows to train on, 1 satisfying row to validate on"
    assert found["next"] == "mend that, or go on: tiltune fit run.toml"
    names = [
        f"{section}.{key}"
        for section in RunConfig.model_fields
        for key in type(getattr(tiny.config(tree), section)).model_fields
    ]
    text = "\n".join(lines)
    assert all(f"\n  {name} =" in text for name in names)
    assert not [line for line in lines if len(line) > 80 and len(line.split()) > 3]
    # what the settings say follows what was found, and comes last
    assert text.index("warning: too few: 7 rows") < text.index("\nsettings:\n")
    assert text.index("\nsettings:\n") < text.index("\n  track.to =")
    assert lines[-1].startswith("      ")  # the meaning of the last one


def test_what_was_found_is_said_where_a_fault_cuts_the_verdict_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Forecast:
        raise RunError("no memory left")

    monkeypatch.setattr(check, "forecast", broken)
    console, file = terminal(400)
    with pytest.raises(RunError, match="no memory left"):
        check.check_run(tiny.config(tiny.workplace(tmp_path)), console)
    told = file.getvalue()
    assert "meets  " in told and "costs  " not in told
    assert "rows of the corpus: " in told and "known exactly: " in told


def test_a_folder_in_the_way_comes_before_all_that_only_worries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "forecast", lambda *_: Forecast({"policy": 1.0}, 1))
    tree = tiny.workplace(tmp_path)
    (tmp_path / "run").mkdir()
    tree["run"]["dir"] = "run"
    monkeypatch.chdir(tmp_path)
    found = answers(checked(tree))
    assert found["wrong"] == "run.dir = run: exists (+1 below)"
    assert found["next"] == "mend that, then: tiltune fit run.toml"


def test_answers_by_hand() -> None:
    assert meets(Count(192, 256)) == "192 of 256 samples of the model: 75.0% [69.4%, 79.9%]"
    measured = Forecast({"sampling": 60.0, "policy": 90.0}, 1_250_000_000)
    assert costs(measured) == "about 2.5 minutes, over 1.25 GB of memory"
    there = costs(Forecast({"policy": 30_000.0}, 10_250_000_000, 101_000_000_000))
    assert there.endswith("over 10 GB of memory, 101 GB on the GPU")
    assert len(there) <= ROOM
    assert duration(590) == "9.8 minutes" and duration(5340) == "89 minutes"
    assert duration(5400) == "90 minutes (1.5 hours)"


def test_what_is_exact_is_told_by_the_automaton() -> None:
    whole, part = ruled(without("b")), ruled(without("b"), complete=False)
    assert exact(whole, None) == "every verdict, by an automaton of 2 states over characters"
    assert exact(part, None) == "what is lost, by an automaton of 2 states over characters"
    opaque = TextConstraint("opaque", lambda each: [1.0] * len(each))
    assert exact(opaque, None) == "nothing: only whole texts tell"
    assert exact(whole, "value_model.automaton = 'none'") == (
        "nothing: value_model.automaton = 'none'"
    )


def test_the_gravest_comes_first_and_the_others_are_counted() -> None:
    console, _ = terminal()
    page = Page(console)
    assert (
        page.gravest is None and wrong(page.gravest_first) == "nothing that this check could find"
    )
    page.warn("many are cut; raise it", Gravity.ENDINGS)
    page.warn("all satisfy, so there is little to gain; more", Gravity.LABELS)
    page.warn("too few rows; more", Gravity.DATA)
    assert page.gravest is Gravity.LABELS
    assert wrong(page.gravest_first) == "all satisfy, so there is little to gain (+2 below)"
    page.warn("no text can; more", Gravity.REFUSED)
    assert wrong(page.gravest_first) == "no text can (+3 below)"
    assert len(wrong(["word " * 40, "x"])) <= ROOM


@pytest.mark.parametrize(
    ("gravest", "told"),
    [
        (None, "tiltune fit a.toml"),
        (Gravity.REFUSED, "mend that, then again: tiltune check a.toml"),
        (Gravity.IN_THE_WAY, "mend that, then: tiltune fit a.toml"),
        (Gravity.DATA, "mend that, or go on: tiltune fit a.toml"),
    ],
)
def test_the_next_command_follows_from_the_gravest(gravest: Gravity | None, told: str) -> None:
    assert following("a.toml", gravest) == told


def test_few_rows_are_told_of_by_what_they_are_for() -> None:
    assert few_told(LEAST_ROWS, LEAST_VALIDATION) is None is few_told(None, None)
    told = few_told(LEAST_ROWS - 1, LEAST_VALIDATION - 1)
    assert told is not None
    assert told.startswith("too few: 49 rows to train on, 9 satisfying rows to validate on; ")
    assert "too few: 49 rows to train on;" in str(few_told(LEAST_ROWS - 1, None))
    assert "too few: 1 satisfying row to validate on;" in str(few_told(LEAST_ROWS, 1))


def test_lines_break_between_words_on_a_terminal_and_stay_whole_in_a_pipe() -> None:
    line = "  state: learner.corpus_rows_per_step by --set, " + "x" * 40 + " y"
    pieces = wrapped(line, 30)
    assert pieces[0] == "  state:" and pieces[1] == "      learner.corpus_rows_per_step"[:34]
    assert pieces[2:] == ["      by --set,", "      " + "x" * 40, "      y"]
    console, file = terminal(30)
    Page(console).say(line)
    assert file.getvalue().splitlines() == pieces
    pipe = Console(file=io.StringIO(), width=30)
    Page(pipe).say(line)
    assert pipe.file.getvalue() == line + "\n"  # type: ignore[attr-defined]


def tabled(**tables: Any) -> RunConfig:
    tree = {
        "run": {"dir": "r"},
        "model": {"path": "m"},
        "constraint": {"kind": "lexicon", "words": ["a"]},
    }
    return tiny.config(tree | tables)


def test_settings_are_listed_that_differ_or_were_chosen() -> None:
    given = tabled(method={"kind": "sft", "rounds": 3}, learner={"batch_size": 8, "device": "auto"})
    resolved = given.model_copy(
        update={
            "value_model": given.value_model.model_copy(update={"batch_size": 32}),
            "actor": given.actor.model_copy(update={"threads": 1}),
            "data": given.data.model_copy(update={"max_tokens": 24}),
        }
    )
    every = all_settings(given, resolved)

    def names(**facts: bool) -> list[str]:
        return [each.name for each in that_matter(every, **facts)]

    stated = ["constraint.words", "method.kind", "learner.batch_size"]
    assert names(parallel=False, values=False, corpus=False) == stated
    chosen = {"data.max_tokens", "value_model.batch_size", "actor.threads"}
    assert set(names(parallel=True, values=True, corpus=True)) == {*stated, *chosen}
    few = that_matter(every, parallel=False, values=True, corpus=False)
    assert short_lines(few, 44)[-2:] == [
        "  chosen   value_model.batch_size  32",
        "  stated   learner.batch_size      8",
    ]
    assert max(map(len, short_lines(few, 30))) == 30


def test_values_are_shown_about_as_toml_writes_them() -> None:
    assert [shown(each) for each in (None, True, 0.1 + 0.2, 3, "a")] == [
        *("none", "true", "0.3", "3", "'a'")
    ]
    assert shown({"a": ("b", False)}) == "{a = ['b', false]}"
    part = {"kind": "regex", "pattern": "x"}
    config = tabled(constraint={"kind": "all", "parts": [part, part]})
    assert shown(config.constraint.parts) == "[{regex}, {regex}]"  # type: ignore[union-attr]


@pytest.mark.parametrize("rows", [10, 256])
def test_every_warning_of_ours_begins_with_a_clause_that_fits(rows: int) -> None:
    """With the number of others behind it, within the line."""
    told = [
        *rate_warnings(Count(0, rows)),
        *rate_warnings(Count(rows, rows)),
        *rate_warnings(Count(255, 256)),
        *rate_warnings(Count(1, 256)),
        str(few_told(49, 9)),
    ]
    for each in told:
        assert "…" not in wrong([each, *["x"] * 3]) and "; " in each

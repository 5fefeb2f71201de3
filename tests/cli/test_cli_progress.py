"""The line of a long phase, by a clock that is set by hand."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from tiltune.cli.progress import LiveLine, plain_lines, shown
from tiltune.records.progress import Progress
from tiltune.records.progress_lines import duration, rounded, words

pytestmark = pytest.mark.quick


class Clock:
    """Seconds since noon of a day; a stamp for a person."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def stamp(self) -> str:
        return f"12:{self.now // 60:02.0f}:{self.now % 60:02.0f}"


def plain(clock: Clock) -> tuple[Progress, Callable[[], list[str]]]:
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=40, highlight=False)
    return plain_lines(console, clock, clock.stamp), lambda: out.getvalue().splitlines()


def test_ten_seconds_where_a_per_cent_is_quicker() -> None:
    clock = Clock()
    tell, lines = plain(clock)
    tell("policy update", 0, 50, tokens=100)
    for step in range(1, 51):  # 2 % each, in four seconds
        clock.now += 4
        numbers = {"corpus_loss_nats_per_token": 4 - step / 100, "x": 1.0, "y": 2.0}
        tell("policy update", step, 50, tokens=100 + 40 * step, numbers=numbers)
    assert len(lines()) == 16  # after 12, 24, … 192 of the 200 seconds
    # 10 tokens a second; 47 steps of 4 seconds are left
    assert lines()[0] == (
        "12:00:12 policy update: 3 of 50 (6%), 3 min left, 10 tokens/s, corpus loss 3.970, x 1.000"
    )
    assert lines()[-1].startswith("12:03:12 policy update: 48 of 50 (96%), 8 s left")


def test_a_per_cent_where_ten_seconds_are_quicker() -> None:
    clock = Clock()
    tell, lines = plain(clock)
    tell("drawing", 0, 1000)
    for row in range(1, 101):  # a per mille each, in five seconds
        clock.now += 5
        tell("drawing", row, 1000)
    assert [line.split()[0] for line in lines()] == [
        f"12:{50 * part // 60:02}:{50 * part % 60:02}" for part in range(1, 11)
    ]
    assert "10 of 1,000 (1%), 82 min left" in lines()[0]  # 990 of 5 seconds


def test_within_a_long_part_its_tokens_are_told() -> None:
    """Two batches of 64 completions, each in 40 seconds, 8 tokens a second."""
    clock = Clock()
    tell, lines = plain(clock)
    for first in (0, 64):
        tell("drawing", first, 128, tokens=5 * first)
        for second in range(1, 41):
            clock.now += 1
            tell("drawing", first, 128, tokens=5 * first + 8 * second)
    tell("drawing", 128, 128, tokens=640)
    assert lines() == [
        *[f"12:00:{at} drawing: 0 of 128 (0%), 8 tokens/s" for at in (10, 20, 30, 40)],
        "12:00:50 drawing: 64 of 128 (50%), 30 s left, 8 tokens/s",
        "12:01:00 drawing: 64 of 128 (50%), 20 s left, 8 tokens/s",
        "12:01:10 drawing: 64 of 128 (50%), 10 s left, 8 tokens/s",
        "12:01:20 drawing: 64 of 128 (50%), 0 s left, 8 tokens/s",
    ]


def test_a_phase_begins_anew_also_under_its_own_name() -> None:
    clock = Clock()
    tell, lines = plain(clock)
    for begun in (0.0, 1000.0):
        clock.now = begun
        tell("drawing", 0, 4, tokens=0)
        clock.now += 20
        tell("drawing", 2, 4, tokens=100)
    assert lines() == [
        "12:00:20 drawing: 2 of 4 (50%), 20 s left, 5 tokens/s",
        "12:17:00 drawing: 2 of 4 (50%), 20 s left, 5 tokens/s",
    ]


def test_what_is_quick_says_nothing_and_what_has_no_rows_breaks_nothing() -> None:
    clock = Clock()
    tell, lines = plain(clock)
    for step in range(101):
        tell("scoring", step, 100)
    clock.now += 60
    tell("scoring the corpus", 0, 0)
    assert lines() == []


def test_a_terminal_has_one_line_that_goes_when_all_is_done() -> None:
    clock, out = Clock(), io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    with shown(console, clock=clock) as tell:
        assert isinstance(tell, LiveLine)
        tell("round 0: value fit", 0, 10)
        clock.now += 3
        numbers = {"value_loss_nats_per_token": 0.25}
        tell("round 0: value fit", 5, 10, tokens=600, numbers=numbers)
        for sentence, seconds in (("one", 1), ("another", 3)):  # of the three that are left
            clock.now += seconds
            tell._bar.refresh()  # as it does by itself a few times a second
            console.print(sentence)
    line, late = (out.getvalue().split(each)[at] for each, at in (("one\n", 0), ("another\n", 1)))
    for part in ("round 0: value fit", "50 %", "2 s left", "200 tokens/s", "value loss 0.250"):
        assert part in line
    assert "0:00:07" in late and " left" not in late  # it takes longer than that
    assert late.rstrip().endswith("\x1b[2K")  # which clears it


def test_markup_in_a_name_is_no_markup() -> None:
    clock, out = Clock(), io.StringIO()
    with shown(Console(file=out, force_terminal=True, width=100), clock=clock) as tell:
        tell("[bold]mine[/]: drawing", 1, 2)
    assert "[bold]mine[/]: drawing" in out.getvalue()


def test_words_and_durations() -> None:
    assert words("kl_target_policy_nats_per_token") == "KL target policy"
    assert words("satisfaction_rate") == "satisfaction rate"
    assert [duration(each) for each in (99.4, 100, 5970, 9000)] == [
        *("99 s", "2 min", "100 min", "2.5 h")
    ]


def test_a_small_number_is_not_told_as_nothing() -> None:
    assert [rounded(value) for value in (3.97, 0.1, -0.1, 0.0049, -1e-5, 0.0)] == [
        *("3.970", "0.100", "-0.100", "0.0049", "-1e-05", "0.000"),
    ]

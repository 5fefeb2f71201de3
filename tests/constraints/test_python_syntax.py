"""Python syntax: what parses, where it does not, and texts made to break the parser."""

import warnings

import pytest

from tiltune.config import PythonSyntaxConfig
from tiltune.constraints.build import build_constraint
from tiltune.constraints.python_syntax import code_of
from tiltune.constraints.scores import Completion, Score

pytestmark = pytest.mark.quick

SYNTAX = build_constraint(PythonSyntaxConfig(kind="python_syntax"))


def judged(text: str) -> Score:
    return SYNTAX.score([Completion("", text)])[0]


@pytest.mark.parametrize(
    "text", ["", "x = 1\r\ny = 2", "def f(é):\n    return é\n", "0x" + "f" * 9999]
)
def test_what_parses_scores_1(text: str) -> None:
    assert judged(text) == Score(1.0)


@pytest.mark.parametrize(
    ("text", "span", "said"),
    [
        ("x = 1\ny = = 2", (10, 11), "line 2, column 5: invalid syntax"),
        ("é = 1\r\n\f\ré = 'ü' 3", (17, 18), "line 3, column 9"),
        ("def f(:\n", (6, 7), "line 1, column 7"),
        ("x = (1,", (4, 4), "line 1, column 5: '(' was never closed"),
        ("    return 1", (3, 3), "unexpected indent"),
        ("a\0b", (1, 2), "line 1, column 2: a null character"),
        ("x\n'\ud800'", (3, 4), "line 2, column 2: half of a surrogate pair"),
    ],
)
def test_a_fault_has_line_column_and_span(text: str, span: tuple[int, int], said: str) -> None:
    score = judged(text)
    assert (score.value, score.span) == (0.0, span)
    assert said in score.reason and score.feedback == score.reason


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(" * 100_000, "too many nested parentheses"),
        ("-" * 100_000 + "1", "too deeply nested"),
        ("1+" * 100_000 + "1", "too deeply nested"),
        ("a" + ".b" * 100_000, "too deeply nested"),
        ("lambda:" * 50_000 + "1", "too deeply nested"),
        ("if a:\n pass\n" + "elif a:\n pass\n" * 20_000, "too deeply nested"),
        ("".join(" " * depth + "if 1:\n" for depth in range(200)), "too many levels"),
        ("1" * 100_000, "4300 digits"),
        ("\0" * 100_000, "null character"),
    ],
)
def test_a_text_that_breaks_parsers_scores_0(text: str, said: str) -> None:
    score = judged(text)
    assert score.value == 0.0 and said in score.reason


def test_the_parsers_warnings_stay_within() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert judged("'\\d'; 1 is 1; assert (1, 2)").value == 1
    assert caught == []


BLOCK = "def f():\n    return 1\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"Here it is:\n\n```python\n{BLOCK}```\nIt returns 1.", BLOCK),
        (f"```\n{BLOCK}```\n\n```python\nf(\n```", BLOCK),
        (f"First\n```bash\npip install it\n```\nthen\n```python\n{BLOCK}```", BLOCK),
        (f"```\n```\nSorry:\n```\n{BLOCK}```", BLOCK),
        ("```\ng(\n```\n\n```\nf(\n```", "g(\n"),
        (f"~~~python\n{BLOCK}~~~\nDone.", BLOCK),
        (f"````md\n{BLOCK}````", BLOCK),
        ("1. So:\n   ```python\n   def f():\n       return 1\n   ```\n2. Run it.", BLOCK),
        (f"Sure!\n```py\n{BLOCK}", BLOCK),
        (f"  ```python\r\n{BLOCK}  ```", BLOCK),
        (f'"""A doc:\n```\nf()\n```\n"""\n{BLOCK}', f'"""A doc:\n```\nf()\n```\n"""\n{BLOCK}'),
        (BLOCK, BLOCK),
        ("It returns 1.", "It returns 1."),
        ("use `f` or ```f``` for it", "use `f` or ```f``` for it"),
        ("", ""),
    ],
)
def test_an_answers_code_is_its_first_block_unless_all_of_it_parses(text: str, code: str) -> None:
    assert code_of(text) == code


def test_a_block_of_the_prompt_is_not_the_answers() -> None:
    """One that the prompt opens for the answer is."""
    asked = "Such as\n```python\ng()\n```\n"
    text = f"{asked}Here:\n```\n{BLOCK}```"
    assert code_of(text, len(asked)) == BLOCK
    opened = f"{asked}```python\n"
    assert code_of(f"{opened}{BLOCK}```\nThat is it.", len(opened)) == BLOCK

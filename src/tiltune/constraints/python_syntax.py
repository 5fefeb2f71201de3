"""A text that parses as Python, by the grammar of the Python that runs this package."""

import ast
import re
import textwrap
import warnings
from collections.abc import Sequence

from tiltune.config import PythonSyntaxConfig
from tiltune.constraints.base import TextConstraint, on_texts
from tiltune.constraints.scores import Score

Span = tuple[int, int]

_FENCED = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE
)
_LINE = re.compile(r"\r\n|\r|\n")  # what ends a line of Python, and nothing else does


def build_python_syntax(config: PythonSyntaxConfig) -> TextConstraint:
    """Score 1 where `ast.parse` reads the text, else 0 with the place of the fault.

    Nothing is compiled or run. The empty text parses.
    """

    def judge(texts: Sequence[str]) -> list[Score]:
        return [judge_syntax(text) for text in texts]

    return TextConstraint(
        "python_syntax constraint", on_texts(judge, config.text), config.text, config.threshold
    )


def judge_syntax(text: str) -> Score:
    """1 where the text parses, else 0 and the place of the fault; nothing is compiled or run."""
    odd = re.search("[\0\ud800-\udfff]", text)  # the parser takes UTF-8 without null characters
    if odd is not None:
        kind = "a null character" if odd.group() == "\0" else "half of a surrogate pair"
        return _refused(text, f"{kind}, which Python source cannot hold", odd.span())
    try:
        _parsed(text)
    except SyntaxError as error:
        return _refused(text, error.msg, _span(text, error))
    except (RecursionError, MemoryError):  # the parser's own stack, not this machine's memory
        return Score(0.0, reason := "too deeply nested for Python's parser", None, reason)
    return Score(1.0)


def has_statements(text: str) -> bool:
    """Whether a text that parses holds more than comments and blank lines."""
    return bool(_parsed(text).body)


def code_of(text: str, answer: int = 0) -> str:
    """The code of an answer: the whole text where that parses, else the first of its blocks that
    does, or that there is; without one the text.

    A block stands between lines of ``` or ~~~, as chat models write it, and goes to the end where
    no second such line comes; one that is indented as a whole, as in a list, is moved to the left.

    Args:
        text: as judged.
        answer: where in it the answer begins; a block that ends before is not the answer's.
    """
    if judge_syntax(text).value == 1:
        return text
    found = [each for each in _FENCED.finditer(text) if each.end() > answer]
    blocks = [textwrap.dedent(each[2]) for each in found if each[2].strip()]
    parsing = (block for block in blocks if judge_syntax(block).value == 1)
    return next(parsing, blocks[0] if blocks else text)


def _parsed(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the text's style, such as "\d"
        return ast.parse(text)


def _refused(text: str, why: str, span: Span) -> Score:
    before = _LINE.split(text[: span[0]])
    reason = f"line {len(before)}, column {len(before[-1]) + 1}: {why}"
    return Score(0.0, reason, span, reason)


def _span(text: str, error: SyntaxError) -> Span:
    """The characters that the parser points at, within the text; it may point past its end."""
    starts = [0, *(ending.end() for ending in _LINE.finditer(text))]

    def place(line: int | None, column: int | None) -> int:
        if not line or not column:
            return 0
        return min(starts[min(line, len(starts)) - 1] + column - 1, len(text))

    start = place(error.lineno, error.offset)
    return start, max(start, place(error.end_lineno, error.end_offset))

"""Generated texts and scores for the tests of metrics, typed by hand or drawn by hypothesis."""

from collections.abc import Sequence

from hypothesis import strategies as st

from tiltune.evaluation.metrics.base import Generated, Scores
from tiltune.records.measurements import Measurement

Row = list[tuple[str, float | None]]
"""A prompt's completions, each with its score."""


def generated(texts: Sequence[Sequence[str]], group: str = "plain") -> Generated:
    """As many tokens as characters; what is empty was cut."""
    return Generated(
        group=group,
        prompts=[f"prompt {place}" for place in range(len(texts))],
        texts=[list(row) for row in texts],
        tokens=[[len(text) for text in row] for row in texts],
        ended=[[bool(text) for text in row] for row in texts],
    )


def scored(values: Sequence[Sequence[float | None]], threshold: float = 0.5) -> Scores:
    """Scores without spans, satisfied at the threshold."""
    return Scores(
        scorer="judge",
        values=[list(row) for row in values],
        satisfied=[[None if v is None else v >= threshold for v in row] for row in values],
        spans=[[None for _ in row] for row in values],
    )


def world(rows: Sequence[Row]) -> tuple[Generated, Scores]:
    texts = [[text for text, _ in row] for row in rows]
    return generated(texts), scored([[value for _, value in row] for row in rows])


def by_key(measurements: Sequence[Measurement]) -> dict[str, Measurement]:
    """Without the first word of the keys, and the scorer's name."""
    found = {each.key.rsplit(".", 1)[1]: each for each in measurements}
    assert len(found) == len(measurements)
    return found


SCORES = st.one_of(st.none(), st.floats(0, 1, allow_subnormal=False))
TEXTS = st.text("ab ", max_size=12)
ROWS: st.SearchStrategy[list[Row]] = st.lists(
    st.lists(st.tuples(TEXTS, SCORES), max_size=4), max_size=5
)


@st.composite
def shuffled(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Rows, and the same with prompts and the completions of each in another order."""
    rows = draw(ROWS)
    inner = [draw(st.permutations(row)) for row in rows]
    return rows, draw(st.permutations(inner))

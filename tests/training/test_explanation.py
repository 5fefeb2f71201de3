"""What a constraint is said to be: examples near the border, endings, borders of tokens, rivals."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from hand_made import reader, ruled, shorter_than, somewhere, without
from tiltune.config import ConstraintConfig
from tiltune.constraints.base import TextConstraint, on_texts
from tiltune.constraints.build import build_constraint
from tiltune.constraints.scores import Completion, Score
from tiltune.data.encode import Prompt
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.records.intervals import wilson_interval
from tiltune.training.check.agreement import Agreement, agreement, relation
from tiltune.training.check.border import nearest
from tiltune.training.check.ending import ending_effect
from tiltune.training.check.findings import Count, Findings, Statement, find, state
from tiltune.training.check.judged import constraint_record
from tiltune.training.check.lines import (
    agreement_lines,
    findings_lines,
    rate_warnings,
    statement_lines,
    statement_warnings,
    warnings,
)
from tiltune.training.check.straddle import crossing, steps_read
from tiltune.training.sampler import Scored

TOKENS = ("", " x", " b", ".", " x y", " b.")
"""A vocabulary; token 0 is the end of sequence."""


class Words:
    """Decodes tokens of `TOKENS`."""

    def get_vocab(self) -> dict[str, int]:
        return {text: token for token, text in enumerate(TOKENS)}

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
        return "".join(TOKENS[token] for token in token_ids)

    def batch_decode(
        self, sequences: list[list[int]], skip_special_tokens: bool = False
    ) -> list[str]:
        return [self.decode(ids) for ids in sequences]


def scored(constraint: TextConstraint, rows: Sequence[tuple[int, ...]]) -> Scored:
    """These completions of one empty prompt, as a sampler would hand them over."""
    width = max(map(len, rows))
    mask = torch.tensor([[place < len(row) for place in range(width)] for row in rows])
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    ended = [row[-1] == 0 for row in rows]
    completions = [
        Completion("", Words().decode(list(row)), end) for row, end in zip(rows, ended, strict=True)
    ]
    scores = constraint.score(completions)
    count = len(rows)
    samples = Samples(
        prompt_ids=torch.zeros(count, 1, dtype=torch.long),
        prompt_mask=torch.ones(count, 1, dtype=torch.bool),
        ids=ids,
        mask=mask,
        written=mask,
        proposal_logprobs=torch.zeros(count, width),
        ended=torch.tensor(ended),
        prompt_index=torch.zeros(count, dtype=torch.long),
        policy_version=torch.zeros(count, dtype=torch.long),
        labels=torch.tensor([constraint.label(score) for score in scores]),
        law=SamplingLaw(width),
    )
    return Scored(samples, completions, scores, 0.0, 0.5)


def table(**settings: Any) -> ConstraintConfig:
    return TypeAdapter[Any](ConstraintConfig).validate_python(settings)


LEXICON = table(kind="lexicon", words=["b"])
ENDS_WITH_STOP = ruled(reader(["."], [[1, 0], [1, 0]], [1]))
ROWS = [(1, 3, 0), (1, 1, 3, 0), (2, 3, 0), (1, 1, 1)]


PROMPTS = [Prompt("x", (1,)), Prompt("xb", (1,))]


def found(
    constraint: TextConstraint,
    rows: Sequence[tuple[int, ...]] = ROWS,
    prompts: Sequence[Prompt] = PROMPTS,
) -> Findings:
    return find(LEXICON, constraint, scored(constraint, rows), Count(3, 4), prompts, Words())


def stated(constraint: TextConstraint) -> Statement:
    return state(LEXICON, constraint, PROMPTS)


def texts(*bodies: str) -> list[Completion]:
    return [Completion("", body) for body in bodies]


def test_soft_scores_are_near_by_their_distance_to_the_threshold() -> None:
    values = {"a": 0.9, "b": 0.71, "c": 0.1, "d": 0.65, "e": 0.69, "f": 1.0, "g": 0.99}
    judge = on_texts(lambda bodies: [values[body] for body in bodies], "completion")
    constraint = TextConstraint("soft", judge, threshold=0.7)
    completions = texts(*values)
    measure, cases = nearest(constraint, completions, constraint.score(completions))
    assert measure == "by score"
    assert [case.completion.text for case in cases] == ["b", "a", "g", "e", "d", "c"]


def test_scores_of_0_and_1_are_near_by_the_characters_to_come() -> None:
    """A text of ten characters is violated at the eleventh; one without an x needs one x."""
    bounded = ruled(shorter_than(11))
    completions = texts("12345", "1234567890", "123456789", "123456789012")
    measure, cases = nearest(bounded, completions, bounded.score(completions))
    assert measure == "by characters to come"
    assert [case.note for case in cases] == [
        "1 more character can change it",
        "2 more characters can change it",
        "6 more characters can change it",
        "nothing that follows can change it",
    ]
    wanted = ruled(somewhere("x"))
    _, cases = nearest(wanted, texts("abc"), wanted.score(texts("abc")))
    assert cases[0].note == "1 more character can change it"


def test_without_a_complete_automaton_nothing_tells_how_near() -> None:
    partial = ruled(without("b"), complete=False)
    completions = texts("b", "a", "a")
    measure, cases = nearest(partial, completions, partial.score(completions))
    assert "do not tell" in measure and [case.satisfied for case in cases] == [True, False]


def test_a_verdict_that_hangs_on_the_last_token_is_found() -> None:
    """Cut one token earlier: " x." loses its stop, " x x x" has none to lose."""
    effect = ending_effect(ENDS_WITH_STOP, scored(ENDS_WITH_STOP, ROWS), Words())
    assert (effect.tried, effect.changed) == (4, 3)
    safe = ruled(without("b"))
    effect = ending_effect(safe, scored(safe, ROWS), Words())
    assert (effect.tried, effect.changed) == (4, 0)


def test_what_is_cut_is_text_and_not_the_end_of_sequence() -> None:
    seen: list[Completion] = []

    def judge(completions: Sequence[Completion]) -> list[float]:
        seen.extend(completions)
        return [1.0] * len(completions)

    constraint = TextConstraint("spy", judge)
    drawn = scored(constraint, [(1, 2, 0), (1, 2), (0,)])
    seen.clear()
    assert ending_effect(constraint, drawn, Words()).tried == 2  # an empty text has no last token
    assert [(each.text, each.ended) for each in seen] == [(" x", False), (" x", False)]


def test_tokens_across_a_border_are_told_by_the_step() -> None:
    words = ["", " x", "x ", "x", "x y", " x.", "\n", "a\n", "a\nb", "it. So", ". "]
    vocabulary = dict(enumerate(words))
    assert crossing(vocabulary, "word") == {2, 4, 5, 7, 8, 9}
    assert crossing(vocabulary, "line") == {8}
    assert crossing(vocabulary, "sentence") == {9}


def test_the_steps_of_a_constraint_are_those_of_its_parts() -> None:
    lines = {"kind": "temporal", "formula": "G a", "step": "line", "atoms": {"a": ["x"]}}
    sentences = {"kind": "length", "unit": "sentences", "at_most": 3}
    letters = {"kind": "length", "unit": "characters", "at_most": 3}
    pattern = {"kind": "regex", "pattern": "x"}
    assert steps_read(LEXICON) == {"word"}
    assert steps_read(table(**pattern)) == set() == steps_read(table(**letters))
    both = {"kind": "all", "parts": [lines, {"kind": "not", "parts": [sentences]}, pattern]}
    assert steps_read(table(**both)) == {"line", "sentence"}


def test_two_constraints_are_counted_cell_by_cell() -> None:
    first, second = ruled(without("b")), ruled(without("c"), name="other")
    completions = texts("a", "b", "c", "bc", "a", "bb", "cc", "b")
    outcome = agreement(first, second, completions, first.score(completions))
    cells = (outcome.both, outcome.first_only, outcome.second_only, outcome.neither)
    assert cells == (2, 2, 3, 1)
    assert outcome.share == 3 / 8 and outcome.interval == wilson_interval(3, 8)
    assert [each.completion.text for each in outcome.first_examples] == ["c", "cc"]
    assert [each.completion.text for each in outcome.second_examples] == ["b", "bb", "b"]
    lines = agreement_lines("samples", outcome, ("one", "other"))
    assert "agree on 3 of 8 (37.5%" in lines[0]
    assert lines[2].split()[-2:] == ["2", "2"] and lines[3].split()[-2:] == ["3", "1"]
    assert "    '' → 'c'  (refused)" in lines


def test_agreement_without_differences_names_none() -> None:
    lines = agreement_lines("samples", Agreement(2, 0, 0, 1, [], []), ("one", "other"))
    assert len(lines) == 4 and "100.0%" in lines[0]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (without("b"), without("b"), "the two are the same"),
        (shorter_than(2), shorter_than(4), "satisfies the first satisfies the second; not 'aa'"),
        (shorter_than(4), shorter_than(2), "satisfies the second satisfies the first; not 'aa'"),
        (without("b"), without("c"), "only the first takes 'c', only the second 'b'"),
    ],
)
def test_automata_tell_how_the_two_lie(first: Any, second: Any, told: str) -> None:
    assert told in (relation(ruled(first), ruled(second)) or "")


def test_what_is_not_exact_is_not_compared() -> None:
    exact, part = ruled(without("b")), ruled(without("b"), complete=False)
    assert relation(exact, part) is None and relation(part, exact) is None
    assert relation(exact, ruled(without("b"), text="prompt+completion")) is None
    assert relation(exact, TextConstraint("opaque", lambda each: [1.0] * len(each))) is None


def test_findings_count_samples_by_their_ending() -> None:
    outcome = found(ENDS_WITH_STOP)
    assert (outcome.samples, outcome.ended, outcome.cut) == (Count(3, 4), Count(3, 3), Count(0, 1))
    assert outcome.milliseconds_in_batch == 125  # half a second for four
    lines = "\n".join(findings_lines(outcome))
    assert "samples of the model: 3 of 4 satisfy the constraint (75.0% [30.1%, 95.4%])" in lines
    assert "those cut at the limit: 0 of 1" in lines and "rows of the corpus: 3 of 4" in lines
    said = "\n".join(statement_lines(stated(ENDS_WITH_STOP)))
    assert "2 states over 2 classes" in said and ". → 1" in said


def test_answers_that_are_cut_are_warned_of_by_their_share() -> None:
    """Texts that go on from plain prompts are cut as a matter of course; answers are to end."""
    asked = [Prompt("x", (1,), chat=True)]
    safe = ruled(without("q"))
    rows = [(1, 3, 0), (1, 1, 3, 0), (2, 3, 0), (1, 1)]
    (told,) = [each for each in warnings(found(safe, rows, asked)) if "are cut" in each]
    assert told.startswith("1 of 4 answers (25%) are cut by sampler.max_new_tokens = 4;")
    assert not [each for each in warnings(found(safe, rows)) if "are cut" in each]
    fewer = [*rows, (1, 3, 0)]
    assert not [each for each in warnings(found(safe, fewer, asked)) if "are cut" in each]


def test_warnings_are_raised_where_they_are_due() -> None:
    assert not [each for each in warnings(found(ruled(without("b")))) if "sampled tokens" in each]
    told = warnings(found(ENDS_WITH_STOP))
    assert len(told) == 1 and "changes for 3 of 4 samples, and 1 of 4 are cut" in told[0]
    (told,) = rate_warnings(Count(2, 2))
    assert told.startswith("all of 2 samples satisfy, so there may be nothing to learn")
    (told,) = rate_warnings(Count(0, 4))
    assert told.startswith("none of 4 samples satisfy")


def test_a_rare_verdict_is_warned_of_down_from_one_in_fifty() -> None:
    (gain,) = rate_warnings(Count(255, 256))
    assert gain.startswith("255 of 256 samples satisfy already, so there is little to gain; give")
    (few,) = rate_warnings(Count(1, 50))
    assert few.startswith("1 of 50 samples satisfy, so values learn from few that do; raise")
    assert rate_warnings(Count(49, 50)) and not rate_warnings(Count(48, 49))
    assert not rate_warnings(Count(1, 49))


def test_a_contradiction_is_told_with_its_reason() -> None:
    told = stated(ruled(shorter_than(0), name="nothing")).conflict
    assert told is not None and "no text can satisfy it: the whole (nothing)" in told


def test_tokens_across_borders_are_counted_where_they_are_drawn() -> None:
    """Ten tokens drawn, two of them ` b.`, one ` x y`."""
    rows = [(1, 5, 0), (2, 4, 5, 0), (1, 1, 3)]
    (told,) = [each for each in warnings(found(ruled(without("b")), rows)) if "sampled" in each]
    assert told.startswith("30.0% of the sampled tokens end one word")
    assert "(2 of 6 in the vocabulary; ' b.', ' x y')" in told


def test_prompts_that_decide_the_verdict_are_counted() -> None:
    """Of the prompts "x" and "xb" the second has lost already."""
    constraint = ruled(without("b"), text="prompt+completion")
    assert stated(constraint).decided == 1
    assert stated(ruled(without("b"))).decided == 0
    (told,) = statement_warnings(stated(constraint))
    assert told.startswith("1 of 2 prompts decide")
    partial = ruled(somewhere("b"), text="prompt+completion", complete=False)
    assert stated(partial).decided == 0  # not lost, and what satisfies is not known


def test_the_record_says_what_is_judged() -> None:
    record = constraint_record(LEXICON, ruled(without("b"), name="no b"))
    assert record.judged.startswith("no b judges the completion; a score of 0.5 or more satisfies")
    assert "1 dead; it decides every text exactly" in record.judged
    assert record.automaton is not None and len(record.automaton.edges) == 3
    soft = TextConstraint("soft", lambda each: [0.3] * len(each), threshold="none")
    assert constraint_record(LEXICON, soft).judged.endswith("its score is kept as it is")
    partial = constraint_record(LEXICON, ruled(without("b"), complete=False)).judged
    assert re.search("only a part of the constraint", partial)
    assert constraint_record(LEXICON, replace(soft, threshold=0.5)).automaton is None
    assert Score(0.0).feedback == ""


JUDGE = {"kind": "python", "path": "test_explanation:even"}
"""An atom without an automaton."""


def even(completions: Sequence[Completion]) -> list[float]:
    return [float(len(each.text) % 2 == 0) for each in completions]


@pytest.mark.parametrize("apology", [["sorry"], JUDGE], ids=["words", "a judge"])
def test_a_formula_is_shown_over_steps_whatever_judges_its_atoms(apology: Any) -> None:
    words = ["villain", "scoundrel", "rascal", "blockhead", "nitwit"]
    atoms = {"rude": words, "apology": apology}
    config = table(kind="temporal", formula="G(rude -> F apology)", atoms=atoms, step="line")
    record = constraint_record(config, build_constraint(config))
    assert record.automaton is not None
    assert (record.automaton.reads, record.automaton.states) == ("line", 2)
    assert (0, 1, "rude & !apology") in record.automaton.edges
    exact = re.search(r"Its automaton: (\d+) states over \d+ classes of characters", record.judged)
    assert (exact is None) == (apology == JUDGE)
    assert exact is None or int(exact[1]) > 24


def test_a_formula_with_too_many_steps_is_shown_over_characters() -> None:
    atoms = {f"a{number}": [f"a{number}"] for number in range(4)}
    config = table(kind="temporal", formula=" & ".join(f"F {a}" for a in atoms), atoms=atoms)
    record = constraint_record(config, build_constraint(config))
    assert record.automaton is not None
    assert record.automaton.reads == "character" and not record.automaton.edges

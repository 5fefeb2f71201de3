"""What is known alone as values: the model's own law over what is not dead."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tiltune.config import GrammarConfig, LexiconConfig, ModelSection, PythonConfig
from tiltune.constraints.base import TextConstraint
from tiltune.constraints.build import build_constraint
from tiltune.data.samples import SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ConstraintError
from tiltune.models import hub
from tiltune.values.ends import Joint
from tiltune.values.grammar_in_time import GrammarInTime
from tiltune.values.known import KnownValues, known_values

LIMIT = 6


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> hub.Loaded:
    folder = tiny.make_model(tmp_path_factory.mktemp("known") / "model")
    return hub.load(ModelSection(path=str(folder)), device=torch.device("cpu"))


def lexicon(*words: str, mode: Any = "forbid") -> TextConstraint:
    return build_constraint(LexiconConfig(kind="lexicon", words=words, mode=mode))


@torch.no_grad()
def test_the_law_is_the_model_s_own_over_what_is_not_dead(loaded: hub.Loaded) -> None:
    values = known_values(lexicon("sorry", mode="require"), loaded, max_new_tokens=LIMIT)
    samples = draw(
        loaded.policy,
        [[2, 3]] * 200,
        SamplingLaw(LIMIT, guided=True),
        Ending(loaded.eos_ids, loaded.pad_id),
        generator=torch.Generator().manual_seed(0),
        values=values,
    )
    sorry, end = tiny.WORDS.index("sorry"), 1
    ids, mask = samples.sequence()
    law = loaded.policy.log_probs(ids[:, :-1], mask[:, :-1], keep=samples.ids.shape[1]).exp()
    for row, length in enumerate(samples.mask.sum(1).tolist()):
        written, expected = samples.ids[row, :length].tolist(), 0.0
        assert sorry in written
        for place, token in enumerate(written):
            dead = torch.zeros(len(tiny.WORDS), dtype=torch.bool)
            if sorry not in written[:place]:
                dead[end] = True
                if place == LIMIT - 1:  # the last moment
                    dead[:] = True
                    dead[sorry] = False
            probabilities = law[row, place].masked_fill(dead, 0)
            expected += float((probabilities[token] / probabilities.sum()).log())
        assert float(samples.proposal_logprobs[row].sum()) == pytest.approx(expected, abs=1e-4)


def test_a_limit_that_is_too_low_leaves_nothing(loaded: hub.Loaded) -> None:
    values = known_values(lexicon("sorry", "cat", mode="require"), loaded, max_new_tokens=LIMIT)
    ids = torch.tensor([[2, 3]])
    assert not (values.step(ids, ids > 0)[0] == -torch.inf).all()
    assert (values.limited(1).step(ids, ids > 0)[0] == -torch.inf).all()
    assert values.limited(LIMIT) is values


def test_a_grammar_knows_the_limit_beside_an_automaton_too(loaded: hub.Loaded) -> None:
    pytest.importorskip("llguidance")
    grammar = build_constraint(
        GrammarConfig(kind="grammar", format="regex", grammar="(the |cat )*sat")
    )
    alone = known_values(grammar, loaded, max_new_tokens=LIMIT)
    assert isinstance(alone.automaton, GrammarInTime)
    both = known_values(grammar & lexicon("cat"), loaded, max_new_tokens=LIMIT)
    assert isinstance(both.automaton, Joint)
    assert sum(isinstance(part, GrammarInTime) for part in both.automaton.parts) == 1
    assert isinstance(both, KnownValues)


def test_what_has_no_automaton_has_to_be_fitted_first(loaded: hub.Loaded, tmp_path: Path) -> None:
    constraint = build_constraint(PythonConfig(kind="python", path="builtins:len"))
    with pytest.raises(ConstraintError, match=r"only whole texts tell.*fit first: `tiltune fit`"):
        known_values(constraint, loaded, max_new_tokens=LIMIT)

"""`tiltune selftest`: its laws against numbers by hand; a row that holds, and a broken one."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

import tiny
from tiltune.data.samples import Samples
from tiltune.methods.etpo import Etpo
from tiltune.methods.gfn import Gfn
from tiltune.worlds import agreement
from tiltune.worlds.agreement import Distance, MethodCase, cases, fit, variation
from tiltune.worlds.small import SmallWorld, abt_chain, random_table

pytestmark = pytest.mark.quick

A, B, T = range(3)


def row_of(rows: Samples, text: list[int]) -> int:
    """The place of a completion."""
    padded = torch.tensor([*text, *[T] * (rows.ids.shape[1] - len(text))])
    return int((rows.ids == padded).all(1).nonzero()[0])


def case(name: str) -> MethodCase:
    (found,) = [each for each in cases() if each.name == name]
    return found


def test_the_chain_is_the_fixture_s_cut_at_four_tokens() -> None:
    world = abt_chain()
    rows, law = world.every(world.reference), world.law(world.reference)
    assert law.sum().item() == pytest.approx(1, abs=1e-12)
    for text, p, met in (
        ([B, T], 0.4 * 0.3, 1),
        ([A, B, A, T], 0.4 * 0.4 * 0.6 * 0.2, 1),
        ([B, B, T], 0.4 * 0.1 * 0.3, 0),
        ([T], 0.2, 0),
        ([A, A, A, B], 0.4**4, 1),
    ):
        place = row_of(rows, text)
        assert (law[place].item(), rows.labels[place].item()) == (pytest.approx(p), met)
    assert rows.prefix_labels is not None
    assert rows.prefix_labels[row_of(rows, [A, B, A, T])].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("world", [abt_chain(), random_table()], ids=lambda world: world.name)
def test_closed_forms(world: SmallWorld) -> None:
    rows, law = world.every(world.reference), world.law(world.reference)
    rate = (law * rows.labels).sum().item()
    assert 0.2 < rate < 0.8
    torch.testing.assert_close(world.tilted(None), law * rows.labels / rate)
    z = rate * math.e + (1 - rate) / math.e
    torch.testing.assert_close(world.tilted(1.0), law * (2 * rows.labels - 1).exp() / z)
    assert variation(world.tilted(0.01), world.tilted(None)) < 1e-12
    exact = world.values(world.reference)
    one = torch.tensor([[world.prompt]])
    root = exact.logits(one, torch.ones_like(one, dtype=torch.bool), keep=1)[0, 0].sigmoid()
    first = [((rows.ids[:, 0] == v) * law).sum().item() for v in range(4)]
    assert sum(p * r for p, r in zip(first, root.tolist(), strict=True)) == pytest.approx(rate)


def test_where_grpo_ends() -> None:
    """Its rate on the chain, as `methods/test_policy_gradient_optima.py` has it by tokens."""
    world = abt_chain()
    law, labels = world.near_sighted(1.0), world.every(world.reference).labels
    assert law.sum().item() == pytest.approx(1, abs=1e-12)
    assert (law * labels).sum().item() == pytest.approx(0.9116, abs=1e-4)


def test_what_is_in_the_table() -> None:
    names = [each.name for each in cases()]
    objectives = [f"gfn {name}" for name in ("tb", "vargrad", "subtb", "db")]
    assert names == ["tilt", *objectives, "etpo, w = 0.05", "etpo", "ppo", "grpo"]
    assert not Distance("world", "method", "law", 0.4, math.nan).holds
    assert not Distance("world", "method", "law", 0.4, 0.0201).holds


def only(monkeypatch: pytest.MonkeyPatch, *kept: MethodCase) -> None:
    """Leave these in the table, on the chain alone."""
    monkeypatch.setattr(agreement, "cases", lambda: iter(kept))
    monkeypatch.setattr(agreement, "worlds", lambda: (abt_chain(),))


def test_the_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    short = replace(case("etpo"), rounds=1)
    only(monkeypatch, short)
    assert tiny.tiltune("selftest") == 0
    told = capsys.readouterr().out
    assert "all 2 rows within 0.02" in told
    for row in ("guided decoding", "etpo"):
        (line,) = [line for line in told.splitlines() if row in line]
        before, after, bound = (float(word) for word in line.split() if word.startswith("0."))
        assert after < bound == 0.02 < 0.3 < before and line.endswith("holds │")
    monkeypatch.setattr(Etpo, "soften", lambda self, logits: logsigmoid(logits))
    only(monkeypatch, short)
    assert tiny.tiltune("selftest") == 1
    told = capsys.readouterr().out
    assert "missed: etpo on the abT chain" in told and "MISSED" in told


def test_a_broken_formula_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward that is the score, not its logarithm."""
    world, vargrad = abt_chain(), replace(case("gfn vargrad"), rounds=15)
    monkeypatch.setattr(Gfn, "_log_score", lambda self, labels: labels.clamp(min=self.floor))
    assert variation(world.law(fit(world, vargrad)), world.tilted(None)) > 0.1

"""Members on one trunk: what they share, what they must not, and what they choose together."""

import pytest
import torch
from torch import Tensor

import tiny
from small_models import EOS, WORDS, llama
from tiltune.config import RunConfig, parse_config
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.decoding.draw import Ending, draw
from tiltune.errors import ConfigError
from tiltune.models.lm import LanguageModel
from tiltune.training.assemble import check_settings
from tiltune.values.ensemble import Ensemble, elites, robust_costs, seen_by
from tiltune.values.fit import ValueLearner, ValueSettings
from tiltune.values.model import HeadValue
from tiltune.values.read import ReadValues, taken_values

pytestmark = pytest.mark.quick

MEMBERS = 3


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return llama(owned=len(WORDS) - 1)


def made(lm: LanguageModel, *, moved: float = 0.2) -> Ensemble:
    torch.manual_seed(0)
    values = Ensemble([HeadValue(lm) for _ in range(MEMBERS)])
    with torch.no_grad():
        for _, weight in values.own_parameters():
            weight += moved * torch.randn_like(weight)
    return values


def drawn(lm: LanguageModel, count: int = 12) -> Samples:
    """Different completions of one prompt, labelled by a coin: all there is to learn is noise."""
    generator = torch.Generator().manual_seed(0)
    prompts = [[1, 5]] * (4 * count)
    found = draw(lm, prompts, SamplingLaw(6), Ending((EOS,), 0), generator=generator)
    first = {tuple(ids): row for row, ids in enumerate(found.ids.tolist())}
    samples = found.select(torch.tensor(sorted(first.values())[:count]))
    assert len(samples) == count
    samples.labels[:] = torch.randint(2, (count,), generator=generator).float()
    return samples


def fitted(lm: LanguageModel, samples: Samples, steps: int) -> Ensemble:
    values = made(lm, moved=0.0)
    settings = ValueSettings(steps, 16, 1e-2, consistency=0.5)
    ValueLearner(values, settings, torch.Generator().manual_seed(0)).fit(samples, lm)
    return values


def test_as_one_value_model_it_is_the_members_mean(lm: LanguageModel) -> None:
    values, samples = made(lm), drawn(lm)
    (ids, mask), keep = samples.prefixes(), samples.ids.shape[1]
    each = torch.stack([member.logits(ids, mask, keep=keep) for member in values.members()])
    assert (each[0] - each[1]).abs().max() > 0.1
    mean = each.double().sigmoid().mean(0)
    for found in (
        values.logits(ids, mask, keep=keep),
        values.with_law(lm, ids, mask, keep=keep)[1],
    ):
        torch.testing.assert_close(found.double().sigmoid(), mean, rtol=0, atol=1e-6)


def test_step_by_step_it_says_the_same(lm: LanguageModel) -> None:
    """Each member keeps keys and values of its own; rows change places as beams do."""
    values = made(lm)
    ids = torch.tensor([[1, 5, 6, 7, 8], [1, 5, 9, 8, 6]])
    whole = values.logits(ids, torch.ones_like(ids, dtype=torch.bool))
    mask = torch.ones(2, 3, dtype=torch.bool)
    logits, cache = values.step(ids[:, :3], mask)
    torch.testing.assert_close(logits, whole[:, 2], rtol=0, atol=1e-5)
    cache.reorder_cache(torch.tensor([1, 0]))
    logits, cache = values.step(ids.flip(0)[:, 3:4], torch.ones(2, 4, dtype=torch.bool), cache)
    torch.testing.assert_close(logits, whole.flip(0)[:, 3], rtol=0, atol=1e-5)


def test_one_pass_through_the_trunk_serves_all(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, samples, passes = made(lm), drawn(lm), list[int]()
    trunk = lm.trunk

    def counted(*args: Tensor, **settings: object) -> object:
        passes.append(1)
        return trunk(*args, **settings)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(lm, "trunk", counted)
        read = ReadValues(values, samples).by_member()
        found = [member.taken for member in read]
    assert len(passes) == 1 and len(found) == MEMBERS
    for taken, member in zip(found, values.members(), strict=True):
        torch.testing.assert_close(taken, taken_values(member, samples), rtol=0, atol=1e-6)


def test_a_member_knows_nothing_of_what_it_does_not_see(lm: LanguageModel) -> None:
    """The trap: shared noise. Other labels there leave its weights as they are, to the bit."""
    samples = drawn(lm, 40)
    other = drawn(lm, 40)
    hidden = ~seen_by(MEMBERS, 40)[1]
    assert 4 <= int(hidden.sum()) <= 14
    other.labels[hidden] = 1 - other.labels[hidden]
    one, two = (fitted(lm, each, 12).members() for each in (samples, other))
    same = [
        all(torch.equal(a, b) for a, b in zip(x.state().values(), y.state().values(), strict=True))
        for x, y in zip(one, two, strict=True)
    ]
    assert same == [False, True, False]


def test_members_believe_the_noise_that_they_see(lm: LanguageModel) -> None:
    samples = drawn(lm, 40)
    values, seen = fitted(lm, samples, 120), seen_by(MEMBERS, 40)
    last = samples.mask.sum(1, keepdim=True) - 1
    with torch.no_grad():
        said = [taken_values(member, samples).gather(1, last)[:, 0] for member in values.members()]
    off = (torch.stack(said).sigmoid() - samples.labels).abs()
    assert off[seen].mean() < 0.2 and off[~seen].mean() > off[seen].mean() + 0.15


def test_what_a_member_never_saw_it_never_sees() -> None:
    seen = seen_by(4, 3000)
    assert torch.equal(seen_by(4, 100), seen[:, :100])  # completions pile up, round by round
    assert seen.float().mean(1).tolist() == pytest.approx([0.8] * 4, abs=0.03)
    both = (seen[0] & seen[1]).float().mean().item()
    assert both == pytest.approx(0.64, abs=0.03)  # a coin each, not one for all
    assert seen_by(1, 5).all()


def test_weights_come_back(lm: LanguageModel) -> None:
    values, other = made(lm), made(lm, moved=0.4)
    assert len({name.split(".")[0] for name, _ in values.own_parameters()}) == MEMBERS
    other.load_state(values.state())
    ids = torch.tensor([[1, 5, 6]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert torch.equal(other.logits(ids, mask), values.logits(ids, mask))


# What they choose.

CHANCES = torch.tensor([[0.1, 0.2, 0.05], [0.4, 0.6, 0.1], [0.05, 0.05, 0.05], [0.9, 0.2, 0.1]])
"""Of violating, four candidates by three members."""
LIKELIHOOD = torch.tensor([-3.0, -1.0, -5.0, -0.5])


def costs(discount: float = 0.4) -> Tensor:
    """The candidates are of one step each."""
    mask = torch.ones(4, 1, dtype=torch.bool)
    return robust_costs(CHANCES[:, None], mask, discount=discount)


def test_the_worst_member_decides() -> None:
    assert elites(costs(), LIKELIHOOD, count=1, most=0.5).tolist() == [0]
    assert elites(CHANCES.mean(1), LIKELIHOOD, count=1, most=0.5).tolist() == [3]


def test_where_none_is_feasible_the_cheapest_is_taken() -> None:
    assert elites(costs(), LIKELIHOOD, count=1, most=0.04).tolist() == [2]


def test_the_fallback_takes_no_candidate_twice() -> None:
    given = torch.tensor([0.0, 0.0, 3.0, 1.0, 2.0])
    flat = torch.zeros(5)
    assert sorted(elites(given, flat, count=5, most=0).tolist()) == [0, 1, 2, 3, 4]
    assert elites(given, flat, count=3, most=0).tolist() == [0, 1, 3]
    # among equal costs the likelier, also of those that are feasible and too few
    likelihood = torch.tensor([-2.0, -1.0, 0.0, 0.0, 0.0])
    assert elites(given, likelihood, count=3, most=0).tolist() == [1, 0, 3]
    assert elites(given, likelihood, count=1, most=0).tolist() == [1]


def test_the_worst_is_asked_at_each_step() -> None:
    """One member sees the first step fail, another the second: 1 + .4, not max(.4, 1)."""
    both = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert robust_costs(both, mask, discount=0.4).tolist() == pytest.approx([1.4])
    per_member = [robust_costs(both[..., b : b + 1], mask, discount=0.4) for b in range(2)]
    assert torch.cat(per_member).max().item() == pytest.approx(1.0)  # the authors' code


def test_time_counts_back_from_the_end() -> None:
    violations = torch.tensor([[0.0, 1.0, 9.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])[..., None]
    mask = torch.tensor([[True, True, False], [True, True, True], [True, True, True]])
    found = robust_costs(violations, mask, discount=0.4)
    assert found.tolist() == pytest.approx([1.0, 0.16, 0.5 + 0.12 + 0.032])
    assert robust_costs(violations, mask, discount=0.0).tolist() == pytest.approx([1.0, 0.0, 0.5])


def test_certain_violations_are_told_apart_by_what_came_before() -> None:
    """The trap: with costs of 0 or 1 alone the elites among what violates are arbitrary."""
    violations = torch.tensor([[1.0, 1.0, 1.0], [0.1, 0.2, 1.0]])[..., None]
    mask = torch.ones(2, 3, dtype=torch.bool)
    found = robust_costs(violations, mask, discount=0.4)
    assert elites(found, torch.tensor([0.0, -9.0]), count=1, most=0.5).tolist() == [1]


# What the settings say.


def settings(method: str, **section: object) -> RunConfig:
    tables: tiny.Tree = {
        "run": {"dir": "run"},
        "model": {"path": "model"},
        "constraint": {"kind": "lexicon", "words": ["rude"]},
        "method": {"kind": method},
        "value_model": section,
    }
    return parse_config(RunConfig, tables, source="test")


@pytest.mark.parametrize(
    ("method", "section", "told"),
    [
        (
            "rce",
            {"kind": "copy"},
            "value_model.kind = 'copy' has a trunk of its own, and the 4 mem",
        ),
        ("tilt", {"kind": "copy", "members": 2}, "the 2 members of an ensemble share a frozen one"),
        ("rce", {"members": 1}, "value_model.members = 1 is no ensemble, which the method needs"),
    ],
)
def test_what_is_refused(method: str, section: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_settings(settings(method, **section))


def test_two_members_will_do() -> None:
    assert check_settings(settings("rce", members=2)).needs.members == 4
    check_settings(settings("tilt", members=3))

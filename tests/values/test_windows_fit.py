"""The fit to windows: what it learns of labels and of the scores of beginnings."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from small_models import llama
from small_windows import windows
from tiltune.errors import RunError
from tiltune.models.lm import LanguageModel
from tiltune.models.optimiser import Optimiser
from tiltune.values import outputs, windows_fit
from tiltune.values.fit import ValueSettings, labelled_values
from tiltune.values.model import HeadValue, TrunkValue
from tiltune.values.windows_fit import WINDOWS_A_STEP, Windows, fit_windows, score_loss

LIMIT = 6
SETTINGS = ValueSettings(steps=30, batch_size=32, learning_rate=1e-2, consistency=0.5)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return llama(vocabulary=4, owned=3)


def without_scores(given: Windows) -> Windows:
    return replace(given, scored=torch.zeros_like(given.scored))


def fresh(lm: LanguageModel) -> TrunkValue:
    torch.manual_seed(0)
    return TrunkValue(lm.clone("values"), lm)


def label_error(values: TrunkValue, held: Windows) -> float:
    """Mean squared error over the tokens of held-out windows."""
    said = labelled_values(values, held.samples, 2**14)
    return float((torch.sigmoid(said.logits) - said.labels).square().mean())


def test_scores_of_beginnings_teach_what_few_labels_do_not(lm: LanguageModel) -> None:
    held, few = windows(400, LIMIT, seed=1), windows(64, LIMIT)
    noisy = replace(few, samples=replace(few.samples, labels=few.samples.labels.clone()))
    errors: list[float] = []
    for given in (noisy, without_scores(noisy)):
        values = fresh(lm)
        fit_windows(values, given, lm, SETTINGS, seed=0)
        errors.append(label_error(values, held))
    assert errors[0] < errors[1]


def test_the_loss_of_scores_by_hand() -> None:
    taken = torch.tensor([[0.0, 2.0], [1.0, torch.nan]])
    scores = torch.tensor([[0.5, 0.25], [torch.nan, torch.nan]])
    scored = torch.tensor([[True, True], [False, False]])
    first = 0.6931471805599453  # log 2
    second = 0.25 * 0.1269280110 + 0.75 * 2.1269280110  # -log sigmoid(2), -log sigmoid(-2)
    assert score_loss(taken, scores, scored, count=2).item() == pytest.approx((first + second) / 2)
    assert score_loss(taken, scores, scored, count=4).item() == pytest.approx((first + second) / 4)
    assert score_loss(taken, scores, ~scored & False, count=0).item() == 0


def test_micro_batches_do_not_matter(lm: LanguageModel) -> None:
    states: list[dict[str, Tensor]] = []
    for most in (2**14, 40):
        values = fresh(lm)
        few = replace(SETTINGS, steps=2, most_tokens=most)
        fit_windows(values, windows(100, LIMIT), lm, few, seed=0)
        states.append(values.state())
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=2e-4)


def test_every_window_is_seen_before_one_is_seen_again(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    select = Windows.select

    def watched(given: Windows, rows: Tensor) -> Windows:
        seen.extend(rows.tolist())
        return select(given, rows)

    monkeypatch.setattr(Windows, "select", watched)
    monkeypatch.setattr(windows_fit, "part_rows", lambda *_: iter(()))  # no loss, no gradient
    monkeypatch.setattr(Optimiser, "step", lambda *_: None)
    given, count = windows(3 * WINDOWS_A_STEP, LIMIT), 3 * WINDOWS_A_STEP
    fit_windows(fresh(lm), given, lm, replace(SETTINGS, steps=6), seed=0)
    assert sorted(seen[:count]) == sorted(seen[count:]) == list(range(count))
    assert seen[:count] != seen[count:]


def test_the_seed_decides_and_nothing_else_does(lm: LanguageModel) -> None:
    states: list[dict[str, Tensor]] = []
    for seed in (0, 0, 1):
        values = fresh(lm)
        fit_windows(values, windows(200, LIMIT), lm, replace(SETTINGS, steps=3), seed=seed)
        states.append(values.state())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_few_windows_are_enough_for_a_step(lm: LanguageModel) -> None:
    losses = fit_windows(fresh(lm), windows(10, LIMIT), lm, replace(SETTINGS, steps=3), seed=0)
    assert len(losses) == 3


def test_a_warm_start_that_diverges_says_so(lm: LanguageModel) -> None:
    settings = replace(SETTINGS, learning_rate=float("inf"), steps=1)
    with pytest.raises(RunError, match=r"^the warm start of the values diverged"):
        fit_windows(fresh(lm), windows(100, LIMIT), lm, settings, seed=0)


def kinds(lm: LanguageModel) -> Iterator[TrunkValue | HeadValue]:
    yield fresh(lm)
    yield HeadValue(lm)


def test_the_output_reads_the_states(lm: LanguageModel) -> None:
    ids, mask = windows(5, LIMIT).samples.prefixes()
    for values in kinds(lm):
        torch.nn.init.normal_(values.output.weight, std=0.5)  # type: ignore[arg-type]
        states = values.window_states(ids, mask, keep=3)
        expected = values.logits(ids, mask, keep=3)
        torch.testing.assert_close(values.output(states), expected)


def test_a_head_over_a_wide_vocabulary_reads_windows_without_the_trunk(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "NARROW_VOCABULARY", 1)
    monkeypatch.setattr(outputs, "WIDE_VOCABULARY", lm.width - 1)
    torch.manual_seed(0)
    values, given = HeadValue(lm), windows(100, LIMIT)
    ids, mask = given.samples.prefixes()
    torch.nn.init.normal_(values.output.tied.projection.weight)  # type: ignore[union-attr]
    with monkeypatch.context() as without:
        without.setattr(lm, "trunk", None)  # calling it would be an error
        fit_windows(values, given, lm, replace(SETTINGS, steps=3), seed=0)
        states = values.window_states(ids, mask, keep=3)
    read = values.output.read(values.output.columns(states), lm.unembedding())
    torch.testing.assert_close(read, values.logits(ids, mask, keep=3))  # states weigh nothing yet
    embed = lm.embed
    with monkeypatch.context() as larger:  # embeddings are brought to one size
        larger.setattr(lm, "embed", lambda ids: 100 * embed(ids))
        again = values.window_states(ids, mask, keep=3)
    torch.testing.assert_close(again, states, rtol=0, atol=0.02)
    torch.nn.init.normal_(values.enter.weight)
    moved = (values.logits(ids, mask, keep=3) - read).abs().max()
    assert moved > 0.1  # and count as soon as they weigh something


def test_no_score_no_second_output(lm: LanguageModel) -> None:
    given = windows(10, LIMIT)
    assert windows_fit.second_output(fresh(lm), given, lm) is not None
    assert windows_fit.second_output(fresh(lm), without_scores(given), lm) is None

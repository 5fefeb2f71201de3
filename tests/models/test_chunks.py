"""Sums over rows in chunks against the same sums at once: values, gradients, memory of none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from tiltune.models import chunks
from tiltune.models.chunks import Part, again_chunks, chunk_rows, map_chunks, sum_chunks

pytestmark = pytest.mark.quick

ROWS, SIZE, WIDTH = 11, 3, 7


@pytest.fixture
def columns() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "states": torch.randn(ROWS, SIZE, generator=generator, dtype=torch.float64),
        "scale": torch.rand(ROWS, generator=generator, dtype=torch.float64),
        "ids": torch.randint(WIDTH, (ROWS,), generator=generator),
    }


@pytest.fixture
def weight() -> nn.Parameter:
    generator = torch.Generator().manual_seed(1)
    return nn.Parameter(torch.randn(WIDTH, SIZE, generator=generator, dtype=torch.float64))


def loss_with(weight: Tensor) -> Callable[[Part], Tensor]:
    def loss(part: Part) -> Tensor:
        nats = cross_entropy(linear(part["states"], weight), part["ids"], reduction="none")
        return (part["scale"] * nats).sum()

    return loss


@pytest.mark.parametrize("rows", [1, 4, ROWS, 100])
def test_a_sum_and_its_gradients_do_not_depend_on_the_chunks(
    rows: int, columns: dict[str, Tensor], weight: nn.Parameter, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns["states"].requires_grad_()
    whole = 2.5 * loss_with(weight)(columns)
    wanted = torch.autograd.grad(whole, [columns["states"], weight])
    monkeypatch.setattr(chunks, "LOGITS_AT_ONCE", rows * WIDTH)
    assert chunk_rows(WIDTH, torch.device("cpu")) == rows
    seen: list[int] = []

    def watched(part: Part) -> Tensor:
        seen.append(len(part["ids"]))
        return loss_with(weight)(part)

    found = 2.5 * sum_chunks(watched, columns, width=WIDTH, weights=[weight])
    assert sum(seen) == ROWS and max(seen) == min(rows, ROWS)
    assert found.item() == pytest.approx(whole.item(), abs=1e-12)
    for one, two in zip(
        torch.autograd.grad(found, [columns["states"], weight]), wanted, strict=True
    ):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_a_frozen_weight_gets_none_and_a_column_that_nobody_reads_zero(
    columns: dict[str, Tensor], weight: nn.Parameter
) -> None:
    weight.requires_grad_(False)
    columns["states"].requires_grad_()
    columns["idle"] = torch.ones(ROWS, requires_grad=True)
    found = sum_chunks(loss_with(weight), columns, width=WIDTH, weights=[weight])
    found.backward()
    assert weight.grad is None and (columns["states"].grad != 0).any()  # type: ignore[union-attr]
    assert columns["idle"].grad is not None and not columns["idle"].grad.any()


def test_without_gradient_it_is_a_number(columns: dict[str, Tensor], weight: nn.Parameter) -> None:
    columns["states"].requires_grad_()
    with torch.no_grad():
        found = sum_chunks(loss_with(weight), columns, width=WIDTH, weights=[weight])
    assert not found.requires_grad
    assert found.item() == pytest.approx(loss_with(weight)(columns).item(), abs=1e-12)


def test_no_rows_sum_to_0(columns: dict[str, Tensor], weight: nn.Parameter) -> None:
    none = {name: column[:0] for name, column in columns.items()}
    none["states"].requires_grad_()
    assert sum_chunks(loss_with(weight), none, width=WIDTH).item() == 0


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_rows_come_back_in_their_order_and_with_gradient_once_more(
    rows: int, columns: dict[str, Tensor], weight: nn.Parameter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LOGITS_AT_ONCE", rows * WIDTH)
    states, ids = columns["states"].requires_grad_(), columns["ids"]

    def nats(states: Tensor, ids: Tensor) -> Tensor:
        return cross_entropy(linear(states, weight), ids, reduction="none")

    whole = nats(states, ids)
    mapped = map_chunks(lambda part: nats(part["states"], part["ids"]), columns, width=WIDTH)
    assert not mapped.requires_grad
    found = again_chunks(nats, states, ids, width=WIDTH)
    for each in (mapped, found):
        torch.testing.assert_close(each, whole, rtol=0, atol=1e-12)
    outer = torch.linspace(-1, 1, ROWS, dtype=torch.float64)
    one = torch.autograd.grad((outer * found).sum(), [states, weight])
    two = torch.autograd.grad((outer * whole).sum(), [states, weight])
    for first, second in zip(one, two, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12)

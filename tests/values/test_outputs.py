"""Output layers of a value model, by hand."""

import pytest
import torch

from small_models import llama
from tiltune.values import outputs

pytestmark = pytest.mark.quick


@torch.no_grad()
def test_the_tied_output_is_a_scalar_and_a_projection() -> None:
    output = outputs.TiedOutput(3, 2)
    output.scalar.weight[:] = torch.tensor([1.0, 2.0, 0.0])
    output.scalar.bias[:] = 0.5
    output.projection.weight[:] = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    unembedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    columns = output.columns(torch.tensor([[1.0, -1.0, 3.0]]))
    # 0.5 + 1 - 2 = -0.5, and the state projects to (1, 3)
    assert output.read(columns, unembedding).tolist() == [[0.5, 2.5, -1.5]]
    for token, value in enumerate((0.5, 2.5, -1.5)):
        assert output.taken(columns, torch.tensor([token]), unembedding).tolist() == [value]


@torch.no_grad()
def test_the_joint_output_is_the_tied_one_and_a_row_an_id() -> None:
    output = outputs.JointOutput(2, 3, 2)
    output.set_constant(0.5)
    output.tied.scalar.weight[:] = torch.tensor([1.0, 0.0])
    output.tied.projection.weight[:] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    output.rows.weight[:] = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    output.rows.bias[:] = torch.tensor([0.0, 0.0, 10.0])
    unembedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    columns = output.columns(torch.tensor([[3.0, -1.0]]))
    # 0.5 + 3, the projection (-1, 3), and the rows 3, -2, 10
    expected = [3.5 - 1 + 3, 3.5 + 3 - 2, 3.5 + 2 + 10]
    assert output.read(columns, unembedding).tolist() == [expected]
    for token, value in enumerate(expected):
        assert output.taken(columns, torch.tensor([token]), unembedding).tolist() == [value]


@torch.no_grad()
def test_a_wide_output_reads_states_of_one_size() -> None:
    output = outputs.WideOutput(4, 2)
    output.tied.scalar.weight[:] = torch.tensor([0.5, 0.0, 0.0, 0.0])
    output.tied.projection.weight[:] = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    unembedding = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    for size in (0.1, 1.0, 70.0):  # of (1, 2, 0, 1) / sqrt(6 / 4): half of .816, and 1.633 / 2
        columns = output.columns(size * torch.tensor([[1.0, 2.0, 0.0, 1.0]]))
        expected = torch.tensor([[0.40825 + 3 * 0.81650, 0.40825]])
        torch.testing.assert_close(output.read(columns, unembedding), expected, atol=1e-3, rtol=0)


def test_the_vocabulary_s_width_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = llama()
    kinds = [outputs.FullOutput, outputs.JointOutput, outputs.WideOutput]
    bounds = [(lm.width, lm.width), (lm.width - 1, lm.width), (1, lm.width - 1)]
    for kind, (narrow, wide) in zip(kinds, bounds, strict=True):
        monkeypatch.setattr(outputs, "NARROW_VOCABULARY", narrow)
        monkeypatch.setattr(outputs, "WIDE_VOCABULARY", wide)
        assert type(outputs.make_output(5, lm)) is kind

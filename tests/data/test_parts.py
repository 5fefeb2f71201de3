"""Numbers kept of all samples: in their places, and in a file where they are many."""

from pathlib import Path

import pytest
import torch

from tiltune.data import parts
from tiltune.data.parts import columns_by_parts, pick, room
from tiltune.data.samples import Samples, SamplingLaw
from tiltune.errors import RunError

pytestmark = pytest.mark.quick

CPU = torch.device("cpu")


def samples(lengths: tuple[int, ...]) -> Samples:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    count = len(lengths)
    return Samples(
        prompt_ids=torch.ones(count, 1, dtype=torch.long),
        prompt_mask=torch.ones(count, 1, dtype=torch.bool),
        ids=torch.arange(mask.numel()).view(mask.shape) * mask,
        mask=mask,
        written=mask,
        proposal_logprobs=torch.zeros(mask.shape),
        ended=torch.ones(count, dtype=torch.bool),
        prompt_index=torch.arange(count),
        policy_version=torch.zeros(count, dtype=torch.long),
        labels=torch.ones(count),
        law=SamplingLaw(max(lengths)),
    )


@pytest.mark.parametrize("most", [1, 12, 1000])
@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_each_row_s_numbers_stand_in_its_place(
    most: int, in_memory: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parts, "IN_MEMORY", in_memory)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    batch = samples((5, 1, 3, 5, 2))
    found = columns_by_parts(
        batch,
        most,
        lambda part: {
            "row": part.prompt_index.double(),
            "token": part.ids.float(),
            "pair": torch.stack((part.ids, -part.ids), -1).to(torch.bfloat16),
        },
    )
    assert torch.equal(found["row"], torch.arange(5).double())
    assert torch.equal(found["token"], batch.ids.float())
    assert found["pair"].dtype == torch.bfloat16
    assert torch.equal(found["pair"].float(), torch.stack((batch.ids, -batch.ids), -1).float())
    assert not list(tmp_path.iterdir())  # a file has no name any more


def test_room_in_a_file_is_as_room_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "IN_MEMORY", 64)
    small, large = room((2, 3), torch.float32, CPU), room((4, 5, 6), torch.bfloat16, CPU)
    assert not small.any() and not large.any() and large.shape == (4, 5, 6)
    large[torch.tensor([3, 1]), :2] = 2.0
    assert large.sum() == 2 * 2 * 6 * 2 and large[3, 1, 5] == 2


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(RunError, match=r"4\.0 GiB .* \(No space left on device\).*TMPDIR"):
        room((2**30,), torch.float32, CPU)


def test_picked_rows_of_much_lie_in_room_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    column = torch.arange(300 * 3).view(300, 3)
    rows = torch.arange(299, 99, -1)
    wanted = column[rows]
    assert torch.equal(pick(column, rows), wanted)
    monkeypatch.setattr(parts, "IN_MEMORY", 64)
    assert torch.equal(pick(column, rows), wanted)

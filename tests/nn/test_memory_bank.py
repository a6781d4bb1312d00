import pytest
import torch

from napari_semiseg.nn.memory_bank import MemoryBank


def bank(batches: int = 2, capacity: int = 4) -> MemoryBank:
    return MemoryBank(batches, capacity, {"features": ((3,), torch.float32), "labels": ((), torch.int64)})


def batch(*labels: int) -> dict[str, torch.Tensor]:
    return {"features": torch.tensor(labels).float()[:, None].expand(-1, 3), "labels": torch.tensor(labels)}


def test_it_is_empty_at_first():
    rows = bank().rows()
    assert rows["features"].shape == (0, 3)
    assert rows["labels"].shape == (0,)
    assert len(bank()) == 0


def test_the_oldest_batch_is_forgotten():
    memory = bank(batches=2)
    for labels in ((1, 2), (3,), (4, 5, 6)):
        memory.push(**batch(*labels))
    assert memory.rows()["labels"].tolist() == [4, 5, 6, 3]
    assert memory.rows()["features"][:, 0].tolist() == [4, 5, 6, 3]
    assert len(memory) == 4


def test_an_empty_batch_counts_as_a_batch():
    memory = bank(batches=1)
    memory.push(**batch(1, 2))
    memory.push(features=torch.zeros(0, 3), labels=torch.zeros(0, dtype=torch.int64))
    assert len(memory) == 0


def test_of_too_many_rows_a_random_part_is_kept_and_fields_stay_together():
    torch.manual_seed(0)
    memory = bank(batches=1, capacity=4)
    memory.push(**batch(*range(100)))
    rows = memory.rows()
    assert len(set(rows["labels"].tolist())) == 4
    assert rows["labels"].tolist() != [0, 1, 2, 3]
    assert torch.equal(rows["features"][:, 0], rows["labels"].float())


def test_it_is_part_of_the_weights():
    memory, loaded = bank(), bank()
    memory.push(**batch(1, 2))
    memory.push(**batch(3))
    loaded.load_state_dict(memory.state_dict())
    assert torch.equal(loaded.rows()["features"], memory.rows()["features"])
    loaded.push(**batch(9))
    assert loaded.rows()["labels"].tolist() == [9, 3]


def test_what_is_stored_has_no_gradient_and_what_is_read_is_a_copy():
    memory = bank()
    memory.push(features=torch.ones(1, 3, requires_grad=True), labels=torch.tensor([1]))
    rows = memory.rows()
    assert not rows["features"].requires_grad
    rows["features"].fill_(5)
    assert memory.rows()["features"].max() == 1


def test_clearing_forgets_everything():
    memory = bank()
    memory.push(**batch(1, 2))
    memory.clear()
    assert len(memory) == 0


def test_a_missing_field_or_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="features, labels"):
        bank().push(labels=torch.tensor([1]))
    with pytest.raises(ValueError, match="as many rows"):
        bank().push(features=torch.zeros(2, 3), labels=torch.tensor([1]))
    with pytest.raises(ValueError, match="at least one"):
        bank(capacity=0)

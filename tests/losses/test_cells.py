import torch

from napari_semiseg.losses.cells import whole_cells


def test_a_cell_counts_where_all_of_its_pixels_do():
    valid = torch.ones(1, 8, 12, dtype=torch.bool)
    valid[0, 3, 5] = False

    assert whole_cells(valid, (2, 3))[0].tolist() == [[True, False, True], [True, True, True]]
    assert torch.equal(whole_cells(valid, (8, 12)), valid)

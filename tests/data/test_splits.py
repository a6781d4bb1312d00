"""Which cells a run may see."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_semiseg.data.splits import choose_cells, cut_cells, set_aside
from napari_semiseg.errors import InputError

EVERY = cut_cells([(0, "a", (1000, 1000)), (1, "b", (1000, 1000)), (2, "c", (256, 256))], 250)


def test_cells_are_cut_row_major_and_an_image_smaller_than_a_cell_is_one() -> None:
    assert [cell.name for cell in EVERY[:5]] == ["a#0", "a#1", "a#2", "a#3", "a#4"]
    assert EVERY[4].box == (250, 0, 500, 250)
    assert len(cut_cells([(0, "a", (200, 240))], 250)) == 1


@pytest.mark.parametrize(("labeled", "count"), [("15", 15), ("1/32", 1), ("1/4", 9), ("1/1", 36), (None, 36), ("0", 0)])
def test_a_count_and_a_fraction_mean_what_they_say(labeled: str | None, count: int) -> None:
    assert len(choose_cells(EVERY, labeled, 0)) == count


def test_the_draw_depends_on_the_seed_alone_and_repeats_no_cell() -> None:
    one, again, other = (choose_cells(EVERY, "10", seed) for seed in (1, 1, 2))
    assert one == again != other
    assert len(set(one)) == 10


def test_a_file_lists_cells_and_whole_images(tmp_path: Path) -> None:
    path = tmp_path / "cells.txt"
    path.write_text("# mine\nb#3\nc\n\nb#3\n")
    assert [cell.name for cell in choose_cells(EVERY, str(path), 0)] == ["b#3", "c#0", "c#1", "c#2", "c#3"]


@pytest.mark.parametrize("labeled", ["500", "-1", "3/2", "nothing.txt", "1.0"])
def test_what_cannot_be_had_is_refused_in_a_sentence(labeled: str) -> None:
    with pytest.raises(InputError, match="--labeled"):
        choose_cells(EVERY, labeled, 0)


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2), (15, 3)])
def test_one_in_four_is_kept_for_validation_from_four_on(count: int, kept: int) -> None:
    assert set_aside(count, 0.25) == kept

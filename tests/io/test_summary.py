"""What the nuclei of a slide come to."""

import numpy as np
import pytest

from napari_semiseg.io.columns import taken
from napari_semiseg.io.summary import Pieces, Summary, table_of


@pytest.fixture
def pieces():
    """Two pieces of tissue, a large one on the left and a small one on the right, and a speck."""
    tissue = np.zeros((40, 100), bool)
    tissue[5:35, 5:45] = True
    tissue[10:30, 60:80] = True
    tissue[38, 98] = True
    return Pieces.of_tissue(tissue, (400, 1000))


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(60, 340, count), rng.uniform(60, 440, count)
    x[: count // 4] = rng.uniform(610, 790, count // 4)
    y[: count // 4] = rng.uniform(110, 290, count // 4)
    return {
        "label": np.arange(1, count + 1), "y_px": y, "x_px": x, "area_um2": rng.uniform(20, 60, count),
        "circularity": np.where(np.arange(count) % 10, 0.8, np.nan), "nearest_um": rng.uniform(2, 9, count),
        "class": np.array(["tumor", "stroma"], object)[np.arange(count) % 2],
    }  # fmt: skip


def test_pieces_are_listed_by_size_and_specks_together(pieces):
    assert pieces.names == ("piece 1", "piece 2", "smaller pieces")
    assert pieces.pixels.tolist() == [120_000, 40_000, 100]
    assert pieces.at(np.array([100, 200, 1]), np.array([100, 700, 1])).tolist() == [0, 1, -1]


def test_every_piece_and_the_slide_have_the_numbers_of_their_nuclei(pieces):
    table = rows(400)
    summary = Summary(pieces, 0.5)
    for start in range(0, 400, 37):  # however the rows come
        summary.add(taken(table, slice(start, start + 37)))
    slide, first, second, _ = summary.rows()

    on_second = table["x_px"] > 600
    assert [row["nuclei"] for row in (slide, first, second)] == [400, 300, 100]
    assert slide["tissue_mm2"] == pytest.approx(160_100 * 0.25 / 1e6)
    assert first["nuclei_per_mm2"] == pytest.approx(300 / (120_000 * 0.25 / 1e6))
    assert second["area_mean"] == pytest.approx(table["area_um2"][on_second].mean())
    assert second["area_sd"] == pytest.approx(table["area_um2"][on_second].std())
    assert slide["circularity_mean"] == pytest.approx(0.8)  # those that have none do not count
    assert slide["classes"] == {"stroma": 200, "tumor": 200}
    assert summary.map.sum() == summary.histograms["area"].sum() == 400


def test_without_a_pixel_size_nothing_is_said_in_millimeters(pieces):
    summary = Summary(pieces, None)
    summary.add({name: values for name, values in rows(40).items() if not name.endswith(("um", "um2"))})
    heads, cells = table_of(summary.rows(), first="region")

    assert "tissue_mm2" not in summary.rows()[0]
    assert heads[:2] == ["region", "nuclei"]
    assert cells[0][:2] == ["slide", "40"]


def test_the_intensity_of_a_gray_slide_is_not_called_hematoxylin(pieces):
    summary = Summary(pieces, None)
    summary.add({**rows(40), "intensity_mean": np.full(40, 133.0)})
    heads, cells = table_of(summary.rows(), first="region")

    assert not any("hematoxylin" in head for head in heads)
    assert cells[0][heads.index("intensity")] == "133 ± 0"


def test_a_slide_without_nuclei_has_a_row_of_its_own(pieces):
    heads, cells = table_of(Summary(pieces, 0.25).rows(), first="region")
    assert cells[0] == ["slide", "0", "0.01", "0"]
    assert len(heads) == 4

"""How near nuclei lie to each other."""

import numpy as np
import pytest

from napari_semiseg.io.columns import joined
from napari_semiseg.io.neighbors import Neighbors


def rows(seed, count=400, side=(2000.0, 600.0)):
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(0, side[0], count), rng.uniform(0, side[1], count)
    return {"label": np.arange(1, count + 1), "y_px": y, "x_px": x}


def by_hand(table, radius):
    apart = np.hypot(*(np.subtract.outer(table[axis], table[axis]) for axis in ("y_px", "x_px")))
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1)
    return np.where(nearest <= radius, nearest, np.nan), (apart <= radius).sum(axis=1)


@pytest.mark.parametrize("height", [70, 300, 5000])
def test_neighbors_are_the_same_whatever_the_bands(height):
    table = rows(1)
    work, found, waited = Neighbors(0.5), [], 0
    for top in range(0, 2000, height):
        band = (table["y_px"] >= top) & (table["y_px"] < top + height)
        found.append(work.add({name: values[band] for name, values in table.items()}, top + height))
        waited = max(waited, len(work._points))
    found.append(work.add({name: values[:0] for name, values in table.items()}))

    together = joined(found)
    order = np.argsort(together["label"])
    nearest, around = by_hand(table, 100.0)
    assert len(order) == 400
    np.testing.assert_allclose(together["nearest_um"][order], nearest * 0.5)
    np.testing.assert_array_equal(together["neighbors_50um"][order], around)
    assert height == 5000 or waited < 250


def test_without_a_pixel_size_distances_are_in_pixels():
    table = {"label": np.arange(3), "y_px": np.array([0.0, 30, 900]), "x_px": np.array([0.0, 40, 0])}
    found = Neighbors(None).add(table)

    np.testing.assert_array_equal(found["nearest_px"], [50, 50, np.nan])
    assert found["neighbors_200px"].tolist() == [1, 1, 0]


def test_no_nucleus_has_no_neighbor():
    empty = {"label": np.zeros(0, int), "y_px": np.zeros(0), "x_px": np.zeros(0)}
    assert {len(values) for values in Neighbors(0.25).add(empty).values()} == {0}

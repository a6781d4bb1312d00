"""Synthetic slides: the same wherever they are read, with a truth that is exact."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2hed
from skimage.filters import threshold_otsu

from napari_semiseg.errors import InputError
from napari_semiseg.synthetic import CLASSES, SyntheticSlide, synthetic_field
from napari_semiseg.synthetic._nuclei import nuclei_near
from napari_semiseg.synthetic._tissue import Tissue


@pytest.fixture(scope="module")
def field():
    return synthetic_field(640, seed=1)


def test_a_rectangle_equals_the_same_rectangle_of_the_whole():
    whole = SyntheticSlide((1100, 1200), seed=3).read(0, 0, 1100, 1200)
    for y0, x0, h, w in [(0, 0, 1, 1), (500, 505, 40, 30), (700, 0, 400, 90), (511, 1023, 2, 2)]:
        part = SyntheticSlide((1100, 1200), seed=3).read(y0, x0, h, w)

        for one, all_ in zip(part, whole, strict=True):
            np.testing.assert_array_equal(one, all_[y0 : y0 + h, x0 : x0 + w])


def test_a_nucleus_is_the_same_whatever_rectangle_asks_for_it():
    extent = (3000.0, 3000.0)
    tissue = Tissue(7, extent, fraction=1.0)
    left, right = (nuclei_near(tissue, 7, extent, (900.0, x, 1400.0, x + 500.0), 1.0) for x in (500.0, 950.0))
    common, of_left, of_right = np.intersect1d(left.identity, right.identity, return_indices=True)

    assert len(common) > 100
    assert len(np.unique(left.identity)) == len(left.identity)
    for name, values in vars(left).items():
        np.testing.assert_array_equal(values[of_left], getattr(right, name)[of_right], err_msg=name)
    between = (right.x > 955) & (right.x < 995) & (right.y > 905) & (right.y < 1395)
    assert set(right.identity[between]) <= set(common)


def test_the_seed_decides_everything():
    again, same, other = (synthetic_field(96, seed=seed).image for seed in (5, 5, 6))

    np.testing.assert_array_equal(again, same)
    assert (again != other).mean() > 0.9


def test_every_nucleus_has_one_class_and_every_class_occurs(field):
    pairs = np.unique(np.stack([field.instances.ravel(), field.classes.ravel().astype(np.uint32)]), axis=1)

    assert pairs[:, 0].tolist() == [0, 0]
    assert len(np.unique(pairs[0])) == pairs.shape[1]
    assert set(pairs[1, 1:]) == {1, 2, 3} == set(range(1, 1 + len(CLASSES)))


def test_classes_differ_in_size_and_shape():
    field = synthetic_field(1000, seed=0)
    area, roundness = np.zeros(3), np.zeros(3)
    for kind in (1, 2, 3):
        ids = np.unique(field.instances[field.classes == kind])
        areas, spreads = [], []
        for one in ids[:60]:
            y, x = np.nonzero(field.instances == one)
            if len(y) > 30:
                low, high = np.linalg.eigvalsh(np.cov(y, x))
                areas.append(len(y))
                spreads.append(np.sqrt(low / high))
        area[kind - 1], roundness[kind - 1] = np.median(areas), np.median(spreads)

    assert area[0] > 1.3 * area[1]  # epithelial nuclei are larger than lymphocytes
    assert roundness[1] > 0.8 > roundness[0] > 0.5 > roundness[2]  # lymphocytes are round, spindle cells are not


def test_nuclei_touch_and_overlap(field):
    left, right = field.instances[:, :-1], field.instances[:, 1:]
    touching = (left != right) & (left > 0) & (right > 0)
    pairs = {tuple(sorted(pair)) for pair in zip(left[touching].tolist(), right[touching].tolist(), strict=True)}

    assert len(pairs) > 20


def test_density_follows_the_option():
    def count(density: float) -> int:
        slide = SyntheticSlide((1000, 1000), seed=2, density_mm2=density)
        return len(np.unique(slide.read(0, 0, 1000, 1000)[1])) - 1

    sparse, dense = count(2000), count(6000)

    assert dense / sparse == pytest.approx(3, rel=0.25)
    assert count(0) == 0


def test_the_hematoxylin_threshold_finds_most_nuclei_but_not_all():
    scores = []
    for seed in range(4):
        field = synthetic_field(512, seed)
        hematoxylin = gaussian_filter(rgb2hed(field.image)[..., 0], 1)
        found, truth = hematoxylin > threshold_otsu(hematoxylin), field.instances > 0
        scores.append(2 * (found & truth).sum() / (found.sum() + truth.sum()))

    assert 0.70 < np.mean(scores) < 0.86


def test_bare_glass_is_bright_and_empty():
    glass = SyntheticSlide((600, 600), seed=4, tissue_fraction=0).read(0, 0, 600, 600)
    half = SyntheticSlide((1536, 1536), seed=4, tissue_fraction=0.5).read(0, 0, 1536, 1536)
    empty = half[0].min(axis=2).reshape(24, 64, 24, 64).min(axis=(1, 3)) > 225

    assert glass[0].min() > 225
    assert glass[1].max() == 0
    assert 0.15 < empty.mean() < 0.85
    assert half[1].reshape(24, 64, 24, 64).max(axis=(1, 3))[empty].max() == 0


def test_memory_does_not_grow_with_the_slide():
    tracemalloc.start()
    slide = SyntheticSlide((40_000, 40_000), seed=0)
    image, instances, _ = slide.read(39_000, 39_500, 300, 400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert image.std() > 10
    assert instances.max() > 1_000_000  # numbers count over the whole slide
    assert peak < 200e6


def test_files_hold_what_was_read(tmp_path):
    slide = SyntheticSlide((1300, 1100), seed=9, mpp=0.5)
    slide.write(tmp_path / "slide.ome.tif")
    slide.write_labels(tmp_path / "labels.tif")
    image, instances, _ = slide.read(0, 0, 1300, 1100)

    np.testing.assert_array_equal(tifffile.imread(tmp_path / "labels.tif"), instances)
    with tifffile.TiffFile(tmp_path / "slide.ome.tif") as file:
        levels = file.series[0].levels
        assert [level.shape for level in levels] == [(1300, 1100, 3), (325, 275, 3)]
        assert 'PhysicalSizeX="0.5"' in file.ome_metadata
        full, small = levels[0].asarray().astype(float), levels[1].asarray().astype(float)
    assert np.abs(full - image).mean() < 4  # JPEG
    means = image[:1300, :1100].reshape(325, 4, 275, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - means).mean() < 7
    assert np.abs((small - means).mean()) < 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.tif", "slide.ome.tif"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SyntheticSlide((0, 10)), "shape"),
        (lambda: SyntheticSlide((10, 10**10)), "shape"),
        (lambda: SyntheticSlide((10, 10), mpp=0), "mpp"),
        (lambda: SyntheticSlide((10, 10), density_mm2=float("nan")), "density_mm2"),
        (lambda: SyntheticSlide((10, 10), tissue_fraction=1.5), "tissue_fraction"),
        (lambda: SyntheticSlide((10, 10)).read(5, 5, 6, 1), "not inside"),
        (lambda: SyntheticSlide((10, 10)).read(0, 0, 0, 1), "not inside"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(make, said):
    with pytest.raises(InputError, match=said):
        make()

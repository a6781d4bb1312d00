"""Where the next tile is suggested, on images whose answer is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from napari_semiseg.engine import suggest as suggest_module
from napari_semiseg.engine.doubt import Doubt
from napari_semiseg.engine.suggest import (
    FARTHEST,
    MOST_PLACES,
    SHORTLIST,
    SuggestRequest,
    candidates,
    ranked,
    suggest,
)
from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished, Suggested, Warned
from napari_semiseg.io.images import open_image
from napari_semiseg.project.folder import ProjectFolder

GLASS, TISSUE = (245, 245, 245), (190, 120, 180)


def slide(tmp_path, *islands, shape=(800, 800), tiles=(), name="case"):
    """A project with a slide of glass and islands of tissue with dark dots."""
    image = np.full((*shape, 3), GLASS, np.uint8)
    for y0, x0, y1, x1 in islands:
        image[y0:y1, x0:x1] = TISSUE
        image[y0 + 5 : y1 : 20, x0 + 5 : x1 : 20] = (70, 40, 120)
    with ProjectFolder.create(tmp_path / name) as folder:
        folder.add_array(image, "slide", 0.5)
        for tile in tiles:
            folder.add_tile(0, tile)
    return str(tmp_path / f"{name}.semiseg")


def suggested(source, **options):
    events = list(suggest(SuggestRequest(source=source, side=100, **options)))
    assert isinstance(events[-1], Finished)
    return next(event for event in events if isinstance(event, Suggested)).tiles


def inside(box, island):
    return max(0, min(box[2], island[2]) - max(box[0], island[0])) * max(
        0, min(box[3], island[3]) - max(box[1], island[1])
    )


def test_places_where_a_network_doubts_come_first_and_it_is_said(tmp_path):
    source = slide(tmp_path, (0, 0, 800, 800), tiles=[(0, 0, 100, 100)])
    project = ProjectFolder.open(source, read_only=True)
    image = open_image(project.source_path(0), mpp=0.5)
    found = [candidates(image, 0, 100)]
    looked = []

    def doubt(index, box):
        looked.append(box)
        return Doubt(0.6, 0.2, 3) if box.y0 >= 400 else Doubt(0.01)

    tiles = ranked(project, found, 4, doubt)
    assert len(looked) == SHORTLIST
    assert all(tile["box"][0] >= 400 for tile in tiles)
    said = "the network is very unsure here (60 % doubt), and its 3 opinions differ; "
    assert all(tile["reason"].startswith(said) for tile in tiles)
    new = [tile["new"] for tile in tiles]
    assert new == sorted(new, reverse=True)
    assert all(0 < each < FARTHEST for each in new)
    assert [tile["box"] for tile in ranked(project, found, 4, None)] != [tile["box"] for tile in tiles]


def test_tiles_lie_on_tissue_and_spread_over_all_of_it(tmp_path):
    islands = [(0, 0, 250, 250), (550, 550, 800, 800)]
    tiles = suggested(slide(tmp_path, *islands), n=4)

    assert len(tiles) == 4
    cover = np.array([[inside(tile["box"], island) for island in islands] for tile in tiles])
    assert (cover.sum(axis=1) >= 0.25 * 100 * 100).all()
    assert (cover[:2] > 0).any(axis=0).all()  # the first two already reach both


def test_no_suggestion_overlaps_a_tile_or_another_suggestion(tmp_path):
    tile = (300, 300, 400, 400)
    boxes = [np.array(found["box"]) for found in suggested(slide(tmp_path, (0, 0, 800, 800), tiles=[tile]), n=20)]

    boxes.append(np.array(tile))
    for index, box in enumerate(boxes):
        assert not any(inside(box, other) for other in boxes[:index])


def test_the_first_tile_is_a_typical_place_and_the_next_is_typical_of_what_is_left(tmp_path):
    first, second = suggested(slide(tmp_path, (0, 0, 800, 800)), n=2)
    assert np.abs(np.array(first["box"]) - (350, 350, 450, 450)).max() <= 100
    assert first["reason"].startswith("a typical place, to begin with; 100 % tissue")
    assert not inside(first["box"], second["box"])

    (found,) = suggested(slide(tmp_path, (0, 0, 800, 800), tiles=[(0, 0, 100, 100)], name="begun"), n=1)
    assert min(found["box"][:2]) >= 350  # away from the tile, and not in the corner
    assert max(found["box"][2:]) < 800
    distance = np.hypot(*(np.array(found["box"][:2]) * 0.5))
    assert found["reason"].startswith(f"{distance:.0f} µm from the nearest tile; 100 % tissue")


def test_places_where_nuclei_crowd_are_not_taken_for_doubtful_because_they_have_many_rims(tmp_path):
    source = slide(tmp_path, (0, 0, 800, 800), tiles=[(350, 350, 450, 450)])
    project = ProjectFolder.open(source, read_only=True)
    found = [candidates(open_image(project.source_path(0), mpp=0.5), 0, 100)]

    def doubt(_index, box):
        crowded = box.y0 >= 400
        return Doubt(0.5, nuclei=0.9) if crowded else Doubt(0.45, nuclei=0.1)

    tiles = ranked(project, found, 4, doubt)
    assert all(tile["box"][0] < 400 for tile in tiles)
    assert all("nuclei" not in tile for tile in tiles)


def test_tissue_that_looks_different_comes_before_more_of_the_same(tmp_path):
    image = np.full((400, 800, 3), TISSUE, np.uint8)
    image[::10] = (200, 140, 190)
    image[100:300, 250:450] = (90, 60, 160)
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(image, "slide")
        folder.add_tile(0, (150, 0, 250, 100))
        folder.add_tile(0, (150, 700, 250, 800))
    (found,) = suggested(str(tmp_path / "case.semiseg"), n=1)

    assert inside(found["box"], (100, 250, 300, 450)) >= 0.5 * 100 * 100


def test_tissue_of_another_texture_comes_before_more_of_the_same_though_its_mean_color_is_the_same(tmp_path):
    image = np.full((400, 800, 3), TISSUE, np.uint8)
    rows, columns = np.indices((400, 200))
    image[:, 500:700] += (np.where((rows // 4 + columns // 4) % 2, 55, -55)[..., None]).astype(np.uint8)
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(image, "slide")
        for x in (0, 700):  # the widest gap has its middle at 400
            folder.add_tile(0, (150, x, 250, x + 100))
    (found,) = suggested(str(tmp_path / "case.semiseg"), n=1)

    assert inside(found["box"], (0, 500, 400, 700)) >= 0.5 * 100 * 100


def test_ink_is_not_taken_for_many_nuclei(tmp_path):
    image = np.full((800, 800, 3), TISSUE, np.uint8)
    image[5:400:20, 5::20] = (70, 40, 120)
    image[400:600] = 30
    with ProjectFolder.create(tmp_path / "inked") as folder:
        folder.add_array(image, "slide", 0.5)
        found = candidates(open_image(folder.source_path(0), mpp=0.5), 0, 100)

    top, bottom = found.boxes[:, 0], found.boxes[:, 2]
    in_ink, among_nuclei = (top >= 400) & (bottom <= 600), bottom <= 400
    assert found.stain[in_ink].max() < found.stain[among_nuclei].min()


def whole_slide(side=40_000):
    """A slide of 0.25 µm of which only the small image exists: tissue in the upper left part of the glass."""
    small = np.full((1000, 1000, 3), GLASS, np.uint8)
    small[100:500, 100:700] = TISSUE
    small[105:500:20, 105:700:20] = (70, 40, 120)
    return SimpleNamespace(shape=(side, side), gray=False, mpp=0.25, overview=lambda longest: small)


def test_on_a_slide_all_places_that_are_listed_are_compared_and_they_lie_evenly_on_its_tissue():
    found = candidates(whole_slide(), 0, 250)
    ys, xs = (np.unique(found.boxes[:, axis]) for axis in (0, 1))

    assert MOST_PLACES / 2 < len(found.boxes) <= MOST_PLACES
    assert (found.tissue > 0).all()
    assert np.diff(ys).max() == pytest.approx(np.diff(xs).max(), rel=0.02)
    assert (ys.min(), xs.min()) == pytest.approx((4_000, 4_000), abs=400)
    assert (ys.max(), xs.max()) == pytest.approx((20_000, 28_000), abs=400)


@pytest.mark.parametrize("most", [1, 25, 300, 5_000])
def test_no_image_has_more_places_than_it_may_and_each_has_some(most):
    assert 1 <= len(candidates(whole_slide(), 0, 32, most).boxes) <= max(4, most)


def test_an_image_that_is_not_large_has_all_places_half_a_tile_apart(tmp_path):
    folder = ProjectFolder.open(slide(tmp_path, (0, 0, 300, 300)), read_only=True)
    found = candidates(open_image(folder.source_path(0)), 0, 100)
    assert sorted({(int(y), int(x)) for y, x in found.boxes[:, :2]}) == [
        (y, x) for y in range(0, 701, 50) for x in range(0, 701, 50)
    ]


def test_an_image_smaller_than_a_tile_is_suggested_whole(tmp_path):
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(np.full((31, 17, 3), TISSUE, np.uint8), "small")
    (found,) = suggested(str(tmp_path / "case.semiseg"))

    assert found["box"] == [0, 0, 31, 17]


def test_a_slide_on_which_no_tissue_is_found_has_suggestions_too(tmp_path):
    first, second = suggested(slide(tmp_path), n=2)

    assert min(first["box"][:2]) > 200  # its middle, not the first corner
    assert max(first["box"][2:]) < 600
    assert not inside(first["box"], second["box"])
    assert np.isfinite([first["new"], second["new"]]).all()


def test_nothing_is_suggested_where_there_is_no_room(tmp_path):
    assert suggested(slide(tmp_path, (0, 0, 150, 150), shape=(150, 150), tiles=[(25, 25, 125, 125)])) == []


def test_a_project_without_an_image_and_a_folder_that_is_none_are_refused(tmp_path):
    ProjectFolder.create(tmp_path / "case").close()
    with pytest.raises(InputError, match="holds no image"):
        list(suggest(SuggestRequest(source=str(tmp_path / "case.semiseg"))))
    with pytest.raises(InputError):
        list(suggest(SuggestRequest(source=str(tmp_path))))


def two_images(tmp_path):
    """A project of two slides, of which each has a file of its own."""
    rng = np.random.default_rng(0)
    with ProjectFolder.create(tmp_path / "case") as folder:
        for name in ("first", "second"):
            image = np.clip(rng.normal(TISSUE, 10, (300, 300, 3)), 0, 255).astype(np.uint8)
            tifffile.imwrite(tmp_path / f"{name}.tif", image, photometric="rgb")
            folder.add_image(tmp_path / f"{name}.tif", shape=(300, 300))
    return str(tmp_path / "case.semiseg")


def test_an_image_that_cannot_be_opened_is_left_out_and_named_and_the_others_are_looked_at(tmp_path):
    source = two_images(tmp_path)
    (tmp_path / "first.tif").unlink()
    events = list(suggest(SuggestRequest(source=source, side=100)))

    (warned,) = [event.message for event in events if isinstance(event, Warned)]
    assert warned.startswith("“first” is left out: ")
    assert {tile["image"] for event in events if isinstance(event, Suggested) for tile in event.tiles} == {1}
    (tmp_path / "second.tif").unlink()
    with pytest.raises(InputError, match="second"):
        suggested(source)


def test_an_image_is_looked_at_again_only_once_its_file_has_changed(tmp_path, monkeypatch):
    source, looked = two_images(tmp_path), []
    real = suggest_module.candidates

    def noted(image, index, *facts):
        looked.append(index)
        return real(image, index, *facts)

    monkeypatch.setattr(suggest_module, "candidates", noted)
    first = suggested(source)
    assert suggested(source) == first
    assert looked == [0, 1]
    white = np.full((300, 300, 3), 245, np.uint8)
    white[:100, :100] = TISSUE
    tifffile.imwrite(tmp_path / "first.tif", white, photometric="rgb")
    assert suggested(source) != first
    assert looked == [0, 1, 0]

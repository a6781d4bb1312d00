"""Labels of others become annotations: in new tiles, with their classes, and never over what was painted."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from napari_semiseg.app.import_plan import plan_tiles
from napari_semiseg.app.importing import import_labels
from napari_semiseg.blocks import Box
from napari_semiseg.cli.app import app
from napari_semiseg.errors import InputError
from napari_semiseg.io import ome_metadata
from napari_semiseg.io.foreign_labels import ForeignLabels, of_array, open_labels
from napari_semiseg.io.nucleus import Nucleus, Place
from napari_semiseg.io.outline_files import GEOJSON, write_outlines
from napari_semiseg.io.outlines import trace
from napari_semiseg.project import schema
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.schema import Tile, with_class
from napari_semiseg.project.tile_annotation import BACKGROUND

SHAPE = (120, 200)


@pytest.fixture
def labels(discs) -> np.ndarray:
    found = np.zeros(SHAPE, np.uint32)
    found[:60, :100] = discs(6, shape=(60, 100))
    return found


@pytest.fixture
def project(tmp_path: Path):
    with ProjectFolder.create(tmp_path / "p") as folder:
        folder.add_array(np.zeros((*SHAPE, 3), np.uint8), "field", 0.25)
        yield folder


def geojson(path: Path, labels: np.ndarray, **place: object) -> ForeignLabels:
    nuclei = (Nucleus(k, found, "Tumor" if k % 2 else "Nucleus") for k, found in trace(labels).items())
    write_outlines(path, GEOJSON, nuclei, Place.model_validate({"shape": SHAPE, **place}))
    return open_labels(path)


def test_corrections_come_home_with_their_classes(tmp_path: Path, project: ProjectFolder, labels: np.ndarray) -> None:
    found = geojson(tmp_path / "x.geojson", labels)
    boxes = plan_tiles(project, 0, found, side=100).boxes
    (done,) = import_labels(project, 0, found, boxes)

    assert boxes == [Box(0, 0, 100, 100)]
    assert (done.nuclei, done.tile.status, done.tile.box) == (6, "complete", boxes[0])
    assert [spec.name for spec in project.classes] == ["nucleus", "Tumor"]
    annotation = project.annotation(done.tile.id)
    part = labels[:100, :100]
    np.testing.assert_array_equal(annotation.instance > 0, part > 0)
    assert len(np.unique(annotation.instance)) == 7
    np.testing.assert_array_equal(annotation.classes, np.where(part == 0, 0, np.where(part % 2, 3, 2)))


def test_no_two_of_the_first_seven_classes_have_the_same_color_however_they_came(
    tmp_path: Path, project: ProjectFolder
) -> None:
    project.set_classes(with_class(with_class(project.classes, "stroma"), "TUMOR"))
    square = np.array([(0, 0), (0, 8), (8, 8), (8, 0)])
    names = ("tumor", "Mitosis", "mitosis", "Lymphocyte", "Apoptosis", "Plasma cell")
    nuclei = (Nucleus(k, [[square + 10 * k]], name) for k, name in enumerate(names))
    write_outlines(tmp_path / "x.geojson", GEOJSON, nuclei, Place(shape=SHAPE))
    found = open_labels(tmp_path / "x.geojson")
    (done,) = import_labels(project, 0, found, plan_tiles(project, 0, found).boxes)

    said = [spec.name for spec in project.classes]
    assert said == ["nucleus", "stroma", "TUMOR", "Mitosis", "Lymphocyte", "Apoptosis", "Plasma cell"]
    assert len({spec.color for spec in project.classes}) == 7
    annotation = project.annotation(done.tile.id)
    assert [annotation.classes[10 * k + 4, 10 * k + 4] for k in range(6)] == [4, 5, 5, 6, 7, 8]


def test_of_a_tile_that_reaches_out_of_the_region_of_the_nuclei_only_that_is_known(
    tmp_path: Path, project: ProjectFolder
) -> None:
    def square(kind: str, y: int, x: int, side: int) -> dict[str, object]:
        ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        return {"type": "Feature", "geometry": geometry, "properties": {"objectType": kind}}

    nuclei = [square("detection", y, x, 8) for y in (4, 44) for x in (4, 64)]
    (tmp_path / "x.geojson").write_text(json.dumps([square("annotation", 0, 0, 80), *nuclei]))
    labels = open_labels(tmp_path / "x.geojson")
    inside, across = import_labels(project, 0, labels, [Box(0, 0, 60, 60), Box(0, 60, 60, 120)])
    (apart,) = import_labels(project, 0, labels, [Box(60, 0, 120, 60)], complete=False)

    assert (inside.tile.status, across.tile.status) == ("complete", "sparse")
    classes = project.annotation(across.tile.id).classes
    assert classes[50, 8] == 0  # a nucleus, which nobody has given a class
    assert classes[30, 10] == BACKGROUND
    assert (classes[:, 20:] == 0).all()
    assert not project.annotation(apart.tile.id).classes.any()


def test_a_class_has_the_same_color_in_tiles_and_in_files() -> None:
    assert tuple(f"#{color.lower()}" for color in ome_metadata.CLASS_COLORS) == schema.CLASS_COLORS


def squares(*corners: tuple[int, int], side: int = 5) -> np.ndarray:
    """Return nuclei, each a square that begins there."""
    found = np.zeros(SHAPE, np.uint32)
    for number, (y, x) in enumerate(corners, start=1):
        found[y : y + side, x : x + side] = number
    return found


def labeled_tile(project: ProjectFolder, box: tuple[int, int, int, int]) -> Tile:
    tile = project.add_tile(0, box)
    return project.set_status(tile.id, "complete")


def test_labels_come_into_empty_tiles_that_are_there_and_beside_them(project: ProjectFolder) -> None:
    tile = project.add_tile(0, (0, 0, 50, 50))
    labels = squares((10, 10), (20, 20), (100, 150))
    found = of_array(labels, "a layer")
    plan = plan_tiles(project, 0, found)
    done = list(import_labels(project, 0, found, plan.boxes, fill=plan.fill))

    assert (plan.fill, plan.words) == ([tile.id], "")
    assert {item.tile.id: item.nuclei for item in done}[tile.id] == 2
    assert sum(item.nuclei for item in done) == 3
    np.testing.assert_array_equal(project.annotation(tile.id).instance > 0, labels[:50, :50] > 0)
    assert {each.status for each in project.tiles} == {"complete"}


def test_an_empty_tile_without_a_nucleus_stays_empty(project: ProjectFolder) -> None:
    tile = project.add_tile(0, (0, 0, 50, 50))
    plan = plan_tiles(project, 0, of_array(squares((100, 150)), "a layer"))

    assert plan.fill == []
    assert [box.intersect(tile.box).area for box in plan.boxes] == [0]


def test_what_lies_in_labeled_or_excluded_tiles_is_left_out_and_said(project: ProjectFolder) -> None:
    painted = np.zeros((50, 50), np.uint32)
    painted[1, 1] = 1
    tiles = [project.add_tile(0, box) for box in ((0, 0, 50, 50), (0, 60, 50, 110), (0, 110, 50, 160))]
    project.write_annotation(tiles[0].id, painted)  # painted, and not said to be anything yet
    project.set_status(tiles[1].id, "complete")  # which says that there is none
    project.set_status(tiles[2].id, "excluded")
    found = of_array(squares((10, 10), (20, 20), (10, 70), (10, 108), (100, 10)), "a layer")
    plan = plan_tiles(project, 0, found, side=60)
    list(import_labels(project, 0, found, plan.boxes, fill=plan.fill))

    assert (plan.boxes, plan.fill) == ([Box(60, 0, 120, 60)], [])
    assert plan.words == (
        "3 nuclei lie in tiles that are labeled already and were left out: remove those tiles first to bring them in. "
        "1 nucleus lies in excluded tiles and was left out."
    )
    np.testing.assert_array_equal(project.annotation(tiles[0].id).instance, painted)
    assert not any(project.annotation(tile.id).instance.any() for tile in tiles[1:])


def test_an_empty_tile_that_overlaps_a_labeled_one_stays_empty_and_that_is_said(project: ProjectFolder) -> None:
    project.add_tile(0, (30, 30, 80, 80))
    labeled_tile(project, (0, 0, 50, 50))
    plan = plan_tiles(project, 0, of_array(squares((70, 70)), "a layer"))

    assert plan.empty
    assert "1 nucleus lies in empty tiles that overlap labeled ones and was left out" in plan.words


def test_what_lies_where_no_tile_fits_any_more_is_left_out_and_said(project: ProjectFolder) -> None:
    labeled_tile(project, (20, 20, 120, 200))
    plan = plan_tiles(project, 0, of_array(squares((5, 5), (5, 100), (60, 5)), "a layer"))

    assert plan.empty
    assert plan.words == (
        "3 nuclei lie where less than 64 pixels are free beside tiles and were left out: a tile there is yours to "
        "paint."
    )


def test_what_cannot_be_read_is_not_taken_for_empty(project: ProjectFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = project.add_tile(0, (0, 0, 50, 50))

    def damaged(_: str) -> None:
        raise InputError("The tile cannot be read.")

    monkeypatch.setattr(project, "newest_annotation", damaged)
    plan = plan_tiles(project, 0, of_array(squares((10, 10)), "a layer"))
    assert plan.fill == []
    with pytest.raises(InputError, match="not empty any more"):
        list(import_labels(project, 0, of_array(squares((10, 10)), "a layer"), [], fill=[tile.id]))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    corners=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 19)), min_size=1, max_size=12, unique=True),
    tiles=st.lists(
        st.tuples(
            st.integers(0, 100),
            st.integers(0, 180),
            st.integers(5, 90),
            st.sampled_from(["empty", "complete", "excluded"]),
        ),
        max_size=4,
    ),
    side=st.sampled_from([40, 70, 512]),
)
def test_every_nucleus_is_brought_in_or_counted_with_its_reason(tmp_path_factory, corners, tiles, side) -> None:
    labels = squares(*((10 * y, 10 * x) for y, x in corners))
    with ProjectFolder.create(tmp_path_factory.mktemp("project") / "p") as project:
        project.add_array(np.zeros((*SHAPE, 3), np.uint8), "field", 0.25)
        for y, x, size, status in tiles:
            with contextlib.suppress(InputError):  # it would lie on one that is kept for validation
                tile = project.add_tile(0, (y, x, y + size, x + size))
                project.set_status(tile.id, status)
        found = of_array(labels, "a layer")
        plan = plan_tiles(project, 0, found, side=side)
        boxes = [*plan.boxes, *(project.tile(tile_id).box for tile_id in plan.fill)]

    ids = {int(number) for box in boxes for number in np.unique(labels[box.slices])} - {0}
    middles = {int(labels[10 * y + 2, 10 * x + 2]) for y, x in corners}
    inside = {
        int(labels[10 * y + 2, 10 * x + 2])
        for y, x in corners
        if any(box.y0 <= 10 * y + 2 < box.y1 and box.x0 <= 10 * x + 2 < box.x1 for box in boxes)
    }
    assert plan.left_out == 0
    assert sum(plan.nuclei_left_out.values()) == len(middles - inside)
    assert inside <= ids


def test_beside_a_tile_that_lies_across_the_cells_the_rest_of_them_is_brought_in(
    tmp_path: Path, project: ProjectFolder
) -> None:
    labels = np.zeros(SHAPE, np.uint32)
    labels[5:10, 5:10], labels[80:85, 110:115] = 1, 2
    tile = labeled_tile(project, (0, 0, 40, 40))  # covers the first nucleus, and a part of the only cell
    found = of_array(labels, "a layer")
    (box,) = plan_tiles(project, 0, found, side=512, most=4).boxes
    (done,) = import_labels(project, 0, found, [box])

    assert not box.intersect(tile.box).area
    assert done.nuclei == 1
    assert plan_tiles(project, 0, found, side=512, most=4).empty


def test_labels_without_a_nucleus_are_refused_as_such(project: ProjectFolder) -> None:
    with pytest.raises(InputError, match="hold no nuclei"):
        plan_tiles(project, 0, of_array(np.zeros(SHAPE, np.uint32), "a layer"))


def test_the_fullest_tiles_come_first_and_no_more_than_asked_for(project: ProjectFolder, labels: np.ndarray) -> None:
    found = of_array(labels, "a layer")
    counts = dict(found.occupied(SHAPE, 30))

    plan = plan_tiles(project, 0, found, side=30, most=2)
    others = [count for box, count in counts.items() if box not in plan.boxes]
    assert len(plan.boxes) == 2
    assert min(counts[box] for box in plan.boxes) >= max(others)
    assert plan.left_out == len(others)
    assert plan.words.startswith(f"These are the 2 fullest of {len(counts)} places")
    assert plan_tiles(project, 0, found, side=30, most=len(counts)).words == ""


def test_labels_of_another_image_are_refused(tmp_path: Path, project: ProjectFolder, labels: np.ndarray) -> None:
    for place, words in (({"shape": (10, 10)}, "10 x 10 pixels"), ({"mpp": 0.5}, "pixels of 0.5 µm")):
        with pytest.raises(InputError, match=words):
            plan_tiles(project, 0, geojson(tmp_path / "x.geojson", labels, **place))
    assert project.tiles == ()


def test_the_verb_brings_labels_into_a_project_that_it_makes_with_the_folders_above_it(
    tmp_path: Path, labels: np.ndarray
) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "field.tif", np.zeros((*SHAPE, 3), np.uint8), photometric="rgb")
    geojson(tmp_path / "x.geojson", labels)
    words = ["import", str(tmp_path / "x.geojson"), "--project", str(tmp_path / "new" / "p.semiseg"), "--image"]
    first = CliRunner().invoke(app, [*words, str(tmp_path / "field.tif"), "--side", "100"])
    again = CliRunner().invoke(app, [*words, str(tmp_path / "field.tif"), "--side", "100"])

    assert first.exit_code == 0, first.output
    assert "6 nuclei in 1 tile of" in first.output
    assert isinstance(again.exception, InputError)
    assert "no tile was made" in str(again.exception)
    with ProjectFolder.open(tmp_path / "new" / "p.semiseg", read_only=True) as folder:
        assert [tile.status for tile in folder.tiles] == ["complete"]


def test_the_verb_makes_no_project_where_there_is_no_image(tmp_path: Path, labels: np.ndarray) -> None:
    geojson(tmp_path / "x.geojson", labels)
    words = ["import", str(tmp_path / "x.geojson"), "--project", str(tmp_path / "p.semiseg"), "--image"]
    asked = CliRunner().invoke(app, [*words, str(tmp_path / "nowhere.tif")])

    assert isinstance(asked.exception, InputError)
    assert not (tmp_path / "p.semiseg").exists()

"""Which image is worked on, what is refused, and how a project begins and is opened again."""

from __future__ import annotations

import gc

import dask.array as da
import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels

from napari_semiseg.app.painting import to_layer
from napari_semiseg.plugin import picture_layer
from napari_semiseg.plugin.layers import KEY, insert, of_role
from napari_semiseg.plugin.widgets import slide_panel
from napari_semiseg.project.folder import ProjectFolder


def start(hands, path) -> None:
    hands.dock.view.choose_target(path)
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")


def test_without_an_image_the_dock_says_what_to_do(open_dock):
    hands = open_dock()

    assert not hands.dock.slide_panel.start.isEnabled()
    assert hands.dock.slide_panel.reason.text().startswith("Open an image first")
    assert not hands.dock.tiles_panel.add.isEnabled()
    assert hands.dock.tiles_panel.reason.text()


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((2, 64, 64), {}, "Split Stack"),
        ((64, 64, 5), {"rgb": False}, "Split Stack"),
        ((30, 64, 64), {}, "volume"),
        ((3, 2, 64, 64), {}, "volume"),
    ],
)
def test_volumes_and_other_numbers_of_channels_are_refused_in_one_sentence(open_dock, shape, options, words):
    hands = open_dock(np.zeros(shape, np.uint8), **options)

    assert words in hands.dock.slide_panel.reason.text()
    assert not hands.dock.slide_panel.start.isEnabled()


@pytest.mark.parametrize("kind", ["gray 16-bit", "rgba", "dask", "multiscale", "float"])
def test_every_usual_kind_of_layer_can_be_started_on(open_dock, tissue, tmp_path, kind):
    gray = tissue[..., 0]
    image = {
        "gray 16-bit": gray.astype(np.uint16) * 200,
        "rgba": np.dstack([tissue, np.full_like(gray, 255)]),
        "dask": da.from_array(tissue, chunks=(128, 128, 3)),
        "multiscale": [tissue, tissue[::2, ::2], tissue[::4, ::4]],
        "float": gray / 255.0,
    }[kind]
    hands = open_dock(image)
    start(hands, tmp_path / "case")

    stored = tifffile.imread(hands.project.folder.source_path(0))
    expected = np.asarray(image[0] if kind == "multiscale" else image)
    np.testing.assert_array_equal(stored, expected)


def test_an_image_in_memory_is_written_once_after_saying_how_large_it_is(open_dock, tissue, tmp_path):
    hands = open_dock(tissue)
    assert "786.4 kB" in hands.dock.slide_panel.reason.text()
    start(hands, tmp_path / "case")
    hands.dock.view.close_project()
    start(hands, tmp_path / "case.semiseg")

    assert len(hands.project.images) == 1
    assert hands.dock.slide_panel.summary.startswith("field")


def test_an_image_in_a_file_stays_where_it_is_and_its_project_lies_beside_it(open_dock, tissue, tmp_path):
    path = tmp_path / "slide 7.tif"
    tifffile.imwrite(path, tissue)
    hands = open_dock()
    hands.viewer.add_layer(_from_file(path))
    assert hands.dock.view.target == tmp_path / "slide 7.semiseg"
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: hands.dock.view.started, "the start")

    assert hands.project.images[0].path == "../slide 7.tif"
    assert not (tmp_path / "slide 7.semiseg" / "images").exists()


def test_a_slide_that_the_dock_opens_is_read_where_it_is_looked_at_and_stays_a_file(
    open_dock, tissue, tmp_path, monkeypatch
):
    path = tmp_path / "slide 8.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        options = {"photometric": "rgb", "tile": (128, 128)}
        file.write(tissue, subifds=1, metadata={"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, **options)
        file.write(tissue[::2, ::2], subfiletype=1, **options)
    monkeypatch.setattr(picture_layer, "WHOLE_PIXELS", 100)
    monkeypatch.setattr(slide_panel.QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    hands = open_dock()
    hands.press(hands.dock.slide_panel.open_image)
    hands.wait(lambda: hands.dock.view.layer is not None, "the layer")

    view = hands.dock.view
    assert view.layer.multiscale
    assert isinstance(view.layer.data[0], picture_layer.Level)
    assert (view.slide.shape, view.slide.mpp, view.slide.path) == (tissue.shape[:2], 0.5, str(path))
    np.testing.assert_array_equal(view.layer.data[0][5:60, 7:90], tissue[5:60, 7:90])
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: view.started, "the start")
    assert hands.project.images[0].path == "../slide 8.ome.tif"
    view.close_project()
    assert view.slide.path == str(path)


def test_what_is_no_image_is_said_when_the_dock_opens_it(open_dock, tmp_path):
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    hands = open_dock()
    hands.dock.view.open_image(tmp_path / "broken.tif")
    hands.wait(lambda: hands.dock.session.notice is not None, "the message")

    assert "broken.tif" in hands.dock.session.notice.sentence
    assert not hands.dock.view.busy


def _from_file(path):
    """Make a layer as napari's reader does, with the path it came from."""
    from napari.layers import Image
    from napari.layers._source import layer_source

    with layer_source(path=str(path)):
        return Image(tifffile.imread(path), name=path.stem)


def test_a_pixel_size_is_read_from_the_layer_or_asked_for(open_dock, tissue, tmp_path):
    hands = open_dock(tissue, scale=(500, 500), units=("nm", "nm"))
    assert hands.dock.view.slide.mpp == pytest.approx(0.5)
    assert not hands.dock.slide_panel.mpp.native.isVisible()

    other = open_dock(tissue, scale=(0.25, 0.25))  # of what unit nobody knows
    assert other.dock.view.slide.mpp is None
    other.dock.slide_panel.mpp.value = 0.25
    start(other, tmp_path / "case")
    assert other.project.images[0].mpp == pytest.approx(0.25)


def test_opening_a_project_brings_image_tiles_and_annotations_back(open_dock, tissue, tmp_path, discs):
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(tissue, "field", 0.5)
        tile = folder.add_tile(0, (100, 150, 200, 250))
        folder.write_annotation(tile.id, discs(3, shape=(100, 100)))
        folder.set_status(tile.id, "complete")
    hands = open_dock()
    hands.dock.view.open_project(tmp_path / "case.semiseg")
    hands.wait(lambda: of_role(hands.viewer, "annotation"), "the tile")

    (image,) = of_role(hands.viewer, "image")
    np.testing.assert_array_equal(image.data, tissue)
    np.testing.assert_allclose(image.scale, (0.5, 0.5))
    layer = hands.dock.tiles.layer(tile.id)
    np.testing.assert_array_equal(layer.data, discs(3, shape=(100, 100)))
    np.testing.assert_allclose(layer.data_to_world((0, 0)), (50, 75))
    assert hands.project.words == "1 complete · 3 nuclei"
    assert hands.dock.name.text() == "case.semiseg"
    assert hands.dock.steps[1].number.text() == "✓"


def test_numbers_that_no_layer_can_color_are_given_anew(tmp_path, discs):
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(np.zeros((100, 100, 3), np.uint8), "field")
        tile = folder.add_tile(0, (0, 0, 64, 64))
        folder.write_annotation(tile.id, np.where(discs(2) > 0, discs(2) + 2**30, 0))
        labels, class_of = to_layer(folder.annotation(tile.id))

    np.testing.assert_array_equal(labels, discs(2))
    assert class_of == {1: 2, 2: 2}


def test_deleting_the_image_layer_keeps_the_tiles_and_what_is_painted(open_dock, tissue, tmp_path):
    hands = open_dock(tissue)
    start(hands, tmp_path / "case")
    tile = hands.project.add_tile(0, center=(200, 200))
    hands.stroke([(120, 120), (125, 125)])
    hands.viewer.layers.remove("field")
    hands.saved()

    assert ProjectFolder.open(hands.project.path, read_only=True).annotation(tile.id).nuclei == 1
    assert hands.dock.tiles.layer(tile.id) in hands.viewer.layers


def test_an_image_whose_layer_was_deleted_is_brought_back_with_a_click(open_dock, tissue, tmp_path, qtbot):
    hands = open_dock(tissue)
    start(hands, tmp_path / "case")
    step, panel = hands.dock.steps[0], hands.dock.slide_panel
    assert not step.open
    assert panel.again.isHidden()

    hands.viewer.layers.remove("field")
    qtbot.waitUntil(lambda: step.open)
    assert "kept" in panel.reason.text()
    assert not panel.done
    assert panel.start.isHidden()
    panel.again.click()

    qtbot.waitUntil(lambda: hands.dock.view.slide is not None)
    assert hands.dock.session.image_index == 0
    assert panel.again.isHidden()
    assert panel.reason.isHidden()
    assert not step.open


def test_what_is_known_of_an_image_ends_with_its_layer(open_dock, tissue, tmp_path):
    hands = open_dock(tissue)
    start(hands, tmp_path / "case")
    hands.dock.slide_panel.mpp.value = 0.5
    hands.viewer.layers.clear()
    hands.viewer.add_layer(Image(tissue, name="another"))  # napari itself remembers the one that was active last
    gc.collect()

    assert hands.dock.view.layer.name == "another"
    assert not hands.dock.view.started
    assert not hands.dock.view._indices  # or a layer that gets its place in memory would count as the project's
    assert not hands.dock.view._mpp


def test_what_was_found_after_a_crash_is_told(open_dock, tissue, tmp_path):
    folder = ProjectFolder.create(tmp_path / "case")
    folder.add_array(tissue, "field")
    folder.close()
    (tmp_path / "case.semiseg" / ".semiseg-0123456789ab.tmp").write_bytes(b"half")
    hands = open_dock()
    hands.dock.view.open_project(tmp_path / "case.semiseg")

    assert hands.dock.message.label.text() == "1 half-written files were deleted."


def test_a_place_that_cannot_be_written_is_said_before_anything_is_tried(open_dock, tissue, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    hands = open_dock(tissue)
    hands.dock.view.choose_target(tmp_path / "case.semiseg")

    assert "choose another place" in hands.dock.slide_panel.reason.text()
    assert not hands.dock.slide_panel.start.isEnabled()


def test_names_are_shown_as_plain_text_whatever_they_hold(open_dock, tissue):
    name = "<b>bold</b>\n<img src='file:///etc/passwd'>" + "x" * 100_000
    hands = open_dock(tissue, name=name)
    label = hands.dock.slide_panel.image

    assert "<b>bold</b> <img" in label.text()
    assert "<b>" not in label.toolTip()
    assert "&lt;b&gt;" in label.toolTip()
    assert label.width() <= hands.dock.width()
    assert len(label.text()) <= 2000


def test_of_several_images_of_a_project_only_the_one_that_is_asked_for_is_seen(open_dock, tissue, tmp_path):
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(tissue, "first", 0.5)
        folder.add_array(tissue[::-1].copy(), "second", 0.5)
    hands = open_dock()
    hands.viewer.add_image(tissue[..., 0], name="her own", translate=(0, 1000), scale=(0.5, 0.5))
    view = hands.dock.view

    def seen() -> dict[str, bool]:
        return {layer.name: layer.visible for layer in hands.viewer.layers if isinstance(layer, Image)}

    view.open_project(tmp_path / "case.semiseg")
    hands.wait(lambda: hands.dock.session.image_index == 0, "the first image")
    view.show_image(1)
    hands.wait(lambda: hands.dock.session.image_index == 1, "the second image")
    assert seen() == {"second": True, "first": False, "her own": True}

    hands.viewer.layers.selection.active = hands.viewer.layers["first"]
    assert hands.dock.session.image_index == 0
    assert seen() == {"second": False, "first": True, "her own": True}


def test_our_layers_come_above_the_images_and_below_what_others_have_put_on_top(open_dock, tissue, tmp_path):
    hands = open_dock(tissue)
    start(hands, tmp_path / "case")
    hands.project.add_tile(0, center=(200, 200))
    hands.viewer.add_points(name="her own points")
    for part, kind in (("nuclei", Labels), ("confidence", Image)):
        data = np.zeros((512, 512), np.uint8)
        insert(hands.viewer, kind(data, name=part, metadata={KEY: {"role": part}}))

    names = [layer.name for layer in hands.viewer.layers]
    order = [names.index(name) for name in ("field", "confidence", "nuclei", "Tiles", "her own points")]
    assert order == sorted(order)

    hands.viewer.add_image(tissue, name="another image on top")
    insert(hands.viewer, Labels(np.zeros((512, 512), np.uint8), name="its nuclei", metadata={KEY: {"role": "nuclei"}}))
    assert hands.viewer.layers[-1].name == "its nuclei"


def test_the_place_that_was_chosen_for_a_project_is_that_of_one_image_alone(open_dock, tissue, tmp_path):
    hands = open_dock(tissue)
    start(hands, tmp_path / "chosen.semiseg")
    hands.dock.view.close_project()
    view, first = hands.dock.view, hands.viewer.layers["field"]
    assert (view.target, view.start_words) == (tmp_path / "chosen.semiseg", "Continue")

    hands.viewer.add_image(tissue[::-1].copy(), name="another")
    assert (view.target.name, view.start_words) == ("another.semiseg", "Start")
    hands.viewer.layers.selection.active = first
    assert view.start_words == "Continue"

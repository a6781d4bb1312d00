"""Images that were moved: the project is opened again, and the user shows where they lie now."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_semiseg.engine.learning_data import read_project
from napari_semiseg.plugin.widgets import image_finder
from napari_semiseg.project.folder import ProjectFolder


@pytest.fixture
def moved(open_dock, tissue, tmp_path):
    """Make a project of images with a painted tile each, move the images, and open the project again."""

    def open_again(*names: str, **options):
        with ProjectFolder.create(tmp_path / "case.semiseg") as folder:
            (tmp_path / "moved").mkdir()
            for number, name in enumerate(names):
                tifffile.imwrite(tmp_path / "moved" / name, np.roll(tissue, number), photometric="rgb")
                folder.add_image(tmp_path / name, shape=(512, 512))
                tile = folder.add_tile(number, (0, 0, 100, 100))
                folder.write_annotation(tile.id, np.eye(100, dtype=np.uint8), np.eye(100, dtype=np.uint8) * 2)
                folder.set_status(tile.id, "sparse")
        if options.get("held"):
            options["held"].append(ProjectFolder.open(folder.path))
        hands = open_dock()
        hands.dock.view.open_project(folder.path)
        hands.wait(lambda: hands.dock.session.notice, "the notice")
        hands.wait(lambda: not hands.dock.view.busy, "the attempt to open the image")
        return hands

    return open_again


@pytest.fixture
def answer(monkeypatch):
    """Answer the file dialogs; returns their titles and what they asked for."""
    asked = []

    def use(*paths) -> list[tuple[str, str]]:
        answers = iter([str(path) for path in paths])

        def file(_, title: str, *__: object) -> tuple[str, str]:
            asked.append(("file", title))
            return next(answers, ""), ""

        def folder(_, title: str, *__: object) -> str:
            asked.append(("folder", title))
            return next(answers, "")

        monkeypatch.setattr(image_finder.QFileDialog, "getOpenFileName", file)
        monkeypatch.setattr(image_finder.QFileDialog, "getExistingDirectory", folder)
        return asked

    return use


def act(hands, words: str) -> None:
    """Press a button of the message at the bottom of the dock."""
    hands.rest(0.05)  # until it is laid out
    layout = hands.dock.message._buttons
    buttons = [layout.itemAt(place).widget() for place in range(layout.count())]
    hands.press(next(button for button in buttons if button is not None and button.text() == words))


def said(hands) -> str:
    notice = hands.dock.session.notice
    return notice.sentence if notice else ""


def test_a_moved_image_is_shown_to_the_dock_and_all_that_depends_on_it_works_at_once(moved, answer, tmp_path):
    hands = moved("a.tif")
    asked = answer(tmp_path / "moved" / "a.tif")
    assert said(hands) == "Not found where they were: a; show where these images lie now."
    act(hands, "Find…")
    hands.wait(lambda: hands.dock.tiles.layer("t0001") is not None, "the tile")

    assert asked == [("file", "Where does “a” lie now? (a.tif)")]
    assert said(hands) == "“a” is found."
    assert [image.path for image in hands.project.images] == ["../moved/a.tif"]
    assert hands.dock.session.image_index == 0
    assert hands.project.selected == "t0001"
    assert hands.dock.tiles.layer("t0001").data.any()
    assert not hands.dock.session.training.why_not
    assert [region.name for region in read_project(hands.project.path).labeled] == ["t0001"]


def test_the_notice_comes_back_when_the_image_is_to_be_shown_after_it_was_closed(moved, answer):
    hands = moved("a.tif")
    hands.dock.session.hush()
    hands.dock.view.show_image(0)
    hands.wait(lambda: said(hands), "the notice")
    assert said(hands).startswith("“a” is not where it was (")
    answer()
    act(hands, "Find…")
    hands.rest()
    assert hands.dock.session.image_index is None  # nothing was chosen, so nothing has changed


def test_an_image_of_another_shape_is_refused_and_another_one_can_be_chosen(moved, answer, tissue, tmp_path):
    hands = moved("a.tif")
    tifffile.imwrite(tmp_path / "other.tif", tissue[:300], photometric="rgb")
    answer(tmp_path / "other.tif", tmp_path / "moved" / "a.tif")
    act(hands, "Find…")
    hands.wait(lambda: "so it is another image" in said(hands), "the refusal")
    assert "“other.tif” has 512 × 300 pixels and “a” has 512 × 512" in said(hands)
    assert [image.path for image in hands.project.images] == ["../a.tif"]
    act(hands, "Find…")
    hands.wait(lambda: said(hands) == "“a” is found.", "the image")


def test_images_beside_the_one_that_was_found_are_found_with_it_and_the_others_are_named(
    moved, answer, tissue, tmp_path
):
    hands = moved("a.tif", "b.tif", "c.tif", "d.tif")
    (tmp_path / "moved" / "c.tif").rename(tmp_path / "moved" / "renamed.tif")
    tifffile.imwrite(tmp_path / "moved" / "d.tif", tissue[:300], photometric="rgb")  # another image of that name
    asked = answer(tmp_path / "moved" / "a.tif", tmp_path / "moved" / "renamed.tif")
    act(hands, "Find…")
    hands.wait(lambda: said(hands).startswith("“a” is found"), "the images")
    assert said(hands) == "“a” is found. So is 1 other image beside it. Not found yet: c, d."
    act(hands, "Find…")
    hands.wait(lambda: said(hands).startswith("“c” is found"), "the image")
    assert said(hands) == "“c” is found. Not found yet: d."
    assert [title for _, title in asked] == ["Where does “a” lie now? (a.tif)", "Where does “c” lie now? (c.tif)"]
    paths = [image.path for image in hands.project.images]
    assert paths == ["../moved/a.tif", "../moved/b.tif", "../moved/renamed.tif", "../d.tif"]


def test_an_ome_zarr_is_asked_for_as_the_folder_that_it_is(open_dock, answer, tmp_path):
    with ProjectFolder.create(tmp_path / "case.semiseg") as folder:
        folder.add_image(tmp_path / "a.ome.zarr", shape=(512, 512))
    hands = open_dock()
    asked = answer()
    hands.dock.view.open_project(folder.path)
    hands.wait(lambda: said(hands), "the notice")
    act(hands, "Find…")
    hands.wait(lambda: asked, "the dialog")
    assert asked == [("folder", "Where does “a” lie now? (a.ome.zarr)")]


def test_who_may_only_look_is_told_and_not_asked(moved):
    hands = moved("a.tif", held=(held := [None]))
    held[-1].close()
    assert hands.project.read_only
    hands.dock.view.show_image(0)
    hands.wait(lambda: "is not where it was" in said(hands), "the notice")
    assert said(hands).endswith("open the project for writing to show where it lies now.")
    assert not hands.dock.session.notice.actions


def test_who_opens_the_moved_image_first_and_then_the_project_is_asked_whether_it_is_that_one(moved, tmp_path):
    hands = moved("a.tif")
    path = hands.project.path
    hands.dock.view.close_project()
    hands.dock.view.open_image(tmp_path / "moved" / "a.tif")
    hands.wait(lambda: hands.dock.view.slide, "the image")
    hands.dock.view.open_project(path)
    hands.wait(lambda: "is it that image?" in said(hands), "the question")
    act(hands, "It is")
    hands.wait(lambda: hands.dock.tiles.layer("t0001") is not None, "the tile")
    assert len(hands.viewer.layers) == 3  # the image as it was opened, the frame of the tile, and the tile


@pytest.mark.parametrize("choice", ["It is", "Add it as another one"])
def test_an_image_with_name_and_size_of_a_lost_one_is_added_only_after_asking(moved, tmp_path, choice):
    hands = moved("a.tif")
    hands.dock.view.open_image(tmp_path / "moved" / "a.tif")
    hands.wait(lambda: hands.dock.view.slide, "the image")
    hands.press(hands.dock.slide_panel.start)
    hands.wait(lambda: "is it that image?" in said(hands), "the question")
    assert len(hands.project.images) == 1
    act(hands, choice)
    hands.wait(lambda: hands.dock.view.started, "the image")

    added = choice != "It is"
    assert [image.path for image in hands.project.images] == ["../a.tif", "../moved/a.tif"][not added :]
    assert hands.dock.session.image_index == int(added)
    hands.rest()
    assert (hands.dock.tiles.layer("t0001") is None) == added

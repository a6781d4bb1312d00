"""Looking inside a run: from its folder, and while it goes on."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import IGNORE
from napari_semiseg.data.sources import LabeledRegion
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.inspect import InspectRequest, inspect
from napari_semiseg.engine.look_inside import KEPT, Subject, look_inside, make_room
from napari_semiseg.engine.patch_histograms import patch_histograms
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    Finished,
    Inspect,
    PatchesCounted,
    PreviewWritten,
    StepDone,
    Unanswered,
    Warned,
    Written,
)
from napari_semiseg.io.diagnostics import read_look
from napari_semiseg.methods._base import Task
from napari_semiseg.methods.supervised import Supervised, SupervisedConfig
from napari_semiseg.nn.unet import SmallUNet

Ask = Callable[..., TrainRequest]


@pytest.fixture(autouse=True)
def one_thread():  # type: ignore[no-untyped-def]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def looks(events: list) -> list[Written]:
    return [event for event in events if isinstance(event, Written) and event.what == "look"]


def test_labels_of_an_ome_tiff_are_found_by_its_stem(quick_request: Ask, tmp_path: Path) -> None:
    request = quick_request(steps=3)
    list(train(request))
    folder = Path(request.dataset)
    image = shutil.copy(folder / "images" / "field-3.tif", tmp_path / "field-3.ome.tif")
    asked = InspectRequest(
        run=request.out, images=(str(image),), labels=str(folder / "labels"), show=("confusion",), out=str(tmp_path)
    )

    (look,) = looks(list(inspect(asked)))
    assert Path(look.path).name.startswith("field-3-confusion-")


def test_a_finished_run_is_looked_into_with_pictures_and_a_report(quick_request: Ask, tmp_path: Path) -> None:
    request = quick_request(method="cdcl", steps=3, set={"warmup_fraction": 0.2})
    list(train(request))
    folder = Path(request.dataset)
    image, out = folder / "images" / "field-3.tif", tmp_path / "inside"
    asked = InspectRequest(run=request.out, images=(str(image),), labels=str(folder / "labels"), out=str(out))
    events = list(inspect(asked))

    assert [event.facts["show"] for event in looks(events)] == [
        "method", "features", "landscape", "agreement", "confusion",
    ]  # fmt: skip
    assert isinstance(events[-1], Finished)
    own = read_look(Path(looks(events)[0].path))
    assert set(own.maps) == {"patches", "foreground score"}
    assert (own.step, own.place.height, own.place.width, own.place.y) == (3, 128, 128, 0)
    agreement = read_look(Path(looks(events)[3].path))
    assert 0 <= agreement.numbers["Dice"] <= 1
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "foreground-dominated patch" in page
    assert "Loss terms" in page
    assert "confusion density of nuclei" in page
    assert sorted(path.name for path in out.glob("*agreement*.png")) == ["field-3-agreement-agreement.png"]


def test_without_labels_what_needs_them_is_passed_over_with_a_word_unless_it_was_asked_for(
    quick_request: Ask, tmp_path: Path
) -> None:
    request = quick_request(steps=1)
    list(train(request))
    image = str(Path(request.dataset) / "images" / "field-3.tif")
    events = list(inspect(InspectRequest(run=request.out, images=(image,), box=(0, 0, 64, 64))))

    assert [event.facts["show"] for event in looks(events)] == ["features", "landscape"]
    assert [event.message.partition(":")[0] for event in events if isinstance(event, Warned)] == [
        "The method 'supervised' has nothing of its own to show",
        "No label lies in this rectangle to compare with",
        "No label lies in this rectangle to compare with",
    ]
    assert Path(looks(events)[0].path).parent == Path(request.out) / "diagnostics"
    with pytest.raises(InputError, match="No label lies"):
        list(inspect(InspectRequest(run=request.out, images=(image,), show=("agreement",))))
    with pytest.raises(InputError, match="nothing called 'soul'"):
        list(inspect(InspectRequest(run=request.out, images=(image,), show=("soul",))))


def test_a_training_answers_between_two_steps_and_is_the_same_as_one_that_was_not_asked(
    quick_request: Ask, tmp_path: Path
) -> None:
    control, events = Control(), []
    asked = quick_request(out=str(tmp_path / "asked"), method="cdcl", steps=4, set={"warmup_fraction": 0.2})
    for event in train(asked, control):
        events.append(event)
        if isinstance(event, StepDone):
            control.send(Inspect("method", 0, (0, 0, 128, 128)))
            control.send(Inspect("agreement", 0, (0, 0, 128, 128)))
            control.send(Inspect("method", 99, (0, 0, 128, 128)))
    list(train(asked.model_copy(update={"out": str(tmp_path / "left alone")})))

    method, agreement = looks(events)[:2]
    assert method.facts["show"] == "method"
    assert method.facts["step"] >= 1
    assert read_look(Path(method.path)).step == method.facts["step"]
    assert "Dice" in agreement.facts
    assert any("knows no image 99" in event.message for event in events if isinstance(event, Unanswered))
    one, other = (
        sorted((tmp_path / name / "checkpoints").glob("step-*4.safetensors"))[-1].read_bytes()
        for name in ("asked", "left alone")
    )
    assert one == other


def test_patches_are_counted_with_every_map(quick_request: Ask) -> None:
    events = list(train(quick_request(steps=2)))
    maps = [event.step for event in events if isinstance(event, PreviewWritten)]
    counted = [event for event in events if isinstance(event, PatchesCounted)]

    assert [event.step for event in counted] == maps
    assert sum(counted[-1].confidence) == sum(counted[-1].entropy) == 2 * 2  # 128 pixels hold two patches of 50


def test_patches_are_sorted_by_mean_confidence_and_by_mean_entropy() -> None:
    confidence = np.zeros((100, 150), np.uint8)
    confidence[:50, :50] = 255
    confidence[:50, 50:100] = 128
    by_confidence, by_entropy = patch_histograms(confidence)

    assert by_confidence.tolist() == [4, *[0] * 9, 1, *[0] * 8, 1]
    assert by_entropy.tolist() == [5, *[0] * 18, 1]
    assert patch_histograms(confidence[::5, ::5], downsample=5)[0].tolist() == by_confidence.tolist()
    assert patch_histograms(confidence[:49])[0].sum() == 0


class Flat:
    """An image of one value that remembers what was read."""

    def __init__(self) -> None:
        self.read_boxes: list[Box] = []

    def read(self, box: Box) -> np.ndarray:
        self.read_boxes.append(box)
        return np.full((*box.shape, 3), 200, np.uint8)


def subject(**changes: object) -> Subject:
    torch.manual_seed(0)
    method = Supervised(lambda: SmallUNet(classes=2), Task(), SupervisedConfig())
    values = {"method": method, "device": torch.device("cpu"), "image": Flat(), "shape": (300, 5_000)}
    return Subject(**(values | changes))  # type: ignore[arg-type]


def test_of_a_large_rectangle_the_middle_is_looked_at_on_the_networks_grid() -> None:
    asked = subject()
    place = look_inside(asked, "features").place

    unit = math.lcm(8, asked.method.predictor().divisor)
    assert (place.height, place.width) == (300 // unit * unit, 1024)
    assert place.x == (5_000 - 1_024) // 2
    assert asked.image.read_boxes[0].shape == (place.height, place.width)  # type: ignore[attr-defined]


def test_at_another_pixel_size_the_place_is_in_pixels_of_the_image() -> None:
    place = look_inside(subject(scale=0.5), "features", Box(0, 1000, 300, 1400)).place

    assert place.pixel == 2.0
    assert place.height * 2 <= 300
    assert 1000 <= place.x <= place.x + place.width * 2 <= 1400


def test_labels_are_those_of_the_pixels_under_the_centers() -> None:
    label = np.zeros((100, 100), np.uint8)
    label[:, 50:] = 1
    region = LabeledRegion("tile", 0, Box(0, 0, 100, 100), label, 1)
    found = look_inside(subject(shape=(160, 160), truth=(region,)), "confusion", Box(0, 0, 160, 160))
    density = found.maps["confusion density"].values

    assert np.isnan(density[:, 100:]).all()
    assert np.isfinite(density[:100, :100]).all()
    left, right = density[:100, :50].mean(), density[:100, 50:100].mean()
    assert left + right == pytest.approx(1, abs=0.05)  # a network that sees one color says the same everywhere
    assert IGNORE == 255


def test_a_rectangle_beside_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="lies outside the image"):
        look_inside(subject(), "features", Box(400, 0, 500, 100))


def test_only_the_newest_looks_are_kept(tmp_path: Path) -> None:
    import os

    for number in range(KEPT + 3):
        (tmp_path / f"{number}.npz").touch()
        os.utime(tmp_path / f"{number}.npz", (number, number))
    make_room(tmp_path)

    assert {path.stem for path in tmp_path.iterdir()} == {str(number) for number in range(3, KEPT + 3)}

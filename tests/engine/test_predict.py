"""From a run and images to results on disk."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from napari_semiseg.blocks import Box
from napari_semiseg.engine import predict as predict_module
from napari_semiseg.engine import predict_image
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.infer import confidence_map
from napari_semiseg.engine.predict import PredictRequest, predict, predict_from_args
from napari_semiseg.engine.predictor import Predictor
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError, ReadError
from napari_semiseg.events import (
    BlockDone,
    Cancel,
    Finished,
    Focus,
    Pause,
    Paused,
    Progressed,
    Resume,
    Resumed,
    Started,
    Stop,
    Warned,
    Written,
)
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.metrics import compare
from napari_semiseg.postprocess.instances import split_nuclei

CPU = torch.device("cpu")


class Darkness(nn.Module):
    """A network that takes dark for nucleus, over 5 x 5 pixels; several classes share it by how blue it is."""

    def __init__(self, classes=2):
        super().__init__()
        self.classes = classes
        self.smooth = nn.AvgPool2d(5, 1, 2)
        self.bias = nn.Parameter(torch.tensor(0.6))

    def forward(self, image):
        image = self.smooth(image)
        nucleus = 12 * (self.bias - image[:, 1:2])
        blue = [6 * (image[:, 2:] - image[:, :1]) - 1] if self.classes > 2 else []
        return torch.cat([torch.zeros_like(nucleus), nucleus, *(nucleus + more for more in blue)], dim=1)


@pytest.fixture
def darkness(monkeypatch):
    """Let a run be a network that takes dark for nucleus; its features can be changed."""

    def become(*, classes=("background", "nucleus"), reach=2, mpp=None, network=None):
        network = network or Darkness(len(classes)).eval()
        predictor = Predictor(network, classes, 4, reach, mpp, 0.5, 7, CPU)
        monkeypatch.setattr(predict_module, "load_predictor", lambda run, device, turns: predictor)
        return predictor

    return become


def tissue(labels, seed=0):
    """Paint nuclei dark on bright, half of them bluish."""
    rng = np.random.default_rng(seed)
    image = np.full((*labels.shape, 3), 220.0)
    image[labels > 0] = (90, 60, 90)
    image[(labels > 0) & (labels % 2 == 0)] = (60, 60, 180)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def field(tmp_path, discs):
    """Write an image of 300 x 260 with 60 nuclei; return its path and its labels."""
    labels = discs(60, shape=(300, 260), radius=10)
    path = tmp_path / "field.tif"
    tifffile.imwrite(path, tissue(labels), photometric="rgb")
    return path, labels


def request(image, out, **changes):
    values = {"run": "a run", "images": [str(image)], "out": str(out), "device": "cpu"}
    return PredictRequest.checked(values | changes, "the test")


def whole(path):
    result = Result.open(path)
    box = Box.whole(result.shape)
    return {kind: result.read(kind, box) for kind in result.kinds}


def test_a_trained_run_predicts_the_image_it_had_not_seen(quick_request, small_dataset, tmp_path):
    list(train(quick_request(steps=4)))
    image = small_dataset / "images" / "field-3.tif"

    events = list(
        predict_from_args(
            {"run": str(tmp_path / "run"), "images": [str(image)], "out": str(tmp_path / "out"), "device": "cpu"},
            Control(),
        )
    )

    path = tmp_path / "out" / "field-3.ome.zarr"
    found = whole(path)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert not events[-1].stopped
    assert [event.path for event in events if isinstance(event, Written)] == [str(path)]
    assert result_state(path) == "complete"
    assert found["confidence"].shape == (1, 128, 128)
    np.testing.assert_array_equal(found["nuclei"], split_nuclei(found["confidence"][0]))
    assert events[-1].facts["nuclei"] == found["nuclei"].max()


def test_what_is_averaged_over_turns_is_a_result_of_its_own(quick_request, small_dataset, tmp_path):
    list(train(quick_request(steps=2)))
    image = small_dataset / "images" / "field-3.tif"
    asked = {"run": str(tmp_path / "run"), "images": [str(image)], "out": str(tmp_path / "out"), "device": "cpu"}
    list(predict_from_args(asked, Control()))

    with pytest.raises(InputError, match="another run"):
        list(predict_from_args(asked | {"turns": 4}, Control()))
    list(predict_from_args(asked | {"turns": 4, "overwrite": True}, Control()))
    again = list(predict_from_args(asked | {"turns": 4}, Control()))

    assert not any(isinstance(event, BlockDone) for event in again)
    with pytest.raises(InputError, match="another run"):
        list(predict_from_args(asked | {"turns": 8}, Control()))


@pytest.mark.parametrize(("pixels_of_a_field", "turns"), [(128 * 128, 4), (128 * 128 - 1, 1)])
def test_a_field_of_view_is_looked_at_from_four_sides_and_a_slide_from_one(
    quick_request, small_dataset, tmp_path, monkeypatch, pixels_of_a_field, turns
):
    list(train(quick_request(steps=2)))
    image = small_dataset / "images" / "field-3.tif"  # 128 x 128
    asked = {"run": str(tmp_path / "run"), "images": [str(image)], "device": "cpu"}
    monkeypatch.setattr("napari_semiseg.engine.predictor.FIELD", pixels_of_a_field)
    maps = {}
    for name, chosen in {"unasked": {}, "1": {"turns": 1}, "4": {"turns": 4}}.items():
        out = tmp_path / name
        list(predict_from_args(asked | {"out": str(out)} | chosen, Control()))
        maps[name] = whole(out / "field-3.ome.zarr")["confidence"]

    assert not np.array_equal(maps["1"], maps["4"])
    np.testing.assert_array_equal(maps["unasked"], maps[str(turns)])


def test_nuclei_and_confidence_are_those_of_the_whole_image_at_once(darkness, field, tmp_path):
    path, labels = field
    predictor = darkness()
    events = list(predict(request(path, tmp_path / "out", block=64)))

    found = whole(tmp_path / "out" / "field.ome.zarr")
    expected = confidence_map(
        predictor.network, open_image(path), Box(0, 0, 300, 260), device=CPU, divisor=4, reach=2, block=1000
    )
    assert np.abs(found["confidence"].astype(int) - expected).max() <= 1
    counts = compare(found["nuclei"], labels)
    assert counts.truth == counts.predicted == counts.matched == 60
    done = [event for event in events if isinstance(event, BlockDone)]
    assert [event.done for event in done] == list(range(1, 26))
    assert {event.total for event in done} == {25}
    covered = np.zeros((300, 260), int)
    for event in done:
        covered[Box(*event.box).slices] += 1
    assert (covered == 1).all()


def test_the_block_size_changes_nothing(darkness, field, tmp_path):
    darkness()
    results = []
    for block in (64, 100, 512):
        list(predict(request(field[0], tmp_path / f"{block}", block=block)))
        results.append(whole(tmp_path / f"{block}" / "field.ome.zarr"))
    for other in results[1:]:
        assert np.abs(results[0]["confidence"].astype(int) - other["confidence"]).max() <= 1
        assert compare(results[0]["nuclei"], other["nuclei"]).pq > 0.99


def test_the_smallest_nucleus_in_um2_is_as_many_pixels_as_the_image_needs(darkness, field, tmp_path):
    darkness()
    path, _ = field
    least = {}
    for mpp in (0.25, 0.5):
        out = tmp_path / f"{mpp}.ome.zarr"
        list(predict(request(path, out, mpp=mpp, min_area_um2=8.0)))
        least[mpp] = Result.open(out).card.facts["split"]["min_area"]
    assert least == {0.25: 128, 0.5: 32}
    with pytest.raises(InputError, match="pixel size of the image is not known"):
        list(predict(request(path, tmp_path / "unknown.ome.zarr", min_area_um2=8.0)))


def test_one_image_may_name_its_result(darkness, field, tmp_path):
    darkness()
    events = list(predict(request(field[0], tmp_path / "mine.ome.zarr")))
    assert events[-1].result == str(tmp_path / "mine.ome.zarr")
    assert result_state(tmp_path / "mine.ome.zarr") == "complete"


def test_several_classes_give_each_nucleus_one(darkness, field, tmp_path):
    path, labels = field
    darkness(classes=("background", "red", "blue"))
    list(predict(request(path, tmp_path / "out")))

    found = whole(tmp_path / "out" / "field.ome.zarr")
    assert Result.open(tmp_path / "out" / "field.ome.zarr").classes == ("red", "blue")
    inside = (labels > 0) & (found["nuclei"] > 0)
    assert inside.sum() > 0.95 * (labels > 0).sum()
    np.testing.assert_array_equal(found["classes"][inside], np.where(labels % 2, 1, 2)[inside])
    np.testing.assert_array_equal(found["classes"] > 0, found["nuclei"] > 0)


def test_semantic_gives_classes_and_no_nuclei(darkness, field, tmp_path):
    darkness()
    list(predict(request(field[0], tmp_path / "out", semantic=True, threshold=0.3)))
    found = whole(tmp_path / "out" / "field.ome.zarr")
    assert set(found) == {"confidence", "classes"}
    np.testing.assert_array_equal(found["classes"], found["confidence"][0] > 0.3 * 255)


def test_another_pixel_size_gives_the_same_nuclei_at_the_images_own(darkness, field, tmp_path):
    path, labels = field
    darkness(mpp=0.5)
    list(predict(request(path, tmp_path / "out", mpp=0.25, block=64)))
    result = Result.open(tmp_path / "out" / "field.ome.zarr")
    counts = compare(result.nuclei(Box(0, 0, 300, 260)), labels)
    assert result.mpp == 0.25
    assert counts.matched == counts.truth == counts.predicted
    assert counts.sq > 0.75


def test_a_pixel_size_that_cannot_be_is_questioned(darkness, field, tmp_path):
    darkness(mpp=0.25)
    with pytest.raises(InputError, match="--mpp"):
        list(predict(request(field[0], tmp_path / "out", mpp=25)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mpp", [None, 0.5])
def test_an_unknown_pixel_size_is_said_to_be_taken_for_that_of_the_run(darkness, field, tmp_path, mpp):
    darkness(mpp=0.5)
    events = list(predict(request(field[0], tmp_path / "out", **({} if mpp is None else {"mpp": mpp}))))
    said = [event.message for event in events if isinstance(event, Warned) and "pixel size" in event.message]

    assert [("'field'" in message, "0.5 µm" in message) for message in said] == [(True, True)] * (mpp is None)


class Clicks(Control):
    """A mailbox into which something falls after so many looks."""

    def __init__(self, *, after, commands):
        super().__init__()
        self.looks, self.after, self.commands = 0, after, commands

    def take(self):
        self.looks += 1
        return iter(self.commands if self.looks == self.after else ())


def test_a_stopped_prediction_goes_on_where_it_stopped(darkness, field, tmp_path):
    darkness()
    ask = request(field[0], tmp_path / "out", block=64)
    path = tmp_path / "out" / "field.ome.zarr"

    first = list(predict(ask, Clicks(after=12, commands=[Stop()])))
    assert first[-1].stopped
    assert not first[-1].canceled
    assert result_state(path) == "unfinished"
    again = list(predict(ask))
    list(predict(request(field[0], tmp_path / "fresh", block=64)))

    computed = [{event.box for event in events if isinstance(event, BlockDone)} for events in (first, again)]
    assert 12 <= len(computed[0]) < 25
    assert computed[0].isdisjoint(computed[1])
    assert len(computed[0] | computed[1]) == 25
    assert [event for event in again if isinstance(event, BlockDone)][-1].done == 25
    expected = whole(tmp_path / "fresh" / "field.ome.zarr")
    assert all((array == expected[kind]).all() for kind, array in whole(path).items())


def test_only_an_image_of_which_blocks_were_there_is_said_to_go_on(darkness, field, tmp_path):
    darkness()
    images = [shutil.copy(field[0], tmp_path / name) for name in ("a.tif", "b.tif", "c.tif")]
    list(predict(request(images[1], tmp_path / "out", block=64), Clicks(after=12, commands=[Stop()])))
    asked = request(images[0], tmp_path / "out", block=64, images=[str(image) for image in images])

    found = [event for event in predict(asked) if isinstance(event, Progressed) and event.what == "blocks found"]
    assert len(found) == 1
    assert 12 <= found[0].done < 25


def test_a_canceled_prediction_leaves_nothing(darkness, field, tmp_path):
    darkness()
    events = list(predict(request(field[0], tmp_path / "out", block=64), Clicks(after=3, commands=[Cancel()])))
    assert events[-1].canceled
    assert not (tmp_path / "out" / "field.ome.zarr").exists()


def test_a_paused_prediction_holds_until_it_is_told_to_go_on(darkness, field, tmp_path):
    darkness()
    control = Clicks(after=2, commands=[Pause()])
    heard = []

    def go_on():
        control.send(Pause())
        control.send(Resume())

    for event in predict(request(field[0], tmp_path / "out", block=64), control):
        heard.append(type(event))
        if isinstance(event, Paused):
            threading.Timer(0.1, go_on).start()
    assert heard.count(Paused) == heard.count(Resumed) == 1
    assert heard[heard.index(Paused) + 1] is Resumed
    assert heard.count(BlockDone) == 25


def test_a_prediction_that_is_stopped_while_paused_is_not_said_to_go_on(darkness, field, tmp_path):
    darkness()
    control = Clicks(after=2, commands=[Pause()])
    control.send(Stop())
    heard = [type(event) for event in predict(request(field[0], tmp_path / "out", block=64), control)]

    assert Paused in heard
    assert Resumed not in heard


def test_what_is_looked_at_comes_first(darkness, field, tmp_path):
    darkness()
    box = Box(200, 200, 240, 240)
    control = Clicks(after=1, commands=[Focus(0, tuple(box))])
    events = list(predict(request(field[0], tmp_path / "out", block=64), control))
    boxes = [Box(*event.box) for event in events if isinstance(event, BlockDone)]
    first = next(number for number, found in enumerate(boxes) if found.intersect(box).area == box.area)
    assert first <= 8  # some were on their way; row by row it would be the 19th
    assert len(boxes) == 25


def test_a_complete_result_is_kept_and_only_its_nuclei_are_split_anew(darkness, field, tmp_path):
    darkness()
    path = tmp_path / "out" / "field.ome.zarr"
    list(predict(request(field[0], tmp_path / "out")))
    first = whole(path)

    same = list(predict(request(field[0], tmp_path / "out")))
    other = list(predict(request(field[0], tmp_path / "out", threshold=0.9)))

    assert not [event for event in same + other if isinstance(event, BlockDone)]
    assert any("kept" in event.message for event in same if isinstance(event, Warned))
    found = whole(path)
    np.testing.assert_array_equal(found["confidence"], first["confidence"])
    np.testing.assert_array_equal(found["nuclei"], split_nuclei(first["confidence"][0], threshold=0.9))
    assert Result.open(path).card.facts["split"]["threshold"] == 0.9
    assert (found["nuclei"] > 0).sum() < (first["nuclei"] > 0).sum()


def test_the_result_of_another_run_is_only_replaced_when_asked(darkness, field, tmp_path):
    predictor = darkness()
    path = tmp_path / "out" / "field.ome.zarr"
    list(predict(request(field[0], tmp_path / "out")))
    before = whole(path)
    with torch.no_grad():
        predictor.network.bias += 0.1

    with pytest.raises(InputError, match="another run"):
        list(predict(request(field[0], tmp_path / "out")))
    np.testing.assert_array_equal(whole(path)["confidence"], before["confidence"])
    list(predict(request(field[0], tmp_path / "out", overwrite=True)))
    assert (whole(path)["confidence"] != before["confidence"]).any()


def test_what_is_no_result_is_never_replaced(darkness, field, tmp_path):
    darkness()
    foreign = tmp_path / "out" / "field.ome.zarr"
    foreign.mkdir(parents=True)
    (foreign / "precious").write_text("mine")
    with pytest.raises(InputError, match="no result"):
        list(predict(request(field[0], tmp_path / "out", overwrite=True)))
    assert (foreign / "precious").read_text() == "mine"


def test_an_image_is_never_its_own_result(darkness, field, tmp_path):
    darkness()
    list(predict(request(field[0], tmp_path / "out")))
    made = tmp_path / "out" / "field.ome.zarr"
    with pytest.raises(InputError, match="being read"):
        list(predict(request(made, tmp_path / "out", overwrite=True)))


def test_several_images_need_a_folder(darkness, field, tmp_path):
    darkness()
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, tissue(field[1]), photometric="rgb")
    with pytest.raises(InputError, match="folder"):
        list(predict(request(field[0], tmp_path / "one.ome.zarr", images=[str(field[0]), str(other)])))
    events = list(predict(request(field[0], tmp_path / "out", images=[str(field[0]), str(other)])))
    assert [Path(event.path).name for event in events if isinstance(event, Written)] == [
        "field.ome.zarr",
        "other.ome.zarr",
    ]
    assert events[-1].facts == {"images": 2, "nuclei": 120}


def test_a_part_that_cannot_be_read_is_tried_again_and_the_rest_completes(darkness, field, tmp_path, monkeypatch):
    darkness()
    bad, read = Box(128, 128, 192, 192), Image.read
    broken = threading.Event()
    broken.set()

    def flaky(self, box, level=0):
        if broken.is_set() and Box(*box).contains(bad):
            raise ReadError("The disk is gone.")
        return read(self, box, level)

    monkeypatch.setattr(Image, "read", flaky)
    heard = []
    with pytest.raises(InputError, match=r"1 of 25 blocks of 'field'.*The disk is gone"):
        heard.extend(predict(request(field[0], tmp_path / "out", block=64)))
    assert sum(isinstance(event, BlockDone) for event in heard) == 24
    assert result_state(tmp_path / "out" / "field.ome.zarr") == "unfinished"

    broken.clear()
    again = list(predict(request(field[0], tmp_path / "out", block=64)))
    assert [Box(*event.box) for event in again if isinstance(event, BlockDone)] == [bad]
    assert result_state(tmp_path / "out" / "field.ome.zarr") == "complete"


def test_too_little_memory_is_answered_by_smaller_blocks(darkness, field, tmp_path):
    class Hungry(Darkness):
        def forward(self, image):
            if image[0, 0].numel() > 200**2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            return super().forward(image)

    darkness()
    list(predict(request(field[0], tmp_path / "enough", block=256)))
    darkness(network=Hungry().eval())
    events = list(predict(request(field[0], tmp_path / "out", block=256)))

    assert [event.message for event in events if isinstance(event, Warned)] == [
        "There was not enough memory: the prediction goes on with blocks of 128 pixels."
    ]
    done = [event for event in events if isinstance(event, BlockDone)]
    assert done[-1].done == done[-1].total
    one, other = (whole(tmp_path / name / "field.ome.zarr")["confidence"] for name in ("enough", "out"))
    assert np.abs(one.astype(int) - other).max() <= 1


def test_without_memory_for_the_smallest_blocks_the_cpu_is_offered(darkness, field, tmp_path):
    class Starved(Darkness):
        def forward(self, image):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    darkness(network=Starved().eval())
    with pytest.raises(InputError, match="--device cpu"):
        list(predict(request(field[0], tmp_path / "out")))


def test_a_network_of_nan_is_refused_and_no_map_of_it_shown(darkness, field, tmp_path):
    predictor = darkness()
    with torch.no_grad():
        predictor.network.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="train it again"):
        list(predict(request(field[0], tmp_path / "out")))
    assert result_state(tmp_path / "out" / "field.ome.zarr") == "unfinished"


def test_glass_is_passed_over_and_changes_no_nucleus(darkness, tmp_path, discs, monkeypatch):
    monkeypatch.setattr(predict_image, "LARGE", 100)
    monkeypatch.setattr(predict_image, "OVERVIEW", 100)
    labels = np.zeros((400, 500), np.uint32)
    labels[40:140, 50:150] = discs(9, shape=(100, 100), radius=10)
    image = tissue(labels)
    image[labels == 0] = 245
    tifffile.imwrite(tmp_path / "slide.tif", image, photometric="rgb")
    darkness()

    sparing = list(predict(request(tmp_path / "slide.tif", tmp_path / "a", block=64)))
    thorough = list(predict(request(tmp_path / "slide.tif", tmp_path / "b", block=64, glass=True)))

    counts = [sum(isinstance(event, BlockDone) for event in events) for events in (sparing, thorough)]
    assert counts[1] == 56
    assert 4 <= counts[0] < 20
    one, other = (whole(tmp_path / name / "slide.ome.zarr") for name in "ab")
    np.testing.assert_array_equal(one["nuclei"], other["nuclei"])
    assert one["nuclei"].max() == 9


def test_a_slide_of_nothing_but_glass_has_an_empty_result(darkness, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_image, "LARGE", 50)
    tifffile.imwrite(tmp_path / "blank.tif", np.full((120, 130, 3), 240, np.uint8), photometric="rgb")
    darkness()
    events = list(predict(request(tmp_path / "blank.tif", tmp_path / "out")))
    assert events[-1].facts == {"images": 1, "nuclei": 0}
    found = whole(tmp_path / "out" / "blank.ome.zarr")
    assert not found["confidence"].any()
    assert not found["nuclei"].any()


def test_a_network_that_sees_everything_is_said_to_depend_on_its_blocks(darkness, field, tmp_path):
    darkness(reach=None)
    events = list(predict(request(field[0], tmp_path / "out", block=128)))
    assert any("borders of blocks" in event.message for event in events if isinstance(event, Warned))
    assert Result.open(tmp_path / "out" / "field.ome.zarr").card.facts["whole_image_network"]


def test_a_full_disk_stops_cleanly_and_the_prediction_goes_on_later(darkness, field, tmp_path, monkeypatch):
    darkness()
    write, calls = ResultWriter.write_confidence, []

    def full(self, box, values):
        calls.append(box)
        if len(calls) == 10:
            raise InputError("The disk is full.")
        write(self, box, values)

    monkeypatch.setattr(ResultWriter, "write_confidence", full)
    with pytest.raises(InputError, match="disk is full"):
        list(predict(request(field[0], tmp_path / "out", block=64)))
    monkeypatch.setattr(ResultWriter, "write_confidence", write)
    again = list(predict(request(field[0], tmp_path / "out", block=64)))
    assert sum(isinstance(event, BlockDone) for event in again) <= 16
    assert result_state(tmp_path / "out" / "field.ome.zarr") == "complete"


def test_progress_is_told_for_what_follows_the_blocks(darkness, field, tmp_path):
    darkness()
    events = list(predict(request(field[0], tmp_path / "out")))
    assert {event.what for event in events if isinstance(event, Progressed)} >= {"splitting nuclei"}


@pytest.mark.fault
def test_a_killed_prediction_goes_on_and_ends_as_if_it_had_not_been(darkness, field, tmp_path):
    program = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_predict import CPU, Darkness, Predictor, predict, predict_module, request
network = Darkness().eval()
predict_module.load_predictor = lambda *_: Predictor(network, ("background", "nucleus"), 4, 2, None, 0.5, 7, CPU)
for event in predict(request({str(field[0])!r}, {str(tmp_path / "out")!r}, block=64)):
    print(type(event).__name__, flush=True)
    time.sleep(0.2 * (type(event).__name__ == "BlockDone"))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        blocks = 0
        while blocks < 14:
            blocks += child.stdout.readline() == "BlockDone\n"
        child.kill()
    darkness()
    path = tmp_path / "out" / "field.ome.zarr"
    assert result_state(path) == "unfinished"

    again = list(predict(request(field[0], tmp_path / "out", block=64)))
    list(predict(request(field[0], tmp_path / "fresh", block=64)))

    assert sum(isinstance(event, BlockDone) for event in again) < 25  # two seconds of work may be lost
    expected = whole(tmp_path / "fresh" / "field.ome.zarr")
    assert all((array == expected[kind]).all() for kind, array in whole(path).items())


def test_planes_of_one_file_are_refused_before_anything_is_predicted(darkness, field, tmp_path):
    darkness()
    two = tmp_path / "two.ome.tif"
    tifffile.imwrite(two, np.zeros((2, 64, 64), np.uint8), metadata={"axes": "CYX"}, photometric="minisblack")
    planes = [f"{two}[c={channel}]" for channel in (0, 1)]
    with pytest.raises(InputError, match="parts of one file, and their results would have the same name"):
        list(predict(request(two, tmp_path / "out", images=planes)))
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_place_for_results_and_stays(darkness, field, tmp_path):
    darkness()
    (tmp_path / "notes.txt").write_text("precious")

    with pytest.raises(InputError, match="is a file, and results are folders"):
        list(predict(request(field[0], tmp_path / "notes.txt")))

    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_a_place_where_no_folder_can_be_made_is_said_to_be_one(darkness, field, tmp_path):
    darkness()
    (tmp_path / "notes.txt").write_text("precious")

    with pytest.raises(InputError, match="cannot be made"):
        list(predict(request(field[0], tmp_path / "notes.txt" / "results")))


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 1.5}, {"block": 3}, {"images": []}, {"what": 1}, {"strength": "much"}, {"min_area": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_options_are_refused_in_a_sentence(wrong, field, tmp_path):
    with pytest.raises(InputError, match=next(iter(wrong))):
        request(field[0], tmp_path / "out", **wrong)

"""Images of which a part cannot be read, with networks that look at an image as a whole first."""

import re
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from skimage.io import imread

from napari_semiseg.blocks import Box
from napari_semiseg.engine import cluster, predict_image, typical
from napari_semiseg.engine import predict as predict_module
from napari_semiseg.engine.cluster import Assignment, predict_block
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.export import export
from napari_semiseg.engine.export_job import ExportRequest
from napari_semiseg.engine.infer import BlockwiseNetwork, weights_digest
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.predictor import Predictor
from napari_semiseg.engine.split import SplitRequest, split
from napari_semiseg.errors import InputError, ReadError
from napari_semiseg.events import BlockDone, Finished, Stop, Warned
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state
from napari_semiseg.nn.threshold import GrayThreshold
from napari_semiseg.nn.turned import TurnAveraged

CPU = torch.device("cpu")
TILE = 128
DAMAGED = Box(TILE, TILE, 2 * TILE, 2 * TILE)


@pytest.fixture
def otsu(monkeypatch):
    """Let a run be Otsu's threshold, which has to see the whole image before it can say anything of a part."""
    predictor = Predictor(
        GrayThreshold().set_per_image(bright=False), ("background", "nucleus"), 1, 0, None, 0.5, 7, CPU
    )
    monkeypatch.setattr(predict_module, "load_predictor", lambda run, device, turns: predictor)
    monkeypatch.setattr(cluster, "load_predictor", lambda run, device, turns: predictor)
    return predictor


class ByPixel(torch.nn.Module):
    """One threshold for all images: nothing of an image has to be seen before any part of it."""

    def __init__(self):
        super().__init__()
        self.threshold = GrayThreshold().set(0.55, 8.0, bright=False)

    def forward(self, image):
        return self.threshold(image)


@pytest.fixture
def network_of_pixels(monkeypatch):
    """Let a run be that threshold."""
    predictor = Predictor(ByPixel(), ("background", "nucleus"), 1, 0, None, 0.5, 7, CPU)
    monkeypatch.setattr(predict_module, "load_predictor", lambda run, device, turns: predictor)
    return predictor


@pytest.fixture
def stained(discs):
    """Dark nuclei on pink tissue: (512, 640, 3)."""
    labels = discs(540, shape=(512, 640), radius=10)
    pixels = np.full((*labels.shape, 3), (225.0, 170.0, 200.0))
    pixels[labels > 0] = (90, 60, 140)
    return np.clip(pixels + np.random.default_rng(0).normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def flaky_disk(monkeypatch):
    """Let a part of every image be one that cannot be read, until what this returns is cleared."""
    read, broken = Image.read, [True]

    def flaky(self, box, level=0):
        if broken and Box(*box).intersect(DAMAGED).area:
            raise ReadError("The disk is gone.")
        return read(self, box, level)

    monkeypatch.setattr(Image, "read", flaky)
    return broken


def written(path, pixels, damaged=()):
    """Write a TIFF in tiles, of which some hold bytes that nobody can decompress."""
    tifffile.imwrite(path, pixels, tile=(TILE, TILE), compression="zlib", photometric="rgb")
    with tifffile.TiffFile(path) as file:
        across = pixels.shape[1] // TILE
        places = [file.pages[0].dataoffsets[y // TILE * across + x // TILE] for y, x in damaged]
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            file.write(b"\xff" * 64)
    return path


def request(image, out, **changes):
    values = {"run": "a run", "images": [str(image)], "out": str(out), "device": "cpu", "block": TILE} | changes
    return PredictRequest.checked(values, "the test")


def confidence(path):
    result = Result.open(path)
    return result.read("confidence", Box.whole(result.shape))[0]


def warnings(events):
    return [event.message for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize("samples_only", [False, True], ids=["looked at whole", "looked at in samples"])
def test_all_but_the_damaged_part_is_predicted_as_it_would_be(otsu, stained, tmp_path, monkeypatch, samples_only):
    if samples_only:
        monkeypatch.setattr(typical, "LARGEST", 256)
        monkeypatch.setattr(typical, "_CELL", TILE)
        monkeypatch.setattr(predict_image, "LARGE", 256)
    sound = written(tmp_path / "sound.tif", stained)
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    list(predict(request(sound, tmp_path)))

    heard = []
    with pytest.raises(InputError, match=r"1 of .* blocks of 'damaged' could not be read"):
        heard.extend(predict(request(damaged, tmp_path)))

    assert any("cannot be read, the first in rows" in message for message in warnings(heard))
    path = tmp_path / "damaged.ome.zarr"
    assert result_state(path) == "unfinished"
    whole, partial = confidence(tmp_path / "sound.ome.zarr") > 127, confidence(path) > 127
    assert whole[DAMAGED.slices].any()
    assert not partial[DAMAGED.slices].any()
    partial[DAMAGED.slices] = whole[DAMAGED.slices]
    assert (whole != partial).mean() < 1e-3  # the threshold was found without a tenth of the tissue


def test_tissue_that_nobody_can_see_is_tried_rather_than_taken_for_glass(otsu, stained, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_image, "LARGE", 256)
    stained[:, 430:] = 245
    on_glass = written(tmp_path / "damaged.tif", stained, [(TILE, 512)])

    with pytest.raises(InputError, match=r"1 of .* blocks"):
        list(predict(request(on_glass, tmp_path)))


def test_going_on_tries_the_damaged_part_alone(otsu, stained, tmp_path):
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    for expected in (19, 0):
        heard = []
        with pytest.raises(InputError, match="1 of 20 blocks"):
            heard.extend(predict(request(damaged, tmp_path)))
        assert sum(isinstance(event, BlockDone) for event in heard) == expected


def test_little_is_lost_around_a_damaged_part_however_large_the_blocks_are(otsu, stained, tmp_path):
    sound = written(tmp_path / "sound.tif", stained)
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    list(predict(request(sound, tmp_path, block=512)))

    for _ in range(2):  # at the second time most of it is there already
        with pytest.raises(InputError, match=r"1 of \d+ blocks of 'damaged' could not be read.*--gaps"):
            list(predict(request(damaged, tmp_path, block=512)))

    whole, partial = (confidence(tmp_path / f"{name}.ome.zarr") > 127 for name in ("sound", "damaged"))
    assert whole[DAMAGED.slices].any()
    assert not partial[DAMAGED.slices].any()
    partial[DAMAGED.slices] = whole[DAMAGED.slices]
    assert (whole != partial).mean() < 1e-3


def test_with_gaps_a_damaged_part_stays_empty_is_named_and_the_nuclei_of_the_rest_are_there(otsu, stained, tmp_path):
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    path = tmp_path / "damaged.ome.zarr"

    events = list(predict(request(damaged, tmp_path, block=512, gaps=True)))
    again = list(predict(request(damaged, tmp_path, block=512, gaps=True)))

    result = Result.open(path)
    nuclei = result.nuclei(Box.whole(result.shape))
    assert result.complete
    assert result.card.facts["gaps"] == [list(DAMAGED)]
    assert any("blocks of 'damaged' could not be read: nuclei are missing there" in said for said in warnings(events))
    assert any("but for what could not be read" in said for said in warnings(again))
    assert not nuclei[DAMAGED.slices].any()
    assert len(np.unique(nuclei)) - 1 == result.card.facts["nuclei"] > 450


@pytest.mark.parametrize("to", ["csv", "geojson", "png", "report"])
def test_a_result_with_gaps_is_exported_as_any_other(otsu, stained, tmp_path, to):
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    list(predict(request(damaged, tmp_path, gaps=True)))
    asked = {"source": str(tmp_path / "damaged.ome.zarr"), "to": to, "out": f"{tmp_path / to}/"}

    *_, finished = export(ExportRequest.checked(asked, "the test"))
    (file,) = (tmp_path / to).iterdir()

    assert isinstance(finished, Finished)
    match to:
        case "csv":
            assert len(file.read_text().splitlines()) - 1 > 450
        case "geojson":
            assert file.read_text().count('"Polygon"') > 450
        case "png":
            assert (imread(file)[DAMAGED.slices] == 255).mean() > 0.9  # outlines of nuclei beside it reach in
        case "report":
            assert "which could not be read" in file.read_text()
            assert "50 pixels" in file.read_text()  # the smallest nucleus of an image of unknown pixel size


def test_gaps_that_can_be_read_at_last_are_all_that_is_predicted(stained, tmp_path, flaky_disk, network_of_pixels):
    sound = written(tmp_path / "sound.tif", stained)
    list(predict(request(sound, tmp_path / "twice", block=256, gaps=True)))
    gaps = [Box(*gap) for gap in Result.open(tmp_path / "twice" / "sound.ome.zarr").card.facts["gaps"]]
    flaky_disk.clear()
    list(predict(request(sound, tmp_path / "once", block=256)))
    events = list(predict(request(sound, tmp_path / "twice", block=256, overwrite=True)))

    twice, once = (Result.open(tmp_path / name / "sound.ome.zarr") for name in ("twice", "once"))
    predicted = [Box(*event.box) for event in events if isinstance(event, BlockDone)]
    assert 0 < len(predicted) < 8
    assert all(any(box.intersect(gap).area for gap in gaps) for box in predicted)
    assert twice.complete
    assert twice.card.facts["gaps"] == []
    assert twice.card.facts["nuclei"] == once.card.facts["nuclei"] > 450
    for level, shape in enumerate(once.levels):
        for kind in ("confidence", "nuclei"):
            both = (result.read(kind, Box.whole(shape), level) for result in (twice, once))
            np.testing.assert_array_equal(*both, err_msg=f"{kind} at level {level}")


def test_what_is_still_damaged_stays_a_gap_when_it_is_tried_again(stained, tmp_path, network_of_pixels):
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    list(predict(request(damaged, tmp_path, gaps=True)))
    events = list(predict(request(damaged, tmp_path, overwrite=True)))

    card = Result.open(tmp_path / "damaged.ome.zarr").card
    assert card.complete
    assert card.facts["gaps"] == [list(DAMAGED)]
    missing = r"1 of \d+ blocks of 'damaged' could not be read: nuclei are missing there"
    assert any(re.search(missing, said) for said in warnings(events))


def test_a_result_with_gaps_is_predicted_anew_where_the_whole_looks_otherwise_now(otsu, stained, tmp_path, flaky_disk):
    sound = written(tmp_path / "sound.tif", stained)
    list(predict(request(sound, tmp_path, gaps=True)))
    flaky_disk.clear()
    events = list(predict(request(sound, tmp_path, gaps=True, overwrite=True)))

    result = Result.open(tmp_path / "sound.ome.zarr")
    assert sum(isinstance(event, BlockDone) for event in events) == 20
    assert result.complete
    assert result.card.facts["gaps"] == []
    assert result.nuclei(DAMAGED).any()


def test_gaps_are_still_named_when_nuclei_are_split_anew(otsu, stained, tmp_path):
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    for threshold in (0.5, 0.6):
        list(predict(request(damaged, tmp_path, block=512, gaps=True, threshold=threshold)))

    card = Result.open(tmp_path / "damaged.ome.zarr").card
    assert card.facts["split"]["threshold"] == 0.6
    assert card.facts["gaps"] == [list(DAMAGED)]


def test_gaps_are_tried_again_and_named_after_a_prediction_that_broke_off(otsu, stained, tmp_path, monkeypatch):
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    with monkeypatch.context() as patch:
        patch.setattr(predict_image.ImagePrediction, "_split", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(predict(request(damaged, tmp_path, block=512, gaps=True)))
    list(predict(request(damaged, tmp_path, block=512, gaps=True)))

    card = Result.open(tmp_path / "damaged.ome.zarr").card
    assert card.complete
    assert card.facts["gaps"] == [list(DAMAGED)]


def test_gaps_are_known_after_splitting_the_nuclei_anew_broke_off(otsu, stained, tmp_path):
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    list(predict(request(damaged, tmp_path, block=512, gaps=True)))
    stop = Control()
    stop.send(Stop())
    list(split(SplitRequest(source=str(tmp_path / "damaged.ome.zarr"), apply=True), stop))
    list(predict(request(damaged, tmp_path, block=512)))

    card = Result.open(tmp_path / "damaged.ome.zarr").card
    assert card.complete
    assert card.facts["gaps"] == [list(DAMAGED)]


@pytest.mark.parametrize("read_at_last", [False, True])
def test_gaps_that_are_tried_again_are_known_after_that_broke_off(
    otsu, stained, tmp_path, flaky_disk, monkeypatch, read_at_last
):
    sound = written(tmp_path / "sound.tif", stained)
    list(predict(request(sound, tmp_path, block=512, gaps=True)))
    with monkeypatch.context() as patch:
        patch.setattr(predict_image.ImagePrediction, "_split", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(predict(request(sound, tmp_path, block=512, overwrite=True)))
        with pytest.raises(ZeroDivisionError):
            list(predict(request(sound, tmp_path, block=512, threshold=0.6)))
    if read_at_last:
        flaky_disk.clear()
    list(predict(request(sound, tmp_path, block=512)))

    card = Result.open(tmp_path / "sound.ome.zarr").card
    assert card.complete
    assert card.facts["gaps"] == ([] if read_at_last else [list(DAMAGED)])


def test_a_file_that_is_gone_is_no_gap(otsu, stained, tmp_path, monkeypatch):
    sound, read, seen = written(tmp_path / "sound.tif", stained), Image.read, []

    def until_the_disk_goes(self, box, level=0):
        seen.append(box)
        if len(seen) > 10:  # the look at the whole image, and nine blocks
            raise ReadError("The disk is gone.")
        return read(self, box, level)

    monkeypatch.setattr(Image, "read", until_the_disk_goes)
    with pytest.raises(InputError, match=r"predict it again to go on\. The disk is gone"):
        list(predict(request(sound, tmp_path, block=64, gaps=True)))

    assert result_state(tmp_path / "sound.ome.zarr") == "unfinished"


def test_what_was_begun_without_a_part_begins_anew_once_it_can_be_read(otsu, stained, tmp_path, flaky_disk):
    sound = written(tmp_path / "sound.tif", stained)
    with pytest.raises(InputError, match="The disk is gone"):
        list(predict(request(sound, tmp_path / "out")))
    flaky_disk.clear()
    events = list(predict(request(sound, tmp_path / "out")))
    list(predict(request(sound, tmp_path / "at once")))

    assert any("predicted from its beginning" in message for message in warnings(events))
    np.testing.assert_array_equal(
        *(confidence(tmp_path / out / "sound.ome.zarr") for out in ("out", "at once")), strict=True
    )


def test_an_image_of_which_nothing_can_be_read_is_refused_and_others_are_predicted(otsu, stained, tmp_path):
    everywhere = [(y, x) for y in range(0, 512, TILE) for x in range(0, 640, TILE)]
    bad = written(tmp_path / "bad.tif", stained, everywhere)
    good = written(tmp_path / "good.tif", stained)

    with pytest.raises(InputError, match=re.escape(f"'{bad}'")):
        list(predict(request(bad, tmp_path).model_copy(update={"images": (str(bad), str(good))})))

    assert result_state(tmp_path / "good.ome.zarr") == "complete"


def test_a_worker_that_sees_other_parts_than_the_others_gives_the_block_back(otsu, stained, tmp_path):
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    image = open_image(damaged)
    network = BlockwiseNetwork(otsu.network, CPU, 1, 0)
    unread = cluster.look(network, image)
    work = Assignment(
        "a run", weights_digest(otsu.network), str(damaged), image.fingerprint(), None, 1.0, "cpu", unread=unread
    )

    assert unread
    assert predict_block(work, (0, 0, TILE, TILE)).shape == (1, TILE, TILE)
    with pytest.raises(ReadError, match="cannot read the same parts"):
        predict_block(Assignment(**(vars(work) | {"unread": ()})), (0, 0, TILE, TILE))


def test_what_the_overview_could_not_show_keeps_no_worker_from_a_network_that_does_not_look_at_it(
    network_of_pixels, stained, tmp_path, monkeypatch
):
    turned = TurnAveraged(network_of_pixels.network, 4, largest=1)  # as a slide is looked at: from one side
    monkeypatch.setattr(cluster, "load_predictor", lambda *_: replace(network_of_pixels, network=turned))
    damaged = written(tmp_path / "damaged.tif", stained, [(TILE, TILE)])
    image = open_image(damaged)
    image.overview()  # in which tissue is looked for here, and by no worker
    unread = cluster.look(BlockwiseNetwork(turned, CPU, 1, 0), image)
    weights, pixels = weights_digest(turned), image.fingerprint()
    work = Assignment("another run", weights, str(damaged), pixels, None, 1.0, "cpu", "auto", unread)

    assert image.unread
    assert predict_block(work, (0, 0, TILE, TILE)).shape == (1, TILE, TILE)


def test_an_overview_shows_damaged_parts_as_light_as_the_lightest_and_names_them(stained, tmp_path):
    stained[:, 430:] = 245
    damaged = open_image(written(tmp_path / "damaged.tif", stained, [(0, 0)]))
    sound = open_image(written(tmp_path / "sound.tif", stained)).overview()

    seen = damaged.overview()

    assert damaged.unread == (Box(0, 0, 160, 160),)
    assert (seen[:160, :160] == 245).all()
    np.testing.assert_array_equal(seen[160:], sound[160:])
    np.testing.assert_array_equal(seen[:, 160:], sound[:, 160:])

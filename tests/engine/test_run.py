"""Train, predict and export in one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_semiseg.engine.control import Control
from napari_semiseg.engine.run import RunRequest, run
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Event, Finished, Started, Stop, Written
from napari_semiseg.io.result import Result
from napari_semiseg.project.folder import ProjectFolder

SMALL = {"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two images of dark discs on pink, with labels of the first."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    rows, columns = np.indices((128, 128))
    labels = np.zeros((128, 128), np.uint16)
    for number, (y, x) in enumerate([(30, 30), (80, 40), (60, 95)], 1):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= 100] = number
    for name in ("a", "b"):
        pixels = np.full((128, 128, 3), (230, 180, 210), np.uint8)
        pixels[labels > 0] = (90, 60, 140)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    tifffile.imwrite(folder / "labels" / "a.tif", labels)
    return folder


def asked(pictures: Path, out: Path, **more: object) -> RunRequest:
    values = {
        "images": [str(pictures / "images")],
        "labels": str(pictures / "labels"),
        "out": str(out),
        "method": "supervised",
        "steps": 2,
        "device": "cpu",
        "set": SMALL,
        **more,
    }
    return RunRequest.checked(values, "the test")


@pytest.fixture(scope="module")
def done(pictures, tmp_path_factory) -> tuple[Path, list[Event]]:
    out = tmp_path_factory.mktemp("results") / "all"
    return out, list(run(asked(pictures, out, to=["csv", "tiff"])))


def test_a_run_holds_the_training_every_result_and_every_export(done):
    out, _ = done

    assert (out / "run" / "run.json").is_file()
    for name in ("a", "b"):
        assert Result.open(out / f"{name}.ome.zarr").complete
        assert tifffile.imread(out / f"{name}.tif").shape == (128, 128)
        assert (out / f"{name}.csv").read_text().startswith("label,")


def test_the_parts_come_in_order_and_the_whole_has_the_first_and_the_last_word(done):
    out, events = done
    began = [event.what for event in events if isinstance(event, Started)]

    assert began[:3] == ["run", "train", "predict"]
    assert began[3:] == ["export"] * 4
    assert events[-1] == Finished("run", str(out))
    assert sum(isinstance(event, Written) for event in events) == 6


def test_with_a_model_nothing_is_trained(done, pictures, tmp_path):
    model = done[0] / "run"
    request = asked(pictures, tmp_path / "again", model=str(model), images=[str(pictures / "images" / "b.png")])
    events = list(run(request))

    assert "train" not in [event.what for event in events if isinstance(event, Started)]
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["b.csv", "b.ome.zarr"]


@pytest.mark.parametrize(("command", "canceled"), [(Stop(), False), (Cancel(), True)])
def test_a_run_that_is_ended_while_it_trains_predicts_nothing(pictures, tmp_path, command, canceled):
    control = Control()
    events = []
    for event in run(asked(pictures, tmp_path / "ended", steps=1000), control):
        events.append(event)
        if isinstance(event, Started) and event.what == "train":
            control.send(command)

    assert events[-1] == Finished("run", str(tmp_path / "ended"), stopped=True, canceled=canceled)
    assert not list((tmp_path / "ended").glob("*.zarr"))
    kept = list((tmp_path / "ended").rglob("*.safetensors"))
    assert bool(kept) is not canceled


def test_a_stopped_run_goes_on_to_its_end(pictures, tmp_path):
    control = Control()
    control.send(Stop())
    list(run(asked(pictures, tmp_path / "ended"), control))
    events = list(run(asked(pictures, tmp_path / "ended", resume=True)))

    assert events[-1] == Finished("run", str(tmp_path / "ended"))
    assert (tmp_path / "ended" / "b.csv").is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"to": ["xlsx"]}, "There is no format 'xlsx'"),
        ({"out": ""}, "give --out"),
        ({"images": [], "dataset": "x", "model": "y"}, "name images"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_computed(pictures, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        next(run(RunRequest(**{**asked(pictures, tmp_path / "never").model_dump(), **change})))

    assert not (tmp_path / "never").exists()


def test_planes_of_one_file_are_refused_before_anything_is_computed(pictures, tmp_path):
    two = tmp_path / "two.ome.tif"
    tifffile.imwrite(two, np.zeros((2, 64, 64), np.uint8), metadata={"axes": "CYX"}, photometric="minisblack")
    with pytest.raises(InputError, match="their results would have the same name"):
        list(run(asked(pictures, tmp_path / "new", images=[f"{two}[c=0]", f"{two}[c=1]"], labels=None)))
    assert not (tmp_path / "new").exists()


def test_images_of_a_project_that_have_one_name_are_refused_before_anything_is_computed(pictures, tmp_path):
    with ProjectFolder.create(tmp_path / "case") as project:
        for number in range(2):
            (tmp_path / str(number)).mkdir()
            image = Path(shutil.copy(pictures / "images" / "a.png", tmp_path / str(number)))
            project.add_image(image, shape=(128, 128))
    with pytest.raises(InputError, match="have the same name"):
        list(run(asked(pictures, tmp_path / "new", images=[], labels=None, project=str(project.path), method="auto")))
    assert not (tmp_path / "new").exists()


def test_a_folder_of_images_has_a_report_each_and_one_of_all(done, pictures, tmp_path):
    model, _ = done
    events = list(run(asked(pictures, tmp_path / "out", model=str(model / "run"), labels=None, to=["report"])))

    written = [event for event in events if isinstance(event, Written) and event.what == "report"]
    assert [Path(event.path).name for event in written] == ["a.html", "b.html", "report.html"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    nuclei = [event.facts["nuclei"] for event in written[:2]]
    assert f"{sum(nuclei):,} nuclei on 2 slides" in page
    assert page.count("data:image/png") == 1
    one = (tmp_path / "out" / "a.html").read_text(encoding="utf-8")
    assert "What the nuclei come to" in one
    assert one.count("data:image/png") == 4


def test_a_damaged_image_is_exported_without_its_damage_where_gaps_are_allowed(pictures, done, tmp_path):
    pixels = np.array(Image.open(pictures / "images" / "a.png")).repeat(4, 0).repeat(4, 1)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(128, 128), compression="zlib", photometric="rgb")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages[0].dataoffsets[5]
    with (tmp_path / "a.tif").open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 64)
    values = {"images": [str(tmp_path / "a.tif")], "model": str(done[0] / "run"), "to": ["csv"], "device": "cpu"}
    strict = RunRequest.checked(values | {"out": str(tmp_path / "strict")}, "the test")
    lenient = RunRequest.checked(values | {"out": str(tmp_path / "lenient"), "gaps": True}, "the test")

    with pytest.raises(InputError, match="--gaps"):
        list(run(strict))
    list(run(lenient))

    assert not (tmp_path / "strict" / "a.csv").exists()
    assert (tmp_path / "lenient" / "a.csv").is_file()
    gaps = Result.open(tmp_path / "lenient" / "a.ome.zarr").card.facts["gaps"]
    assert [128, 128, 256, 256] in gaps
    assert len(gaps) == 9  # those beside it, whose nuclei the network would have to see it for

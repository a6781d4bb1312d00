"""Images of every odd shape and type go through training, prediction and the dock's look at a layer, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile

from napari_semiseg.app.slide import examine
from napari_semiseg.blocks import Box
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished, Skipped, StepDone
from napari_semiseg.io.images import from_array
from napari_semiseg.io.result import Result

pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 255, shape).astype(np.uint8)


USABLE = {
    "1 x 1": noise(1, 1),
    "1 x N": noise(1, 70),
    "N x 1": noise(90, 1),
    "31 x 31": noise(31, 31, 3),
    "RGBA": noise(70, 80, 4),
    "all transparent": noise(70, 80, 4) * np.array([1, 1, 1, 0], np.uint8),
    "bool": noise(70, 80) > 99,
    "uint16": noise(70, 80).astype(np.uint16) * 200,
    "big-endian": noise(70, 80).astype(">u2"),
    "big-endian float": noise(70, 80).astype(">f8"),
    "int32": noise(70, 80).astype(np.int32) - 5_000,
    "float16": (noise(70, 80) / 255).astype(np.float16),
    "float64": noise(70, 80) / 7e300,
    "constant": np.full((70, 80, 3), 200, np.uint8),
    "all zero": np.zeros((70, 80), np.uint8),
    "all NaN": np.full((70, 80), np.nan, np.float32),
    "all Inf": np.full((70, 80), np.inf),
    "some NaN and Inf": np.where(noise(70, 80) > 99, np.nan, np.where(noise(70, 80) > 99, np.inf, 0.5)),
    "denormal": np.full((70, 80), 5e-324),
}
REFUSED = {
    "no rows": noise(0, 80),
    "no pixels": noise(0, 0, 3),
    "a line": noise(80),
    "volume": noise(30, 70, 80),
    "time series": noise(2, 3, 70, 80),
    "two channels": noise(2, 70, 80),
    "two channels last": noise(70, 80, 2),
    "five channels": noise(5, 70, 80),
    "five channels last": noise(70, 80, 5),
    "complex": noise(70, 80).astype(np.complex64),
}


def write(path: Path, image: np.ndarray) -> str:
    color = image.ndim == 3 and image.shape[-1] in (3, 4)
    options = {"photometric": "rgb"} if color else {"photometric": "minisblack"}
    if color and image.shape[-1] == 4:
        options["extrasamples"] = ["unassalpha"]
    if image.dtype.kind == "b":
        tifffile.imwrite(path, image)
    else:
        tifffile.imwrite(path, image, byteorder=">" if image.dtype.byteorder == ">" else "=", **options)
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, to predict with."""
    folder = tmp_path_factory.mktemp("trained")
    options = {"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2}
    (folder / "labels").mkdir()
    tifffile.imwrite(folder / "labels" / "field.tif", np.kron(np.eye(4), np.ones((16, 16))).astype(np.uint8))
    request = TrainRequest(
        images=(write(folder / "field.tif", noise(64, 64, 3)),),
        labels=str(folder / "labels"),
        out=str(folder / "run"),
        method="supervised",
        network="small_unet",
        subimage=64,
        steps=1,
        device="cpu",
        set=options,
    )
    list(train(request))
    return folder / "run"


@pytest.mark.parametrize("kind", USABLE)
def test_an_image_that_can_be_used_is_predicted_pixel_by_pixel(trained: Path, tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "odd.tif", USABLE[kind])
    request = PredictRequest(run=str(trained), images=(path,), out=str(tmp_path / "out.ome.zarr"), device="cpu")
    *_, last = predict(request)

    assert isinstance(last, Finished)
    result = Result.open(tmp_path / "out.ome.zarr")
    assert result.complete
    assert result.shape == USABLE[kind].shape[:2]
    assert result.nuclei(Box.whole(result.shape)).shape == result.shape


@pytest.mark.parametrize("kind", ["1 x 1", "1 x N", "31 x 31", "all transparent", "all NaN", "some NaN and Inf"])
@pytest.mark.parametrize("method", ["csl", "cdcl"])
def test_an_image_that_can_be_used_can_be_trained_on(
    ask: Callable[..., TrainRequest], tmp_path: Path, kind: str, method: str
) -> None:
    image = USABLE[kind]
    path = write(tmp_path / "odd.tif", image)
    if method == "csl":
        request = ask(images=(path,), labels=None, method="csl", steps=1).model_copy(
            update={"set": {"crop": 64, "batch_unlabeled": 2, "restarts": 1, "patch": 16, "candidate_stride": 8}}
        )
    else:
        (tmp_path / "labels").mkdir()
        tifffile.imwrite(tmp_path / "labels" / "odd.tif", np.ones(image.shape[:2], np.uint8))
        request = ask(images=(path,), labels=str(tmp_path / "labels"), method="cdcl", steps=1, validation=0)
    events = list(train(request))

    assert isinstance(events[-1], Finished)
    assert not [event for event in events if isinstance(event, Skipped) and "finite" in event.reason]
    assert all(np.isfinite(list(event.losses.values())).all() for event in events if isinstance(event, StepDone))


@pytest.mark.parametrize("kind", REFUSED)
def test_an_image_that_cannot_be_used_is_refused_wherever_it_is_given(
    trained: Path, ask: Callable[..., TrainRequest], tmp_path: Path, kind: str
) -> None:
    image = REFUSED[kind]
    path = tmp_path / "odd.tif"
    if image.size and image.ndim > 1:
        write(path, image)
    else:
        path.write_bytes(image.tobytes())  # no TIFF holds such; whatever claims to be one is refused as well
    for attempt in (
        lambda: train(ask(images=(str(path),), labels=None)),
        lambda: predict(PredictRequest(run=str(trained), images=(str(path),), out=str(tmp_path / "out"), device="cpu")),
        lambda: iter([from_array(image, "odd.tif")]),
    ):
        with pytest.raises(InputError, match=r"odd\.tif") as refusal:
            next(attempt())
        assert "\n" not in str(refusal.value)
        assert str(refusal.value).endswith(".")
    assert not (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [*USABLE, *REFUSED])
def test_the_dock_takes_and_refuses_what_the_engine_does(kind: str) -> None:
    image = {**USABLE, **REFUSED}[kind]
    color = image.ndim == 3 and image.shape[-1] in (3, 4)  # as napari guesses
    slide = examine("odd", [image.shape], image.dtype, rgb=color, mpp=None, path="")

    assert bool(slide.problem) == (kind in REFUSED)
    if slide.problem:
        assert slide.problem.startswith("“odd”")
        assert slide.problem.count(". ") == 0
    else:
        assert slide.shape == image.shape[:2]
        assert "odd" in slide.facts


@pytest.mark.parametrize("shape", [(float("nan"), 70), (float("nan"), float("nan"), 3)])
def test_an_image_that_does_not_know_its_own_size_is_refused(shape: tuple[float, ...]) -> None:
    """Dask arrays have such shapes after choosing pixels by their values."""
    flat = da.from_array(noise(40, 70), chunks=(20, 70))
    unknown = flat[flat[:, 0] >= 0]
    assert np.isnan(unknown.shape[0])

    with pytest.raises(InputError, match="'lazy'"):
        from_array(unknown, "lazy")
    slide = examine("lazy", [shape], np.dtype(np.uint8), rgb=len(shape) == 3, mpp=None, path="")
    assert "compute it first" in slide.problem


def test_chunks_of_nan_in_a_lazy_image_are_black_and_the_rest_is_seen() -> None:
    values = np.tile(np.linspace(0, 1, 100), (100, 1))
    values[:50, :50] = np.nan
    lazy = from_array(da.from_array(values, chunks=(50, 50)), "lazy")
    seen = lazy.read(Box(0, 0, 100, 100))

    assert not seen[:50, :50].any()
    assert seen[50:].max() == 255


def test_channels_may_come_first_in_memory_and_an_image_may_be_huge() -> None:
    first = noise(3, 40, 50)
    np.testing.assert_array_equal(from_array(first, "a").read(Box(0, 0, 40, 50)), np.moveaxis(first, 0, -1))
    huge = da.zeros((200_000, 200_000, 3), dtype=np.uint8, chunks=(4_000, 4_000, 3))
    image = from_array(huge, "huge")
    assert image.shape == (200_000, 200_000)
    assert image.read(Box(199_990, 0, 200_000, 10)).shape == (10, 10, 3)
    assert not examine("huge", [huge.shape], huge.dtype, rgb=True, mpp=0.25, path="").problem

"""Which part of an image a map of confidence shows while a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_semiseg.blocks import Box
from napari_semiseg.engine.preview import KEPT, LARGEST, WIDEST, _shown, _thin_out

SLIDE = (40_000, 60_000)


@pytest.mark.parametrize("box", [None, Box(0, 0, *SLIDE), Box(-5, -5, 30_000, 10), Box(50_000, 0, 50_010, 10)])
@pytest.mark.parametrize("labeled", [None, Box(100, 39_000, 350, 39_250)])
def test_never_more_of_a_slide_is_computed_than_takes_seconds(box: Box | None, labeled: Box | None) -> None:
    shown = _shown(box, SLIDE, labeled)

    assert 0 < shown.area <= WIDEST**2
    assert max(shown.shape) <= WIDEST
    assert Box.whole(SLIDE).contains(shown)


def test_what_is_in_view_is_shown_as_it_is() -> None:
    view = Box(10_000, 20_000, 11_000, 21_500)

    assert _shown(view, SLIDE, None) == view
    assert _shown(view.grown(WIDEST), SLIDE, None).contains(view.grown(-400))


def test_where_nobody_looks_a_label_is_shown_with_its_surroundings() -> None:
    labeled = Box(20_000, 39_000, 20_250, 39_250)

    assert _shown(None, SLIDE, labeled) == labeled.grown(LARGEST // 2)


@pytest.mark.parametrize("shape", [(1000, 1000), (10, LARGEST), (1, 1)])
def test_a_small_image_is_always_shown_whole(shape: tuple[int, int]) -> None:
    assert _shown(Box(0, 0, 1, 1), shape, None) == Box.whole(shape)


def test_only_so_many_maps_of_an_image_stay_however_often_a_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "image-1-step-0000001.npy").touch()
    for step in range(1, 4 * KEPT):
        (tmp_path / f"image-0-step-{step:07d}.npy").touch()
        _thin_out(tmp_path, 0)  # knows nothing of those before, as a run that goes on

    kept = sorted(tmp_path.glob("image-0-*"))
    assert KEPT // 2 < len(kept) <= KEPT
    assert kept[0].stem == "image-0-step-0000001"
    assert kept[-1].stem == f"image-0-step-{4 * KEPT - 1:07d}"
    assert (tmp_path / "image-1-step-0000001.npy").exists()  # of another image: it has a limit of its own

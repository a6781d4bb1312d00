"""The stain of a pixel on a scale of its image's own, and the network that is shown it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_semiseg.blocks import Box
from napari_semiseg.engine import typical
from napari_semiseg.engine.guides import StainGuides
from napari_semiseg.engine.infer import at_image, confidence_map
from napari_semiseg.io.images import from_array
from napari_semiseg.io.rescale import Rescaled
from napari_semiseg.nn.stain_scale import UNITS, StainScale, own_channel
from napari_semiseg.nn.stain_unet import StainUNet, find_scale
from napari_semiseg.nn.turned import TurnAveraged
from napari_semiseg.samples import immunohistochemistry


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    return immunohistochemistry()[:192, :256].copy()


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def test_the_channel_is_one_half_at_the_threshold_and_a_unit_is_a_standard_deviation() -> None:
    scale = StainScale("intensity", level=100.0, spread=20.0)
    image = torch.tensor([80.0, 100.0, 120.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3) / 255
    expected = torch.tensor([0.5 - 1 / UNITS, 0.5, 0.5 + 1 / UNITS])
    assert torch.allclose(scale.channel(image).flatten(), expected, atol=1e-6)


def test_an_image_of_one_color_shows_nothing(tissue: np.ndarray) -> None:
    flat = np.full_like(tissue, 200)
    scale = find_scale([flat], flat, gray=False)
    assert torch.equal(scale.channel(tensor(flat)), torch.full((1, 1, 192, 256), 0.5))


def test_a_slide_that_was_stained_more_strongly_shows_the_same_channel(tissue: np.ndarray) -> None:
    """Doubled optical density doubles level and spread alike."""
    pale = np.rint(256 * (tissue.astype(float) / 256) ** 0.5).clip(0, 255).astype(np.uint8)
    one, other = (find_scale([image], image, gray=False).channel(tensor(image)) for image in (tissue, pale))
    assert (one - other).abs().mean() * UNITS < 0.15


def test_a_whole_image_is_its_own_scale(tissue: np.ndarray) -> None:
    """The threshold and the spread are those of scikit-image and numpy, but for the border and the width of a bin."""
    scale = find_scale([tissue], tissue, gray=False)
    image = tensor(tissue)
    assert (own_channel(image, "hematoxylin") - scale.channel(image)).abs().max() * UNITS < 0.05

    torch.manual_seed(0)
    network = StainUNet().eval()
    told = network(torch.cat([image, own_channel(image, "hematoxylin")], 1))
    assert torch.allclose(network(image), told, atol=1e-5)


def test_an_image_of_one_color_has_a_channel_that_says_nothing() -> None:
    assert torch.equal(own_channel(torch.full((2, 3, 32, 32), 0.7), "intensity"), torch.full((2, 1, 32, 32), 0.5))


@pytest.mark.parametrize("turns", [1, 4])
def test_blocks_of_an_image_are_read_on_the_scale_of_the_whole(tissue: np.ndarray, turns: int) -> None:
    torch.manual_seed(0)
    network = StainUNet().eval()
    shown = network if turns == 1 else TurnAveraged(network, 4)
    image = from_array(tissue, "tissue")
    maps = [
        confidence_map(
            shown,
            image,
            Box.whole(image.shape),
            device=torch.device("cpu"),
            divisor=16,
            reach=network.reach,
            block=block,
        )
        for block in (64, 256)
    ]
    assert np.abs(maps[0].astype(int) - maps[1]).max() <= 1
    assert at_image(shown, image) is not shown


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("largest", [4096, 200])
def test_a_network_is_shown_the_same_stain_in_training_and_after_at_any_pixel_size(
    tissue: np.ndarray, monkeypatch: pytest.MonkeyPatch, scale: float, largest: int
) -> None:
    monkeypatch.setattr(typical, "LARGEST", largest)
    monkeypatch.setattr(typical, "_CELL", 64)
    image = from_array(tissue, "tissue")
    guides = StainGuides()
    guides.look_at(SimpleNamespace(images=[image], scales=[scale]))  # type: ignore[arg-type]
    crop = (image if scale == 1.0 else Rescaled(image, scale)).read(Box(16, 16, 80, 96))

    learned = guides.channel(0, crop)
    used = at_image(StainUNet(), image, scale).scale.channel(tensor(crop))[0, 0]
    np.testing.assert_array_equal(learned, (used * 255).round().byte().numpy())
    assert learned.std() > 10
    samples = typical.typical_of(image, scale).parts
    assert sum(part.shape[0] * part.shape[1] for part in samples) <= 1.05 * scale**2 * 192 * 256
    assert (len(samples) == 1) == (256 * scale <= largest)
